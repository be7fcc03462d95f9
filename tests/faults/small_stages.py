"""Every stage that trains or scores with inputs so small that it takes a part of a second, and what it gives when nothing disturbs it.

The folder holds one folder for each stage, named after its function in `e2urec_core/stages.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from e2urec_core.backbones.tiny_t5 import TinyT5
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.methods.sisa import Sisa
from e2urec_core.settings import Augment, CacheRule, Lora, Seat, Settings, Training

STAGES = (
    "train_original",
    "train_augmented",
    "train_shards",
    "train_retrained",
    "cache_original",
    "cache_teachers",
    "unlearn",
    "evaluate",
)
# Dropout draws at every step, so that a random state which is not brought back shows.
BACKBONE = TinyT5(width=16, num_layers=1, num_heads=2, inner_width=32, vocabulary=400, dropout=0.1)
TRAINING = Training(num_epochs=2, batch_size=32, learning_rate=5e-3, patience=2)
AUGMENT = Augment(num_epochs=2, batch_size=16)
METHOD = E2URec(training=Training(num_epochs=2, batch_size=6, learning_rate=5e-3), lora=Lora(rank=4))
SHARDED = Sisa(num_shards=2, num_slices=2)
RULE = CacheRule(top=8, rows_per_group=16, retained_per_forgotten=2.0)
SEAT = Seat(seed=0)


def silent(*told: Any) -> None:
    """A watcher that says nothing."""


def arguments(inputs: Path, stage: str, **changes: Any) -> dict[str, Any]:
    """What the stage's function is called with, folders and rules; `changes` replace or add some."""
    before = {name: inputs / name for name in ("tokens", "request")}
    first: dict[str, Any] = {"tokens": before["tokens"], "backbone": BACKBONE, "training": TRAINING}
    original, augmented = {"original": inputs / "train_original"}, {"augmented": inputs / "train_augmented"}
    given: dict[str, dict[str, Any]] = {
        "train_original": first,
        "train_augmented": {**original, **before, "augment": AUGMENT},
        "train_shards": {
            "original": None,
            "tokens": before["tokens"],
            "backbone": BACKBONE,
            "sharding": SHARDED.sharding(TRAINING),
        },
        "train_retrained": {**first, "request": before["request"]},
        "cache_original": {**original, **before, "rule": RULE, "earlier": []},
        "cache_teachers": {**original, **augmented, **before, "rule": RULE},
        "unlearn": {
            "method": METHOD,
            **original,
            **augmented,
            **before,
            "remembering": inputs / "cache_original",
            "teachers": inputs / "cache_teachers",
            "shards": inputs / "train_shards",
            "rule": RULE,
            "backbone": BACKBONE,
            "training": TRAINING,
        },
        "evaluate": {
            **before,
            "models": [("original", original["original"]), ("retrain", inputs / "train_retrained"), ("e2urec", inputs / "unlearn")],
            "subject": "e2urec",
        },
    }
    return {**given[stage], **changes}


def make_inputs(root: Path) -> None:
    """Run every stage once, in this process and without checkpoints."""
    from e2urec_core import stages
    from e2urec_core.data.examples import HistoryRule
    from e2urec_core.data.forget import ForgetRule
    from e2urec_core.data.ingest import IngestRule
    from e2urec_core.data.prompts import PromptRule
    from e2urec_core.data.split import SplitRule
    from e2urec_core.datasets.sample import Sample

    names = ("interactions", "examples", "request", "tokens")
    interactions, examples, request, tokens = (root / name for name in names)
    for name in names:
        (root / name).mkdir(parents=True)
    stages.ingest(Sample(num_users=60, ratings_per_user=12), IngestRule(), None, interactions)
    stages.split(interactions, HistoryRule(), SplitRule(holdout_share=0.2), SEAT.seed, examples)
    stages.forget(interactions, examples, ForgetRule(share=0.2), SEAT.seed, request)
    stages.tokenise(examples, interactions, PromptRule(), BACKBONE, tokens)
    for stage in STAGES:
        perform_inline(stage, arguments(root, stage), root / stage)


def perform_inline(stage: str, given: dict[str, Any], place: Path, seat: Seat = SEAT) -> int:
    """Run one stage in this process, without checkpoints; `place` is made."""
    from e2urec_core import stages
    from e2urec_core.engine import open_bench

    place.mkdir(parents=True)
    rows: int = getattr(stages, stage)(**given, bench=open_bench(seat), place=place)
    return rows


def performed(
    inputs: Path, stage: str, place: Path, kept: Path, seat: Seat = SEAT, watch: Callable[..., None] = silent, **changes: Any
) -> int:
    """Run one stage in processes of its own; `place` is made, and what an unfinished stage keeps lies in `kept`."""
    from tasks._isolation import perform_apart

    place.mkdir(parents=True)
    return perform_apart(stage, arguments(inputs, stage, **changes), seat, place, kept, watch)


def left_beside(place: Path) -> set[str]:
    """What lies beside the folder that a stage wrote into."""
    return {path.name for path in place.parent.iterdir()} - {place.name}


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Processes below `process` that run a stage, by rank; the launcher of several is none of them."""
    found = {}
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "e2urec_core.run" in child.cmdline() and "--nproc-per-node" not in child.cmdline():
                found[child.environ().get("RANK", "0")] = child
    return [found[rank] for rank in sorted(found)]


def digests_in(place: Path) -> dict[str, str]:
    """SHA-256 of every file below `place`, by its path there."""
    from e2urec_core.artifacts import file_digest

    return {str(path.relative_to(place)): file_digest(path) for path in sorted(place.rglob("*")) if path.is_file()}


def changed(rule: Settings, **values: Any) -> Any:
    """The rule with other values."""
    return type(rule).model_validate({**rule.canonical(), **values})
