"""The inputs that benchmarks share, made by the stages of `e2urec_core`: rows, the original, the augmented model, Retrains.

Every folder is made when it is asked for, once; its name carries a digest of all that decides its content. With `--workspace` the
folders stay, so that several benchmarks train only once.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from benchmarks.measuring import clock, progress
from benchmarks.rows import Rows, rows_of_part
from e2urec_core import stages
from e2urec_core.artifacts import canonical_json
from e2urec_core.data.batches import Prompts
from e2urec_core.data.tokens import prompts_of_part
from e2urec_core.engine import Bench, Watcher, open_bench, silent
from e2urec_core.recommender import Recommender, load
from e2urec_core.scoring import yes_probabilities
from e2urec_core.settings import Augment, Seat
from flows.runs import Run, build_run

PRESETS = {"sample": "demo", "ml-1m": "smoke"}
"""Whose settings each dataset takes."""
NOTE = "made.json"


class Inputs:
    """What one run with one seed needs before it unlearns."""

    def __init__(self, run: Run, root: Path) -> None:
        """Inputs of `run`, in folders below `root`."""
        self.run, self._root = run, root
        self.seconds: dict[str, float] = {}

    @property
    def seat(self) -> Seat:
        """Where the run's stages work."""
        return self.run.seat()

    def bench(self, watch: Watcher = silent) -> Bench:
        """The bench of the run."""
        return open_bench(self.seat, watch)

    @cached_property
    def interactions(self) -> Path:
        """Folder of the dataset's tables."""
        run = self.run
        return self._made("ingest", [run.dataset.canonical()], lambda place: stages.ingest(run.dataset, run.ingest, None, place))

    @cached_property
    def examples(self) -> Path:
        """Folder of the prompts as text, cut by time."""
        run, rows = self.run, self.interactions
        told = [rows.name, run.history.canonical(), run.split.canonical(), run.seed]
        return self._made("split", told, lambda place: stages.split(rows, run.history, run.split, run.seed, place))

    @cached_property
    def request(self) -> Path:
        """Folder of the marks: who is forgotten."""
        run, rows, examples = self.run, self.interactions, self.examples
        told = [examples.name, run.forget.canonical(), run.seed]
        return self._made("forget", told, lambda place: stages.forget(rows, examples, run.forget, run.seed, place))

    @cached_property
    def tokens(self) -> Path:
        """Folder of the prompts as token ids."""
        run, rows, examples = self.run, self.interactions, self.examples
        told = [examples.name, run.prompt.canonical(), run.backbone.canonical()]
        return self._made("tokenise", told, lambda place: stages.tokenise(examples, rows, run.prompt, run.backbone, place))

    @cached_property
    def original(self) -> Path:
        """Folder of the recommender trained on all training rows."""
        run, tokens, bench = self.run, self.tokens, self.bench()
        told = [tokens.name, run.training.canonical(), self.seat.keyed()]
        return self._made("train_original", told, lambda place: stages.train_original(tokens, run.backbone, run.training, bench, place))

    def augmented(self, augment: Augment) -> Path:
        """Folder of the original trained further on the forgotten rows."""
        original, tokens, request, bench = self.original, self.tokens, self.request, self.bench()
        told = [original.name, request.name, augment.canonical()]
        return self._made("train_augmented", told, lambda place: stages.train_augmented(original, tokens, request, augment, bench, place))

    def retrained(self, further: int = 0) -> Path:
        """Folder of the Retrain: the one that is paired with the original, or one whose seed is `further` ones beyond."""
        run, tokens, request = self.run, self.tokens, self.request
        seat = self.seat.model_copy(update={"seed": run.seed + further})
        told, bench = [tokens.name, request.name, run.training.canonical(), seat.keyed()], open_bench(seat)
        return self._made(
            "train_retrained", told, lambda place: stages.train_retrained(tokens, request, run.backbone, run.training, bench, place)
        )

    def rows(self, part: str) -> Rows:
        """The rows of one part, as text."""
        return rows_of_part(self.examples, self.interactions, self.run.prompt, self.request, part)

    def prompts(self, part: str) -> Prompts:
        """The rows of one part, as token ids."""
        return prompts_of_part(self.tokens, self.request, part)

    def yes(self, model: Path | Recommender, part: str) -> numpy.ndarray:
        """p(Yes) of a recommender on the rows of one part."""
        return yes_probabilities(load(model) if isinstance(model, Path) else model, self.prompts(part), self.bench())

    def _made(self, stage: str, told: list[Any], make: Callable[[Path], object]) -> Path:
        digest = hashlib.sha256(canonical_json({"stage": stage, "told": told}).encode()).hexdigest()[:12]
        place = self._root / f"{stage}-{digest}"
        if not (place / NOTE).is_file():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            seconds = timed(lambda: make(place))
            (place / NOTE).write_text(json.dumps(seconds))
            progress(f"  {stage} of seed {self.run.seed}: {seconds:.1f} s")
        self.seconds[stage] = json.loads((place / NOTE).read_bytes())
        return place


def timed(call: Callable[[], object], device: str = "cpu") -> float:
    """Seconds of work of a call; see `clock`."""
    started = clock(device)
    call()
    return clock(device) - started


def settings_of(dataset: str, seed: int, flags: Mapping[str, str], data: Path | None = None) -> Run:
    """The settings of `dataset`: its preset's, changed by flags such as `training.num_epochs`.

    Raises:
        BadSetting: A flag that the settings do not admit.
    """
    words = {"dataset": dataset, "backbone": "tiny-t5", "method": "e2urec"}
    where = {"dataset.path": str(data)} if data else {}
    return build_run(words, PRESETS[dataset], {**where, **flags, "seed": str(seed)})


def parser_of(module: str, sentence: str) -> argparse.ArgumentParser:
    """The options that all benchmarks over shared inputs have."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=sentence)
    parser.add_argument("--quick", action="store_true", help="Fewer rows and fewer repetitions: does it work, and which way does it point.")
    parser.add_argument("--workspace", type=Path, help="Folder in which inputs stay for the next benchmark.")
    parser.add_argument("--seeds", type=int, nargs="+", help="Seeds of the runs.")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="A setting of the run, such as training.num_epochs=1."
    )
    return parser


def flags_of(told: argparse.Namespace, quick: Mapping[str, str]) -> dict[str, str]:
    """The settings that `--set` gives, over those of the quick form where that is asked for."""
    given = dict(each.split("=", 1) for each in told.set)
    return {**(quick if told.quick else {}), **given}


@contextlib.contextmanager
def workspace(folder: Path | None) -> Iterator[Path]:
    """`folder`, made where it is not there; without one, a temporary folder."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="e2urec-benchmark-") as name:
            yield Path(name)
