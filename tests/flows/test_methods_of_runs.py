"""Every method through the command: only the stages that it needs, and a report that names it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from e2urec_console import TINY, WORDS, Console, states

from e2urec_core.methods.base import Method
from e2urec_core.plugins import kinds, load, word
from flows.presets import PRESETS
from flows.runs import build_run

KINDS = kinds(Method.package)
# One that trains nothing, one that trains on both kinds of rows and asks the original, one that changes the weights after training.
ALONE = ("do_nothing", "undial", "task_negation")
TEACHING = {"train-augmented", "cache-original", "cache-teachers"}


def run_of(kind: str, preset: str) -> Any:
    return build_run({"dataset": "sample", "backbone": "tiny-t5", "method": word(kind)}, preset, {})


def flags_of(kind: str) -> list[str]:
    """Those of the tiny story that the method has a setting for."""
    flags = list(TINY)
    if "training" not in load(Method.package, kind).model_fields:
        at = flags.index("--method.training.num-epochs")
        del flags[at : at + 2]
    return flags


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_preset_admits_every_method(kind: str, preset: str) -> None:
    assert run_of(kind, preset).method.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_demo_has_a_schedule_of_its_own_for_every_method_that_trains(kind: str) -> None:
    method, usual = run_of(kind, "demo").method, load(Method.package, kind)()
    if "training" in type(method).model_fields:
        assert method.training.learning_rate > usual.training.learning_rate
        assert method.training.num_epochs <= 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALONE)
def test_of_a_method_without_teachers_no_stage_of_theirs_would_run(console: Console, kind: str) -> None:
    assert not load(Method.package, kind).needs
    answer = console(*WORDS[:3], word(kind), *flags_of(kind), "--dry-run", "--json")
    assert answer.code == 0, answer.stderr
    told = {each["stage"]: each["state"] for each in answer.json()["stages"]}
    assert not TEACHING & set(told)
    assert (told["train-original"], told["unlearn"]) == ("stored", "run")


@pytest.mark.long
@pytest.mark.parametrize("kind", ALONE)
def test_a_method_without_teachers_runs_without_their_stages_and_the_report_names_it(console: Console, kind: str) -> None:
    """That a report names the methods that were run: `test_compare_story.py`."""
    member = load(Method.package, kind)
    answer = console(*WORDS[:3], word(kind), *flags_of(kind))
    assert answer.code == 0, answer.stderr
    assert answer.stdout.split()[:4] == ["Method", "Original", "Retrain", member.title.split()[0]]
    run = console.last()
    assert not TEACHING & set(states(run))
    assert states(run)["train-original"] == "cached"
    report = json.loads((console.workspace / "reports" / run["run"] / "report.json").read_text())
    row = report["rows"][2]
    assert (row["method"], row["title"]) == (kind, member.title)
    assert (row["trainable_parameters"] == 0) == member.trains_nothing
    if member.trains_nothing:
        assert row["residual"] == 1
        assert row["auc"] == report["rows"][0]["auc"]
