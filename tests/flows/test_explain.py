"""`e2urec explain` and `--dry-run`: whether each stage would be taken from the store, and why not; nothing is run or written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2urec_console import STAGES, TINY, WORDS, Answer, Console, Story, copied, digests, trained_users

from e2urec_core.artifacts import file_digest

pytestmark = pytest.mark.slow
NO_METHOD = tuple(flag for pair in zip(TINY[::2], TINY[1::2], strict=True) if not pair[0].startswith("--method.") for flag in pair)
# What would be made of the unlearned recommender, as far as it can be foreseen.
AFTER_UNLEARN = ("evaluate", "report", "verdict")


@pytest.fixture(scope="module")
def console(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """One of this file's own, as a test damages its store."""
    console = Console(copied(story.workspace, tmp_path_factory.mktemp("explained") / "workspace"))
    yield console
    console.close()


def listing(workspace: Path) -> dict[str, tuple[int, str]]:
    """When everything under a workspace was written, and the digest of every file."""
    paths = sorted(workspace.rglob("*"))
    return {str(path): (path.stat().st_mtime_ns, file_digest(path) if path.is_file() else "") for path in paths}


def told(answer: Answer) -> dict[str, tuple[str, list[str]]]:
    """State and reasons by stage, of an answer in JSON."""
    assert answer.code == 0, answer.stderr
    return {each["stage"]: (each["state"], [reason["text"] for reason in each["reasons"]]) for each in answer.json()["stages"]}


def states(answer: Answer) -> dict[str, str]:
    return {stage: state for stage, (state, _) in told(answer).items()}


def test_an_untouched_run_would_be_taken_from_the_store_stage_by_stage_in_its_order(console: Console, story: Story) -> None:
    before = listing(console.workspace)
    answer = console("explain", story.run, "--json")
    assert list(told(answer).items()) == [(stage, ("stored", [])) for stage in STAGES]
    assert {each["stage"]: each["digest"] for each in answer.json()["stages"]} == digests(console.run(story.run))
    assert (answer.json()["run"], answer.json()["ends_at"]) == (story.run, None)
    shown = console("explain", "last").stdout.splitlines()
    assert [line.split()[:4] for line in shown[1:-1]] == [[stage, "from", "the", "store"] for stage in STAGES]
    assert shown[-1] == "14 of 14 stages from the store, 0 would run, 0 depend on those"
    assert listing(console.workspace) == before


def test_a_dry_run_of_the_same_command_says_the_same_and_writes_nothing(console: Console) -> None:
    before = listing(console.workspace)
    answer = console(*WORDS, *TINY, "--dry-run", "--json")
    assert told(answer) == {stage: ("stored", []) for stage in STAGES}
    assert (answer.json()["run"], answer.stderr) == (None, "")
    assert listing(console.workspace) == before


def test_a_dry_run_of_a_changed_setting_names_it_and_what_hangs_on_it(console: Console) -> None:
    before = listing(console.workspace)
    answer = console(*WORDS, *TINY, "--method.suppression", "3", "--dry-run", "--json")
    found = told(answer)
    assert list(found) == [*STAGES[:-1]]
    assert {stage for stage in found if found[stage][0] == "stored"} == {*STAGES} - {"unlearn", *AFTER_UNLEARN, "bundle"}
    assert found["unlearn"] == ("run", ["setting `method.suppression`: 60.0 -> 3.0"])
    assert found["evaluate"] == ("depends", ["its input `unlearned` would be made anew by `unlearn`"])
    assert found["report"][1][0] == "setting `method.suppression`: 60.0 -> 3.0"
    assert answer.json()["ends_at"] == "verdict"
    shown = console(*WORDS, *TINY, "--method.suppression", "3", "--dry-run").stdout
    assert shown.splitlines()[-1] == "what comes after depends on what `verdict` gives"
    assert listing(console.workspace) == before


@pytest.mark.long
def test_what_a_dry_run_says_would_run_is_what_runs(console: Console) -> None:
    """Of a comparison, and of a run that was told already: `test_compare_story.py` and above."""
    changed = ("--method.suppression", "5")
    foretold = states(console(*WORDS, *TINY, *changed, "--dry-run", "--json"))
    assert console.unlearn(*changed).code == 0
    became = {stage: entry["state"] for stage, entry in console.last()["stages"].items()}
    assert {stage for stage, state in foretold.items() if state == "stored"} == {stage for stage in became if became[stage] == "cached"}
    assert set(states(console(*WORDS, *TINY, *changed, "--dry-run", "--json")).values()) == {"stored"}


def test_settings_beside_a_run_s_name_ask_what_they_would_change(console: Console, story: Story) -> None:
    found = told(console("explain", story.run, "--dataset.num-users", "70", "--json"))
    assert found["ingest"] == ("run", ["setting `dataset.num_users`: 60 -> 70"])
    assert found["split"] == ("depends", ["its input `rows` would be made anew by `ingest`"])
    assert found["bundle"] == ("depends", ["what `verdict` gives is read before it"])


def test_one_stage_can_be_asked_for(console: Console, story: Story) -> None:
    assert list(told(console("explain", story.run, "--stage", "forget", "--json"))) == ["forget"]
    answer = console("explain", story.run, "--stage", "forgt")
    assert (answer.code, answer.stdout) == (2, "")
    fact, hint = answer.stderr.splitlines()
    assert fact == f"BadSetting: the run `{story.run}` has no stage `forgt` among its {len(STAGES)}"
    assert hint == f"hint: stages: {', '.join(STAGES)}"


@pytest.mark.long
def test_a_file_of_users_that_changed_since_is_named_and_its_digest_is_not(console: Console, story: Story, tmp_path: Path) -> None:
    users = tmp_path / "leave.txt"
    known = trained_users(console.workspace, console.run(story.run))
    users.write_text("\n".join(known[:3]))
    asked = ("--forget.users-file", users, "--release.then", "nothing")
    assert console.unlearn(*asked).code == 0
    assert set(states(console("explain", "last", "--json")).values()) == {"stored"}
    users.write_text("\n".join(known[:4]))
    for answer in (console("explain", "last", "--json"), console(*WORDS, *TINY, *asked, "--dry-run", "--json")):
        found = told(answer)
        assert found["forget"] == ("run", ["the contents of the files that `forget` names have changed"])
        assert found["unlearn"][0] == "depends"
        assert "retell" not in found
        assert file_digest(users) not in answer.stdout


def test_a_request_for_interactions_is_foreseen_with_the_stage_that_tells_histories_anew(console: Console, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user_id,item_id\nu1,i1\n")
    found = states(console(*WORDS, *TINY, "--forget.interactions-file", pairs, "--dry-run", "--json"))
    assert (found["forget"], found["retell"], found["train-original"]) == ("run", "run", "stored")


def test_a_dry_run_of_a_first_champion_takes_the_original_from_the_store(console: Console) -> None:
    before = listing(console.workspace)
    found = states(console("train", "sample", "tiny-t5", *NO_METHOD, "--dry-run", "--json"))
    assert list(found) == ["ingest", "split", "forget", "tokenise", "train-original", "score", "verdict"]
    assert (found["train-original"], found["score"]) == ("stored", "run")
    assert listing(console.workspace) == before


def test_in_a_workspace_that_is_not_there_everything_would_run_and_none_is_made(console: Console, tmp_path: Path) -> None:
    answer = console(*WORDS, *TINY, "--dry-run", "--json", workspace=tmp_path / "nowhere")
    assert set(states(answer).values()) == {"run"}
    assert list(tmp_path.iterdir()) == []
    refused = console("explain", "last", workspace=tmp_path / "nowhere")
    assert (refused.code, list(tmp_path.iterdir())) == (2, [])
    assert refused.stderr.startswith("UnknownRun: this workspace holds no run `last` among its 0")


def test_a_run_of_another_command_is_refused(console: Console) -> None:
    runs = console.workspace / "runs"
    record: dict[str, Any] = max((json.loads(each.read_text()) for each in runs.glob("*.json")), key=lambda each: each["started_at"])
    later = {"run": "a-night", "settings": {"night": {}}, "started_at": "9999-01-01T00:00:00+00:00"}
    (runs / "a-night.json").write_text(json.dumps({**record, **later}))
    answer = console("explain", "a-night")
    by_last = console("explain", "last", "--json")
    (runs / "a-night.json").unlink()
    assert json.loads(by_last.stdout)["run"] == record["run"], "`last` passes over what it cannot explain"
    assert answer.code == 2
    assert answer.stderr.startswith("BadSetting: `a-night` is no run of `unlearn` or `train`: it has settings of its own (night)")


def test_a_damaged_artifact_would_be_made_again_and_is_named(console: Console, story: Story) -> None:
    digest = digests(console.run(story.run))["split"]
    path = console.workspace / "store" / "objects" / "Examples" / digest / "examples.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    found = told(console("explain", story.run, "--json"))
    path.write_bytes(whole)
    assert found["split"] == ("run", [f"its artifact {digest[:12]} is not whole: the bytes of `examples.parquet` have changed"])
    assert found["ingest"][0] == "stored"
    assert found["train-original"] == ("depends", ["its input `tokens` may be made anew by `tokenise`"])
