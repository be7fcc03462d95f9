"""A search for polluted users told through the command: a draft for a person, counts for everybody else, refused in one sentence."""

from __future__ import annotations

import csv
import io
import json
import shutil
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2urec_console import Answer, Console, Story, digests, prefect_table, states

from benchmarks.polluted import precision_at_half
from data_contracts.draft_request import DRAFT_REQUEST
from data_contracts.expectations import violations
from e2urec_core.data.tokens import user_numbers
from e2urec_core.errors import BadSetting
from e2urec_core.pollution.evidence import evidence
from e2urec_core.pollution.rule import FoldRule
from e2urec_core.pollution.scoring import read_held_out
from flows.finding import build_finding
from tests.html_page import Page

WORDS = ("find-polluted", "sample", "tiny-t5")
# fmt: off
TINY = (
    "--dataset.num-users", "60", "--dataset.ratings-per-user", "12", "--dataset.polluted-share", "0.3",
    "--backbone.width", "16", "--backbone.num-layers", "1", "--backbone.num-heads", "2", "--backbone.inner-width", "32",
    "--backbone.vocabulary", "400", "--folds.training.num-epochs", "1", "--folds.set-aside-below", "0.9",
    # So that networks which have hardly learned propose somebody.
    "--finder.propose", "both", "--finder.level", "0.98", "--finder.at-most", "0.5", "--finder.interaction-level", "0.98",
)
# fmt: on


@pytest.fixture(scope="module")
def console(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """One in which Prefect has been started before, and nothing else."""
    workspace = tmp_path_factory.mktemp("pollution") / "workspace"
    shutil.copytree(story.workspace / "prefect", workspace / "prefect")
    console = Console(workspace)
    yield console
    console.close()


@pytest.fixture(scope="module")
def told(console: Console) -> tuple[Answer, dict[str, Any], Path]:
    """What the command said, the run, and the folder of its report."""
    answer = console(*WORDS, *TINY)
    assert answer.code == 0, answer.stderr
    run = console.last()
    return answer, run, console.workspace / "reports" / run["run"]


@pytest.mark.slow
def test_the_draft_keeps_the_contract_of_requests_and_is_its_owners_alone(told: tuple[Answer, dict[str, Any], Path]) -> None:
    draft = told[2] / "polluted.csv"
    assert stat.S_IMODE(draft.stat().st_mode) == 0o600
    lines = list(csv.DictReader(io.StringIO(draft.read_text())))
    assert {line["scope"] for line in lines} == {"user", "interaction"}
    assert {line["reason"] for line in lines} == {"pollution"}
    typed = [
        {
            **line,
            "item_id": line["item_id"] or None,
            "requested_at": datetime.fromisoformat(line["requested_at"]),
            "score": float(line["score"]),
            "q": float(line["q"]),
            "rows": int(line["rows"]),
        }
        for line in lines
    ]
    table = pa.Table.from_pylist(typed, schema=DRAFT_REQUEST.schema())
    assert violations(DRAFT_REQUEST, table) == []


@pytest.mark.slow
def test_nobody_is_named_outside_of_the_draft(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    answer, run, folder = told
    named = {line["user_id"] for line in csv.DictReader(io.StringIO((folder / "polluted.csv").read_text()))}
    assert named
    journal = (console.workspace / "runs" / f"{run['run']}.json").read_text()
    said = [answer.stdout, answer.stderr, (folder / "pollution.json").read_text(), Page((folder / "report.html").read_text()).text, journal]
    words = {word.strip('.,:;"()') for text in said for word in text.split()}
    assert not named & words
    kept = [path.name for path in (console.workspace / "mlartifacts").rglob("*") if path.is_file()]
    assert {"pollution.json", "report.html"} <= set(kept)
    assert "polluted.csv" not in kept


@pytest.mark.slow
def test_prefect_shows_the_counts_of_the_report(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    document = json.loads((told[2] / "pollution.json").read_text())
    shown = {row["What"]: row["How many"] for row in prefect_table(console.workspace, told[1]["run"])}
    assert shown["Users proposed"] == f"{document['num_proposed_users']:,}"
    assert shown["Training rows"] == f"{document['num_rows']:,}"


@pytest.mark.slow
def test_a_search_is_taken_from_the_store_when_it_is_repeated(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    _, first, folder = told
    stages = ["ingest", "split", "tokenise", "fold-scores round 1", "fold-scores round 2", "propose-polluted"]
    assert states(first) == dict.fromkeys(stages, "completed")
    answer = console(*WORDS, *TINY, "--json")
    second = console.last()
    assert states(second) == dict.fromkeys(stages, "cached")
    assert digests(second) == digests(first)
    assert answer.json() == json.loads((folder / "pollution.json").read_text())
    # Another level asks the same networks.
    assert console(*WORDS, *TINY, "--finder.level", "0.5").code == 0
    assert [stage for stage, state in states(console.last()).items() if state != "cached"] == ["propose-polluted"]


@pytest.mark.slow
def test_histories_are_hidden_unless_they_are_asked_for(console: Console, told: tuple[Answer, dict[str, Any], Path]) -> None:
    def longest(run: dict[str, Any]) -> int:
        folder = console.workspace / "store" / "objects" / "Examples" / digests(run)["split"]
        lengths: int = pa.compute.max(pa.compute.list_value_length(pq.read_table(folder / "examples.parquet")["history"])).as_py()
        return lengths

    assert longest(told[1]) == 0
    assert console(*WORDS, *TINY, "--folds.history", "shown", "--folds.num-rounds", "1").code == 0
    assert longest(console.last()) > 0
    assert "fold-scores round 2" not in states(console.last())


@pytest.mark.long
def test_the_samples_polluted_users_are_found(console: Console) -> None:
    """The whole sample; nobody but this test looks at cohorts."""
    answer = console(*WORDS, "--seed", "10", "--json")
    assert answer.code == 0, answer.stderr
    run = console.last()
    folder = console.workspace / "store" / "objects"
    users = pq.read_table(folder / "Interactions" / digests(run)["ingest"] / "users.parquet", columns=["user_id", "cohort"])
    cohorts = dict(zip(users["user_id"].to_pylist(), users["cohort"].to_pylist(), strict=True))
    numbers = user_numbers(users["user_id"].combine_chunks().cast(pa.string())).to_pylist()
    by_number = dict(zip(numbers, users["cohort"].to_pylist(), strict=True))
    found = evidence(read_held_out(folder / "HeldOutScores" / digests(run)["fold-scores round 2"]), FoldRule().quality)
    truth = pa.array([by_number[user] == "polluted" for user in found.users.tolist()]).to_numpy(zero_copy_only=False)
    assert precision_at_half(-found.score, truth) >= 0.8
    draft = (console.workspace / "reports" / run["run"] / "polluted.csv").read_text()
    named = [cohorts[line["user_id"]] for line in csv.DictReader(io.StringIO(draft))]
    assert named.count("polluted") / len(named) >= 0.7
    assert named.count("polluted") / truth.sum() >= 0.7


def test_settings_that_a_search_has_no_use_for_are_refused() -> None:
    for name in ("method.lora.rank", "forget.share", "training.num-epochs", "evaluate.floor-seeds"):
        with pytest.raises(BadSetting, match="a search forgets nobody"):
            build_finding("sample", "tiny-t5", None, {name: "1"})
    with pytest.raises(BadSetting, match=r"no setting `--folds\.fold`"):
        build_finding("sample", "tiny-t5", None, {"folds.fold": "1"})
    with pytest.raises(BadSetting, match=r"--folds\.num-folds 1"):
        build_finding("sample", "tiny-t5", None, {"folds.num-folds": "1"})


def test_flags_reach_the_settings_they_name() -> None:
    plan = build_finding("sample", "tiny-t5", None, {"folds.num-folds": "5", "finder.level": "0.1", "seed": "4", "dataset.num-users": "99"})
    assert (plan.folds.num_folds, plan.finder.level, plan.run.seed) == (5, 0.1, 4)
    assert plan.run.dataset.model_dump()["num_users"] == 99
