"""Sharded methods and the poles through the command: shards are trained once for all requests, and the report tells what they cost."""

from __future__ import annotations

import json
import re
from typing import Any

import mlflow
import pandas
import pytest
from e2urec_console import TINY, WORDS, Answer, Console, digests, rerun, states

from e2urec_core.ensemble import Ensemble
from e2urec_core.recommender import load

pytestmark = pytest.mark.slow

AT = TINY.index("--method.training.num-epochs")
FLAGS = (*TINY[:AT], *TINY[AT + 2 :])


def told(console: Console, method: str, *flags: str) -> tuple[Answer, dict[str, Any], dict[str, Any]]:
    """A run of the tiny story, its record and its report."""
    answer = console(*WORDS[:3], method, *FLAGS, *flags)
    assert answer.code == 0, answer.stderr
    run = console.last()
    return answer, run, json.loads((console.workspace / "reports" / run["run"] / "report.json").read_text())


@pytest.mark.long
def test_shards_are_trained_before_the_request_and_once_for_all_requests(console: Console) -> None:
    knobs = ("--method.num-shards", "2")
    answer, first, report = told(console, "sisa", *knobs)
    assert list(states(first)).index("train-shards") == list(states(first)).index("train-original") + 1
    took = {stage["stage"]: stage["seconds"] for stage in report["stages"]}
    row = report["rows"][2]
    assert (row["method"], row["title"]) == ("sisa", "SISA")
    assert row["seconds"] == row["all_in_seconds"] == pytest.approx(took["unlearn"])
    (note,) = [note for note in report["notes"] if "train-shards" in note]
    assert f"The 2 shards were trained before any request, in {took['train-shards']:,.1f} s" in note
    version = re.search(r"models:/e2urec/(\d+) in MLflow", answer.stdout)
    assert version is not None
    asked = pandas.DataFrame([{"history": ["Crimson Orbit"], "candidates": ["Iron Parade", "Last Comet"]}])
    mlflow.set_tracking_uri(f"sqlite:///{console.workspace / 'mlflow.db'}")
    assert len(mlflow.pyfunc.load_model(f"models:/e2urec/{version[1]}").predict(asked)) == 2

    folder = console.workspace / "store" / "objects" / "Unlearned" / digests(first)["unlearn"]
    assert isinstance(load(folder), Ensemble)
    # Another request, and a knob that does not shape shards, leave them as they are.
    for more in (("--forget.share", "0.2", "--forget.cohort", "steady"), ("--method.combine", "probabilities")):
        _, again, _ = told(console, "sisa", *knobs, *more)
        assert "unlearn" in rerun(again)
        assert "train-shards" not in rerun(again)
        assert digests(again)["train-shards"] == digests(first)["train-shards"]
    _, other, _ = told(console, "sisa", *knobs, "--method.num-slices", "2", "--training.batch-size", "8")
    assert "train-shards" in rerun(other)


def test_bad_shards_are_refused_in_one_sentence(console: Console) -> None:
    answer = console(*WORDS[:3], "sisa", *FLAGS, "--method.num-shards", "200")
    assert answer.code == 2
    assert "BadSetting: 200 shards are asked of" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.long
def test_the_poles_as_methods_have_rows_of_their_own(console: Console) -> None:
    """That they are methods: `tests/conformance`; that every preset admits them: `test_methods_of_runs.py`."""
    _, run, report = told(console, "original")
    assert [row["method"] for row in report["rows"]] == ["original", "retrain", "original_method"]
    assert report["rows"][2]["residual"] == 1
    assert "train-shards" not in states(run)
    _, _, report = told(console, "retrain")
    assert [row["title"] for row in report["rows"]] == ["Original", "Retrain", "Retrain as a method"]
    assert report["rows"][2]["trainable_parameters"] == report["rows"][1]["trainable_parameters"]
