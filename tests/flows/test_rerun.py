"""`e2urec stage`: one stage of an earlier run again, and which later ones are stale by then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2urec_console import STAGES, Console, Story, copied, digests, rerun, states, trained_users

from flows.runs import STAGES as EVERY_STAGE

pytestmark = pytest.mark.slow
JUDGED = ("verdict", "bundle")


@pytest.fixture(scope="module")
def console(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """One of this file's own, as its tests change the told run."""
    console = Console(copied(story.workspace, tmp_path_factory.mktemp("copy") / "workspace"))
    yield console
    console.close()


def report_of(console: Console, run: str) -> dict[str, Any]:
    return dict(json.loads((console.workspace / "reports" / run / "report.json").read_text()))


def test_a_rerun_stage_names_the_stages_that_are_now_stale(story: Story, console: Console) -> None:
    before = console.run(story.run)
    answer = console("stage", "unlearn", "--run", story.run, "--method.suppression", "3", "--json")
    assert answer.code == 0
    told = answer.json()
    assert (told["run"], told["stage"], told["stale"]) == (story.run, "unlearn", ["evaluate", "report", *JUDGED])
    after = console.run(story.run)
    assert told["stages"] == after["stages"]
    assert states(after) == {**dict.fromkeys(STAGES, "completed"), **dict.fromkeys(["evaluate", "report", *JUDGED], "stale")}
    assert after["state"] == "stale"
    assert after["settings"]["method"]["suppression"] == 3.0
    changed = {stage for stage in STAGES if digests(after)[stage] != digests(before)[stage]}
    assert changed == {"unlearn"}


def test_rerunning_the_stale_stages_in_order_clears_them(story: Story, console: Console) -> None:
    answer = console("stage", "evaluate", "--run", story.run)
    assert answer.stdout.splitlines() == ["now stale: report, verdict, bundle", f"hint: e2urec stage report --run {story.run}"]
    assert states(console.run(story.run))["evaluate"] == "completed"
    for stage, stale in (("report", "now stale: verdict, bundle"), ("verdict", "now stale: bundle"), ("bundle", "no other stage is stale")):
        answer = console("stage", stage, "--run", story.run)
        assert answer.stdout.splitlines()[0] == stale
    assert "version 1 of e2urec" in answer.stderr
    run = console.run(story.run)
    assert (run["state"], set(states(run).values())) == ("completed", {"completed"})
    report = report_of(console, story.run)
    assert report["settings"]["method"]["suppression"] == 3.0
    assert report["digests"]["e2urec"] == digests(run)["unlearn"]


@pytest.mark.long
def test_a_fresh_run_with_the_same_settings_finds_the_reruns_in_the_store(story: Story, console: Console) -> None:
    assert console.unlearn("--method.suppression", "3").code == 0
    fresh = console.last()
    assert rerun(fresh) == set()
    assert digests(fresh) == digests(console.run(story.run))
    assert report_of(console, fresh["run"])["rows"] == report_of(console, story.run)["rows"]


def test_a_stage_is_run_again_even_when_nothing_has_changed(story: Story, console: Console) -> None:
    before = digests(console.run(story.run))
    answer = console("stage", "train-original", "--run", story.run)
    assert answer.stdout == "no other stage is stale\n"
    assert answer.stages_told() == ["train-original"]
    assert "cached" not in answer.stderr
    assert digests(console.run(story.run)) == before


def test_a_stage_whose_inputs_are_as_they_were_is_no_longer_stale(console: Console) -> None:
    assert console.unlearn("--method.suppression", "7").code == 0
    run = console.last()["run"]
    assert console("stage", "unlearn", "--run", run, "--method.suppression", "8", "--json").json()["stale"] == [
        "evaluate",
        "report",
        *JUDGED,
    ]
    assert console("stage", "unlearn", "--run", run, "--method.suppression", "7", "--json").json()["stale"] == []
    assert "stale" not in states(console.run(run)).values()


def test_a_changed_setting_of_an_earlier_stage_is_named_not_ignored(console: Console) -> None:
    assert console.unlearn().code == 0
    run = console.last()["run"]
    answer = console("stage", "evaluate", "--run", run, "--forget.share", "0.5", "--json")
    assert answer.code == 0
    assert "forget" in answer.json()["stale"]
    assert console.run(run)["state"] == "stale"


@pytest.mark.long
def test_a_failed_run_goes_on_from_its_failed_stage(console: Console, tmp_path: Path) -> None:
    users = tmp_path / "leave.txt"
    users.write_text("nobody\n")
    assert console.unlearn("--forget.users-file", users).code == 2
    run = console.last()
    assert (run["state"], states(run)["forget"]) == ("failed", "failed")
    assert run["stages"]["forget"]["fault"] == "BadRequest: 1 of 1 named users have no training row"

    answer = console("stage", "unlearn", "--run", run["run"])
    assert answer.code == 2
    assert answer.stderr.splitlines()[-2:] == [
        f"UnknownRun: run `{run['run']}` never finished its stage `forget`, which this one needs",
        f"hint: run `e2urec stage forget --run {run['run']}` first",
    ]

    known = tmp_path / "known.txt"
    known.write_text("\n".join(trained_users(console.workspace, run)[:3]))
    assert console("stage", "forget", "--run", run["run"], "--forget.users-file", known).code == 0
    assert states(console.run(run["run"]))["forget"] == "completed"
    for stage in STAGES[3:]:
        assert console("stage", stage, "--run", run["run"]).code == 0
    mended = console.run(run["run"])
    assert set(states(mended).values()) <= {"completed", "cached"}
    assert mended["state"] == "completed"
    assert report_of(console, run["run"])["counts"]["forgotten_users"] == 3


def test_a_run_whose_later_stages_were_never_reached_is_not_called_completed(console: Console, tmp_path: Path) -> None:
    users = tmp_path / "leave.txt"
    users.write_text("nobody\n")
    assert console.unlearn("--forget.users-file", users).code == 2
    run = console.last()
    users.write_text("\n".join(trained_users(console.workspace, run)[:3]))
    assert console("stage", "forget", "--run", run["run"]).code == 0
    assert "report" not in states(console.run(run["run"]))
    assert console.run(run["run"])["state"] != "completed"


def test_an_unknown_stage_is_refused_with_the_list(story: Story, console: Console) -> None:
    before = console.run(story.run)
    answer = console("stage", "unlern", "--run", story.run)
    assert (answer.code, answer.stdout) == (2, "")
    fact, hint = answer.stderr.splitlines()
    assert fact == f"BadSetting: there is no stage `unlern` among the {len(EVERY_STAGE)}"
    assert hint == f"hint: stages: {', '.join(EVERY_STAGE)}"
    assert console.run(story.run) == before


def test_a_setting_out_of_bounds_is_refused_and_leaves_the_run_as_it_was(story: Story, console: Console) -> None:
    before = console.run(story.run)
    answer = console("stage", "unlearn", "--run", story.run, "--method.suppression", "-1")
    assert answer.code == 2
    assert answer.stderr.startswith("BadSetting: `--method.suppression -1` is refused: ")
    assert console.run(story.run) == before
