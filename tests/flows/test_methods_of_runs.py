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
ALONE = [pytest.param("do_nothing", marks=pytest.mark.long), "undial", pytest.param("task_negation", marks=pytest.mark.long)]
TEACHING = {"train-augmented", "cache-original", "cache-teachers"}


def run_of(kind: str, preset: str) -> Any:
    return build_run({"dataset": "sample", "backbone": "tiny-t5", "method": word(kind)}, preset, {})


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
def test_a_method_without_teachers_runs_without_their_stages_and_the_report_names_it(console: Console, kind: str) -> None:
    member = load(Method.package, kind)
    assert not member.needs
    flags = list(TINY)
    if "training" not in member.model_fields:
        at = flags.index("--method.training.num-epochs")
        del flags[at : at + 2]
    answer = console(*WORDS[:3], word(kind), *flags)
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
