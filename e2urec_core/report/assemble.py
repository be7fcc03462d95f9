"""Puts a report together from what the stages noted about themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from e2urec_core.report.measures import MethodRow
from e2urec_core.report.schema import ReportDocument, StageTime
from e2urec_core.stages import facts

PACKAGES = ("e2urec", "torch", "transformers", "tokenizers", "accelerate", "peft", "polars", "pyarrow", "numpy", "scikit-learn")
# The stages whose seconds a method's own time, and everything it needed, are made of.
OWN = {"original": ("train-original",), "retrain": ("train-retrained",)}
UNLEARNING = ("unlearn",)
ALL_IN = ("train-augmented", "cache-original", "cache-teachers", "unlearn")


def assemble(
    run: str,
    method: str,
    title: str,
    folders: Mapping[str, Path | None],
    seconds: Mapping[str, float],
    settings: Mapping[str, Any],
    digests: Mapping[str, str],
) -> ReportDocument:
    """The report of one run.

    Args:
        run: Name of the run.
        method: The method's kind.
        title: The method's name for people.
        folders: Opened artifacts: `scores`, `request`, and the models `original`, `retrain`, `augmented` (or None) and the method's kind.
        seconds: What each stage took when it was run, by stage, in the order of the run.
        settings: All settings as resolved.
        digests: Digest of each artifact, by name.
    """
    noted = {name: facts(folder) for name, folder in folders.items() if folder is not None}
    measured = noted["scores"]
    counts: Mapping[str, int] = noted["request"]["counts"]
    rows = [
        MethodRow.model_validate(
            {
                "method": name,
                "title": {"original": "Original", "retrain": "Retrain"}.get(name, title),
                **measured["rows"][name],
                "seconds": _sum(seconds, OWN.get(name, UNLEARNING)),
                "all_in_seconds": _sum(seconds, OWN.get(name, ALL_IN)),
                **{count: noted[name][count] for count in ("trainable_parameters", "total_parameters")},
            }
        )
        for name in ("original", "retrain", method)
    ]
    return ReportDocument.model_validate(
        {
            "run": run,
            "subject": method,
            "rows": [row.canonical() for row in rows],
            "seed_floor": measured["seed_floor"],
            "forgotten_test": measured["forgotten_test"],
            "counts": {**counts, "train": counts["retained"] + counts["forgotten"]},
            "curves": {name: noted[name]["curve"] for name in ("original", "augmented", method, "retrain") if name in noted},
            "probabilities": measured["probabilities"],
            "stages": [StageTime(stage=stage, seconds=taken).canonical() for stage, taken in seconds.items()],
            "settings": dict(settings),
            "versions": {package: version(package) for package in PACKAGES},
            "digests": dict(digests),
            "notes": _notes(measured, counts) + _memory_notes(noted) + _shard_notes(noted[method], seconds),
        }
    )


def _memory_notes(noted: Mapping[str, Any]) -> list[str]:
    return [
        f"The device's memory ran out while the {name} model was trained, first at step {facts['halved_at'][0]}; its steps were run in "
        f"smaller pieces, of {facts['token_budget']:,} tokens at the end."
        for name, facts in noted.items()
        if facts.get("halved_at")
    ]


def _shard_notes(told: Mapping[str, Any], seconds: Mapping[str, float]) -> list[str]:
    """What a sharded system cost before the request, which the method's seconds leave out, and what the request did to its shards."""
    shards = told.get("shards")
    if shards is None:
        return []
    total, retrained, left_out = shards["total"], len(shards["retrained"]), len(shards["left_out"])
    notes = [
        f"The {total} shards were trained before any request, in {_sum(seconds, ('train-shards',)):,.1f} s (train-shards), which neither "
        f"of the method's times includes; for this request {retrained} of them were trained again."
    ]
    if left_out:
        notes.append(f"{left_out} of the {total} shards lost all of their users and were left out of the ensemble.")
    return notes


def _sum(seconds: Mapping[str, float], stages: Sequence[str]) -> float:
    return sum(seconds.get(stage, 0.0) for stage in stages)


def _notes(measured: Mapping[str, Any], counts: Mapping[str, int]) -> list[str]:
    notes = []
    if not counts.get("holdout"):
        notes.append("No users were held out of training, so the loss attack has nobody to compare with; set `--split.holdout-share`.")
    if measured["seed_floor"] is None:
        notes.append("No further Retrains were trained, so differences cannot be told from noise; set `--evaluate.floor-seeds 2`.")
    return notes
