"""Trains shards, slice after slice; what is finished is kept beside the checkpoints, so that a killed stage trains nothing twice.

For the same reason several processes can train the shards of one stage: each trains its share and keeps it there, and the one that runs
the stage to its end finds every slice finished.

A slice's training depends on the seed, the number of its shard and slice, the rows of its own users and of those in the slices before,
and on nothing else: that is what makes the deletion of a user exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.engine import Bench, ShareTrained
from e2urec_core.recommender import Recommender
from e2urec_core.seeding import derived_seed
from e2urec_core.settings import Sharding, Training
from e2urec_core.sharding.partition import Divided
from e2urec_core.training import fit_answers
from e2urec_core.training_state import CurvePoint, Fitted

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Task:
    """One shard to be trained.

    Args:
        shard: Its number.
        first: Slice that is trained first, from 0.
        before: Weights after the slice before; None starts from the untrained network.
    """

    shard: int
    first: int = 0
    before: Weights | None = None


@dataclass(frozen=True)
class TrainedSlice:
    """What the training of one slice gave.

    Args:
        shard: Number of the shard.
        piece: Number of the slice.
        weights: The trained weights by name, on the CPU.
        fitted: What the loop did.
    """

    shard: int
    piece: int
    weights: Weights
    fitted: Fitted


class Trainee:
    """What every shard starts from."""

    def __init__(self, start: Recommender, sharding: Sharding, seed: int) -> None:
        """Train copies of `start`, or adapters on it that are drawn from the seed."""
        self.start, self._sharding, self._seed = start, sharding, seed

    def student(self, weights: Weights | None = None) -> Recommender:
        """A copy whose weights may be trained; with `weights`, as far as these were."""
        lora = self._sharding.lora
        student = self.start.with_adapter(lora, self._seed) if lora else self.start.trainable()
        if weights is not None:
            put(student, weights)
        return student


def put(student: Recommender, weights: Weights) -> None:
    """Give `student` the trained weights that `taken` took from its like."""
    with torch.no_grad():
        for name, weight in student.network.named_parameters():
            if weight.requires_grad:
                weight.copy_(weights[name])


def taken(student: Recommender) -> dict[str, Tensor]:
    """The weights that are trained, by name, copied to the CPU."""
    return {name: weight.detach().cpu().clone() for name, weight in student.network.named_parameters() if weight.requires_grad}


def train_tasks(
    tasks: Sequence[Task], trainee: Trainee, divided: Divided, sharding: Sharding, bench: Bench, each: Callable[[TrainedSlice], None]
) -> Fitted:
    """Train every task's slices to the last; `each` is given every slice when it is done. Returns what all trainings did together.

    Raises:
        ShareTrained: The bench's share is trained and kept; `each` was given nothing.
    """
    slices = [(task, piece) for task in tasks for piece in range(task.first, sharding.num_slices)]
    steps = [_steps(divided, task.shard, piece, sharding) for task, piece in slices]
    mine = [task.shard for task in (bench.share.of(tasks) if bench.share else tasks)]
    fitted, student, done = [], trainee.start, 0
    for (task, piece), planned in zip(slices, steps, strict=True):
        if task.shard in mine:
            if piece == task.first:
                student = trainee.student(task.before)
            told = _fit_slice(student, task.shard, piece, divided, sharding, _bench_of(bench, task.shard, piece, done, sum(steps)))
            if bench.share is None:
                each(TrainedSlice(task.shard, piece, taken(student), told))
            fitted.append(told)
        done += planned
    if bench.share is not None:
        raise ShareTrained
    return joined(fitted, bench)


def slice_seed(seed: int, shard: int, piece: int) -> int:
    """Seed of the training of one slice: its order of rows and its dropout."""
    return derived_seed(seed, f"shard-{shard}-slice-{piece}")


def slice_training(sharding: Sharding, num_validation: int) -> Training:
    """Schedule of one slice; without rows to judge by, it goes to the end."""
    patience = sharding.training.patience if num_validation else 0
    return sharding.training.model_copy(update={"num_epochs": sharding.passes(), "patience": patience})


def _fit_slice(student: Recommender, shard: int, piece: int, divided: Divided, sharding: Sharding, bench: Bench) -> Fitted:
    """Train a slice in place, or take what was finished before a kill."""
    kept = bench.checkpoints
    finished = Checkpoints(kept.folder.with_name(f"{kept.folder.name}-finished"), every_s=kept.every_s) if kept else None
    if finished is not None and (saved := finished.newest()) is not None:
        put(student, saved.tensors)
        student.network.eval()
        return _fitted(saved.facts)
    if divided.count(shard, piece) == 0:
        # Nobody is left in this slice: it adds nothing to those before.
        return joined([], bench)
    rows, validation = divided.upto(shard, piece)
    training = slice_training(sharding, len(validation))
    fitted = fit_answers(student, rows, validation, training, bench, purpose=f"shard {shard}")
    if kept is not None and finished is not None and bench.workers.is_main:
        finished.save(1, taken(student), _facts(fitted))
        kept.clear()
    bench.workers.wait()
    return fitted


def _steps(divided: Divided, shard: int, piece: int, sharding: Sharding) -> int:
    rows = sum(divided.count(shard, number) for number in range(piece + 1)) if divided.count(shard, piece) else 0
    return -(-rows // sharding.training.batch_size) * sharding.passes()


def _bench_of(bench: Bench, shard: int, piece: int, before: int, planned: int) -> Bench:
    """The bench of one slice: a seed and checkpoints of its own, and a watcher who is told of all slices together."""
    kept = bench.checkpoints
    if kept is not None:
        kept = Checkpoints(kept.folder / f"shard-{shard}-slice-{piece}", every_s=kept.every_s, every_steps=kept.every_steps)

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        bench.watch(before + done, planned, unit, numbers)

    return dataclasses.replace(bench, seed=slice_seed(bench.seed, shard, piece), watch=watch, checkpoints=kept)


def joined(fitted: Sequence[Fitted], bench: Bench) -> Fitted:
    """What several trainings did, one after another, as if they were one; validation losses of different rows are left out."""
    steps = [point for each in fitted for point in each.curve]
    curve = tuple(CurvePoint(at, point.loss, point.parts) for at, point in enumerate(steps, 1))
    ends = [sum(len(each.curve) for each in fitted[:at]) for at in range(len(fitted))]
    halved = tuple(end + at for end, each in zip(ends, fitted, strict=True) for at in each.halved_at)
    budget = min((each.token_budget for each in fitted), default=bench.token_budget)
    return Fitted(curve, (), 0, budget, halved, sum(each.seconds for each in fitted))


def _facts(fitted: Fitted) -> dict[str, Any]:
    curve = [[point.loss, dict(point.parts)] for point in fitted.curve]
    return {"curve": curve, "token_budget": fitted.token_budget, "halved_at": list(fitted.halved_at), "seconds": fitted.seconds}


def _fitted(facts: Mapping[str, Any]) -> Fitted:
    curve = tuple(CurvePoint(at, loss, parts) for at, (loss, parts) in enumerate(facts["curve"], 1))
    return Fitted(curve, (), 0, facts["token_budget"], tuple(facts["halved_at"]), facts["seconds"])
