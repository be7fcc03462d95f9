"""The sharded system: trained before any request, and then, for a request, only where a forgotten user was.

partition.parquet                              every user's shard and slice
shard-K/slice-J/weights.safetensors            what was trained of a shard after its slice J
facts.json                                     settings, rows and users of every slice
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy
from torch import Tensor

from e2urec_core.data.batches import Prompts
from e2urec_core.data.places import FACTS
from e2urec_core.engine import Bench
from e2urec_core.errors import BadRequest, BadSetting, StaleCache
from e2urec_core.recommender import Recommender
from e2urec_core.settings import Sharding
from e2urec_core.sharding.partition import NOWHERE, Divided, Partition, divide, users_of
from e2urec_core.sharding.training import Task, TrainedSlice, Trainee, Weights, train_tasks
from e2urec_core.training_state import Fitted

if TYPE_CHECKING:
    from e2urec_core.methods.base import Problem

PARTITION, WEIGHTS = "partition.parquet", "weights.safetensors"


class ShardsFolder:
    """The opened folder of a `Shards` artifact."""

    def __init__(self, folder: Path) -> None:
        """Read who is where; weights are read when they are asked for."""
        self.folder = folder
        self.partition = Partition.load(folder / PARTITION)
        noted = json.loads((folder / FACTS).read_bytes())
        self.sharding = Sharding.model_validate(noted["sharding"])
        self.rows: list[list[int]] = noted["rows"]

    def weights(self, shard: int, piece: int) -> dict[str, Tensor]:
        """What was trained of a shard after slice `piece`."""
        from safetensors.torch import load_file

        return load_file(_place(self.folder, shard, piece))


@dataclass(frozen=True)
class Remaining:
    """The shards after a request.

    Args:
        weights: What was trained of each shard that still has rows, by its number.
        trainee: What they were trained from.
        total: Shards before the request.
        retrained: Numbers of those that were trained again.
        fitted: What these trainings did.
    """

    weights: Mapping[int, Weights]
    trainee: Trainee
    total: int
    retrained: tuple[int, ...]
    fitted: Fitted

    def recommenders(self) -> list[Recommender]:
        """A recommender for each shard; the weights that count as trained are those of shards that were trained again."""
        made = []
        for shard, weights in self.weights.items():
            made.append(self.trainee.student(weights))
            made[-1].network.requires_grad_(shard in self.retrained)
        return made

    def facts(self) -> dict[str, Any]:
        """What a report says of it."""
        left_out = sorted(set(range(self.total)) - set(self.weights))
        return {"shards": {"total": self.total, "retrained": list(self.retrained), "left_out": left_out}}


def write_shards(
    place: Path,
    rows: Prompts,
    validation: Prompts,
    sharding: Sharding,
    fresh: Callable[[int], Recommender],
    original: Recommender | None,
    bench: Bench,
) -> tuple[Fitted, dict[str, Any]]:
    """Divide the users, train every shard, and write what came of it into `place`; returns what the trainings did, and what to note.

    Args:
        place: Folder to write into.
        rows: All training rows.
        validation: Rows for early stopping.
        sharding: How.
        fresh: Builds an untrained network from a seed.
        original: The trained original, for a partition that needs it.
        bench: Seed, device, watcher, checkpoints.

    Raises:
        BadSetting: There are more shards than users, or a shard is too small to be trained.
    """
    trainee = Trainee(fresh(bench.seed), sharding, bench.seed)
    partition = divide(rows, sharding, bench, lambda: _clustered_by(sharding, trainee, original))
    divided = Divided(partition, rows, validation)
    _refuse_too_small(divided, sharding)

    def write(made: TrainedSlice) -> None:
        from safetensors.torch import save_file

        if bench.workers.is_main:
            path = _place(place, made.shard, made.piece)
            path.parent.mkdir(parents=True)
            save_file(dict(made.weights), path)

    fitted = train_tasks([Task(shard) for shard in range(sharding.num_shards)], trainee, divided, sharding, bench, write)
    if bench.workers.is_main:
        partition.save(place / PARTITION)
    numbers = [(shard, range(sharding.num_slices)) for shard in range(sharding.num_shards)]
    return fitted, {
        "sharding": sharding.canonical(),
        "rows": [[divided.count(shard, piece) for piece in pieces] for shard, pieces in numbers],
        "users": [[len(partition.members(shard, piece)) for piece in pieces] for shard, pieces in numbers],
    }


def retrain_touched(problem: Problem, sharding: Sharding, bench: Bench, places: Literal["frozen", "rebuilt"] = "frozen") -> Remaining:
    """Train again every shard that held a forgotten user, from the last of its slices on that did not; take the others as they are.

    A user one of whose histories is told anew counts as forgotten here, with rows that stay. A shard without any row left is left out.

    Args:
        problem: Its rows, and the shards that were trained on all of them.
        sharding: How they were trained.
        bench: Seed, device, watcher, checkpoints.
        places: `frozen` leaves every remaining user in the same place; `rebuilt` clusters them anew, and a slice whose users have
            changed is trained again too.

    Raises:
        BadRequest: No shard has a row left, or the forgotten users are in none.
        StaleCache: The shards were trained on other rows, or in another way.
    """
    assert problem.shards is not None, "the shards must be trained first"
    assert problem.fresh is not None, "a way to build an untrained network is needed"
    stored = problem.shards
    _refuse_other_system(stored, problem, sharding)
    trainee = Trainee(problem.fresh(bench.seed), sharding, bench.seed)
    before = stored.partition
    if places == "rebuilt":
        after = divide(problem.retained, sharding, bench, lambda: _clustered_by(sharding, trainee, problem.original))
    else:
        after = before.among(users_of(problem.retained))
    divided = Divided(after, problem.retained, problem.validation)
    # A history that told a forgotten interaction was learned by its user's shard, whether that user's own row was forgotten or not.
    parts = [problem.forgotten, *([problem.changed.before] if problem.changed else [])]
    hit = set(numpy.unique(numpy.concatenate([users_of(part) for part in parts])).tolist())

    def changed(shard: int, piece: int) -> bool:
        were = before.members(shard, piece)
        return not hit.isdisjoint(were.tolist()) or not numpy.array_equal(were, after.members(shard, piece))

    weights: dict[int, Weights] = {}
    tasks, last = [], sharding.num_slices - 1
    for shard in range(sharding.num_shards):
        first = next((piece for piece in range(last + 1) if changed(shard, piece)), None)
        if first is None:
            weights[shard] = stored.weights(shard, last)
        elif any(divided.count(shard, piece) for piece in range(last + 1)):
            tasks.append(Task(shard, first, stored.weights(shard, first - 1) if first else None))
    if not tasks and not weights:
        raise BadRequest(f"0 of {sharding.num_shards} shards have a row left", hint="forget fewer users, or train without shards")

    def keep(made: TrainedSlice) -> None:
        weights[made.shard] = made.weights

    fitted = train_tasks(tasks, trainee, divided, sharding, bench, keep)
    retrained = tuple(task.shard for task in tasks)
    return Remaining(dict(sorted(weights.items())), trainee, sharding.num_shards, retrained, fitted)


def _clustered_by(sharding: Sharding, trainee: Trainee, original: Recommender | None) -> Recommender:
    if sharding.by == "base":
        return trainee.start
    assert original is not None, "the original must be trained first"
    return original


def _place(folder: Path, shard: int, piece: int) -> Path:
    return folder / f"shard-{shard}" / f"slice-{piece}" / WEIGHTS


def _refuse_too_small(divided: Divided, sharding: Sharding) -> None:
    least = sharding.training.batch_size
    hint = "set `--method.num-shards` (or slices) lower" + ("" if least == 1 else ", or the batches smaller")
    for shard in range(sharding.num_shards):
        for piece in range(sharding.num_slices):
            if len(divided.partition.members(shard, piece)) == 0:
                where = f"slice {piece} of shard {shard}" if sharding.num_slices > 1 else f"shard {shard}"
                number = len(divided.partition.users)
                raise BadSetting(f"{where} has 0 of the {number} users", hint="set `--method.num-shards` (or slices) lower")
        if (rows := divided.count(shard, 0)) < least:
            where = f"the first slice of shard {shard}" if sharding.num_slices > 1 else f"shard {shard}"
            raise BadSetting(f"{where} has {rows} training rows, fewer than one batch of {least}", hint=hint)


def _refuse_other_system(stored: ShardsFolder, problem: Problem, sharding: Sharding) -> None:
    users = numpy.unique(users_of(problem.forgotten))
    missing = int((stored.partition.places(users)[0] == NOWHERE).sum())
    hint = "train the shards again: `e2urec stage train-shards --run RUN`"
    if missing:
        raise BadRequest(f"{missing:,} of {len(users):,} forgotten users are in no shard, which were trained without them", hint=hint)
    if stored.sharding != sharding:
        raise StaleCache("the shards were trained under other settings than the method's", hint=hint)
    trained, now = sum(map(sum, stored.rows)), len(problem.retained) + len(problem.forgotten)
    if trained != now:
        raise StaleCache(f"the shards were trained on {trained:,} rows, and there are {now:,} here", hint=hint)
    parts = [Divided(stored.partition, rows, problem.validation) for rows in (problem.retained, problem.forgotten)]
    for shard, counts in enumerate(stored.rows):
        for piece, trained in enumerate(counts):
            if (now := sum(part.count(shard, piece) for part in parts)) != trained:
                raise StaleCache(f"shard {shard} was trained on {trained} rows of slice {piece}, and has {now} here", hint=hint)
