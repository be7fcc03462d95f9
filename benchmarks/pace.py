"""How fast the loops of original training, caching and unlearning run on one network, step by step.

Shared by `utilisation.py` and `gpu.py`. The first steps are left out of every number: they warm the device up, and compile.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from benchmarks.measuring import Stamps, clock, flops_by_step
from benchmarks.problem import timed
from benchmarks.shapes import Folders
from e2urec_core import stages
from e2urec_core.backbones.base import Backbone
from e2urec_core.engine import Watcher, open_bench, silent
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.settings import CacheRule, EngineRule, Lora, Seat, Training

WARM_UP = 2
"""Steps that are left out."""
METHODS = {"method": E2URec(), "variants": E2URec(lora=Lora(layers="decoder", targets="all_linear"))}
"""The paper's adapters; adapters on the decoder alone over cached encoder states."""


class Loop(Protocol):
    """Runs a stage."""

    def __call__(self, watch: Watcher, *, compiled: bool = True) -> None:
        """Run it once under `watch`; `compiled` False never compiles the network."""


@dataclass(frozen=True)
class Pace:
    """What one loop took.

    Args:
        steps: Steps that were timed.
        seconds: Time of these; see `clock`.
        flops: Floating-point operations of these.
        rows: Rows drawn by these, all batches being full.
    """

    steps: int
    seconds: float
    flops: float
    rows: int


@dataclass(frozen=True)
class Track:
    """One network on one set of rows.

    Args:
        rows: Training rows, half of them to be forgotten; as many as steps times batch, twice.
        backbone: The network.
        batch_size: Rows of a training step; forgotten rows of an unlearning step, with as many retained ones beside.
        seat: Device, threads, precision.
        place: Folder for what is written; may hold folders of an earlier track.
    """

    rows: Folders
    backbone: Backbone
    batch_size: int
    seat: Seat
    place: Path

    def training(self) -> Pace:
        """The loop that trains an original; its network is kept for the others."""
        schedule = Training(num_epochs=1, batch_size=self.batch_size, learning_rate=1e-5)

        def run(watch: Watcher, *, compiled: bool = True) -> None:
            bench = open_bench(self._seat(compiled=compiled), watch)
            stages.train_original(self.rows.tokens, self.backbone, schedule, bench, self._fresh("original"))

        return self._paced(run, rows_a_step=self.batch_size)

    def caching(self, form: str) -> dict[str, float]:
        """Rows a second of `cache_original` and `cache_teachers`; the original stands for the augmented model, as it takes as long."""
        original, rule, rows = self.place / "original", self._rule(form), self.rows
        retained, forgotten = self._fresh(f"retained-{form}"), self._fresh(f"forgotten-{form}")

        def cache_original(watch: Watcher) -> None:
            bench = open_bench(self._seat(compiled=True), watch)
            stages.cache_original(original, rows.tokens, rows.request, rule, (), bench, retained)

        def cache_teachers(watch: Watcher) -> None:
            bench = open_bench(self._seat(compiled=True), watch)
            stages.cache_teachers(original, original, rows.tokens, rows.request, rule, bench, forgotten)

        return {
            "cache_original": _rows_a_second(cache_original, self.seat.device),
            "cache_teachers": _rows_a_second(cache_teachers, self.seat.device),
        }

    def unlearning(self, form: str) -> Pace:
        """The loop that unlearns; needs `training` and `caching` before."""
        original, method = self.place / "original", self._method(form)
        retained, forgotten = self.place / f"retained-{form}", self.place / f"forgotten-{form}"

        def run(watch: Watcher, *, compiled: bool = True) -> None:
            bench, rows = open_bench(self._seat(compiled=compiled), watch), self.rows
            place, rule = self._fresh("unlearned"), self._rule(form)
            folders = original, rows.tokens, rows.request, original, retained, forgotten, None
            stages.unlearn(method, *folders, rule, self.backbone, method.training, bench, place)

        return self._paced(run, rows_a_step=2 * self.batch_size)

    def _paced(self, run: Loop, *, rows_a_step: int) -> Pace:
        # The first run counts and warms up; a compiled network would hide its products from the counter.
        flops = flops_by_step(lambda watch: run(watch, compiled=False))
        if self.seat.engine.compiled == "on":
            run(silent)
        stamps = Stamps(partial(clock, self.seat.device))
        run(stamps)
        steps = len(stamps.at) - WARM_UP
        assert steps > 0, f"{len(stamps.at)} steps are too few"
        return Pace(steps, stamps.between(WARM_UP - 1), flops.between(WARM_UP - 1), steps * rows_a_step)

    def _method(self, form: str) -> E2URec:
        method = METHODS[form]
        schedule = method.training.model_copy(update={"num_epochs": 1, "batch_size": self.batch_size, "learning_rate": 1e-5})
        return method.model_copy(update={"training": schedule})

    def _rule(self, form: str) -> CacheRule:
        method = self._method(form)
        return CacheRule().planned(method.retained_draws(), method.freezes_encoder(), method.retained_at_least())

    def _seat(self, *, compiled: bool) -> Seat:
        return self.seat if compiled else self.seat.model_copy(update={"engine": EngineRule(compiled="off")})

    def _fresh(self, name: str) -> Path:
        folder = self.place / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def _rows_a_second(stage: Callable[[Watcher], object], device: str) -> float:
    # From the first piece to the last; a single piece is timed with the stage around it, which reads the network.
    stamps = Stamps(partial(clock, device))
    whole = timed(lambda: stage(stamps), device)
    if len(stamps.at) < 2:
        return stamps.done[-1] / whole
    return (stamps.done[-1] - stamps.done[0]) / stamps.between(0)
