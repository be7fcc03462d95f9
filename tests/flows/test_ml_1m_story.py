"""An invented MovieLens folder through the command: users named in a file are forgotten, and no user is named where none may be."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pytest
from e2urec_console import STAGES, TINY_NETWORK, Answer, Console, Story, states, trained_users

# By default: the files in `tests/core/test_ml_1m.py` and `tests/faults/test_ml_1m_bad_input.py`, users named in a file in `test_story.py`,
# and whom nothing may name in `test_night_story.py` and `test_release_story.py`.
pytestmark = pytest.mark.long

WORDS = ("unlearn", "ml-1m", "tiny-bart", "e2urec", "--preset", "smoke")
NUM_USERS, NUM_MOVIES = 60, 80
USERS = [str(987_610_000 + 137 * number) for number in range(NUM_USERS)]
NUM_LEAVING, STRANGER = 12, "987699999"


def invent(place: Path) -> Path:
    """Three files in MovieLens' format; every user rates 12 to 18 movies in the first days of 2001."""
    draw = random.Random(3)
    place.mkdir(parents=True)
    movies = [f"{movie}::Invented Film {movie}, The (19{movie:02})::Drama|War" for movie in range(10, 10 + NUM_MOVIES)]
    people = [f"{user}::{draw.choice('FM')}::{draw.choice([1, 18, 25, 56])}::{draw.randrange(21)}::00000" for user in USERS]
    ratings = []
    for user in USERS:
        for movie in draw.sample(range(10, 10 + NUM_MOVIES), draw.randint(12, 18)):
            ratings.append(f"{user}::{movie}::{draw.randint(1, 5)}::{978_307_200 + draw.randrange(10 * 86_400)}")
    draw.shuffle(ratings)
    for name, lines in (("movies", movies), ("users", people), ("ratings", ratings)):
        (place / f"{name}.dat").write_text("\n".join([*lines, ""]), encoding="latin-1")
    return place


class Told(NamedTuple):
    """What was run in the workspace: a good run and two that were refused."""

    console: Console
    data: Path
    answers: dict[str, Answer]


@pytest.fixture(scope="module")
def told(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    data = invent(tmp_path_factory.mktemp("invented") / "ml-1m")
    leaving, unknown = data.parent / "leaving.txt", data.parent / "unknown.txt"
    unknown.write_text(STRANGER)
    # A Prefect that was started before, and nothing else.
    workspace = tmp_path_factory.mktemp("ml_1m") / "workspace"
    shutil.copytree(story.workspace / "prefect", workspace / "prefect")
    console = Console(workspace)
    flags = (
        "--dataset.path",
        data,
        *TINY_NETWORK,
        "--split.holdout-share",
        "0.2",
        "--training.learning-rate",
        "0.01",
        "--training.num-epochs",
        "6",
    )
    answers = {"unknown": console(*WORDS, *flags, "--forget.users-file", unknown)}
    leaving.write_text("\n".join(trained_users(console.workspace, console.last())[:NUM_LEAVING]))
    answers["good"] = console(*WORDS, *flags, "--forget.users-file", leaving)
    with (data / "ratings.dat").open("a", encoding="latin-1") as file:
        file.write(f"{USERS[5]}::10::9::978307200\n{USERS[6]}::10::0::978307200\n")
    answers["rating"] = console(*WORDS, *flags, "--forget.users-file", leaving)
    yield Told(console, data, answers)
    console.close()


def test_the_whole_story_runs_on_the_files_of_the_format(told: Told) -> None:
    answer = told.answers["good"]
    assert answer.code == 0, answer.stderr
    (run,) = [run for run in told.console.runs() if run["state"] == "completed"]
    assert states(run) == {**dict.fromkeys(STAGES, "completed"), "ingest": "cached", "split": "cached"}
    report: dict[str, Any] = json.loads((told.console.workspace / "reports" / run["run"] / "report.json").read_text())
    assert [row["method"] for row in report["rows"]] == ["original", "retrain", "e2urec"]
    assert report["counts"]["forgotten_users"] == NUM_LEAVING
    # What preset `smoke` says and no flag has changed.
    assert report["settings"]["split"]["last_examples"] == 20_000
    assert report["settings"]["method"]["suppression"] == 4.0
    assert report["settings"]["backbone"]["vocabulary"] == 400


def test_a_refusal_counts_and_names_no_user(told: Told) -> None:
    assert told.answers["unknown"].code == 2
    assert "BadRequest: 1 of 1 named users have no training row\n" in told.answers["unknown"].stderr
    assert told.answers["rating"].code == 2
    assert "BadInput: 2 of " in told.answers["rating"].stderr
    assert "\n  rating outside the scale   2 rows, first at ratings.dat line " in told.answers["rating"].stderr


def named(data: bytes) -> list[str]:
    """Users whose id stands in `data` as a number of its own."""
    found = {number.decode() for number in re.findall(rb"(?<![\d.])\d{9}(?![\d.])", data)}
    return sorted(found & {*USERS, STRANGER})


def test_the_scan_finds_users_where_they_are(told: Told) -> None:
    assert named((told.data / "ratings.dat").read_bytes()) == USERS
    assert named(f'{{"user": "{USERS[3]}"}}'.encode()) == [USERS[3]]
    assert named(f"user_{USERS[3]}\x00".encode()) == [USERS[3]]


def test_no_user_is_named_in_any_database_report_record_or_log(told: Told) -> None:
    workspace = told.console.workspace
    places = [path for path in workspace.rglob("*") if path.is_file() and workspace / "store" not in path.parents]
    assert {"mlflow.db", "prefect.db", "prefect.db-wal", "report.json", "report.html"} <= {path.name for path in places}
    assert {path.name: named(path.read_bytes()) for path in places if named(path.read_bytes())} == {}
    for name, answer in told.answers.items():
        assert (name, named((answer.stdout + answer.stderr).encode())) == (name, [])


def test_inside_the_store_users_are_named_in_rows_alone(told: Told) -> None:
    import pyarrow.parquet as pq

    objects = told.console.workspace / "store"
    holds = {}
    for path in sorted(path for path in objects.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            data = "\n".join(str(column.to_pylist()) for column in table.columns).encode()
        if named(data):
            holds["/".join(path.relative_to(objects / "objects").parts[::2])] = len(named(data))
    assert holds == {
        "Examples/examples.parquet": NUM_USERS,
        "ForgetRequest/users.parquet": NUM_LEAVING,
        "Interactions/interactions": NUM_USERS,
        "Interactions/users.parquet": NUM_USERS,
    }


def test_the_logged_bart_gives_the_recommenders_own_probabilities_whatever_the_padding(told: Told) -> None:
    """Of every backbone, one and many rows at a time: `tests/tasks/test_served_scores.py`."""
    import mlflow
    import pandas as pd

    from e2urec_core.data.prompts import PromptRule, rendered
    from e2urec_core.recommender import load

    workspace = told.console.workspace
    (run,) = [run for run in told.console.runs() if run["state"] == "completed"]
    folders = {stage: workspace / "store" / "objects" / entry["kind"] / entry["handle"]["digest"] for stage, entry in run["stages"].items()}
    texts = [text for _, told in rendered(folders["split"], folders["ingest"], PromptRule()) for text in told.to_pylist()][:40]
    texts += ["Short: Answer Yes or No:", texts[0] * 2]
    recommender = load(folders["unlearn"])
    own = recommender.score(recommender.prompts(numpy.arange(42), numpy.zeros(42, dtype=numpy.int8), texts), token_budget=1)
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(f"sqlite:///{workspace / 'mlflow.db'}")
        model = mlflow.pyfunc.load_model(f"runs:/{run['tracking_run']}/recommender/{run['stages']['bundle']['handle']['digest'][:12]}")
    finally:
        mlflow.set_tracking_uri(before)
    served = numpy.asarray(model.predict(pd.DataFrame({"prompt": texts})), dtype=float).ravel()
    # One row at a time has no padding at all; float32 sums differ in their order.
    numpy.testing.assert_allclose(served, own, atol=1e-6, rtol=0)
    assert own.std() > 2e-5
