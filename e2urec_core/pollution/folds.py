"""Trains a network for each fold of the users on all other folds, and lets it answer the fold's rows.

A fold is a shard of the house (`sharding/`) seen from outside: the same draw of users, the same training with checkpoints, but a
network is trained on what is not in it. From the second round on, users whom the round before suspects train no network, so that a
crowd of polluters does not teach the networks to expect them; they are scored like everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from e2urec_core.data.batches import Prompts
from e2urec_core.errors import BadSetting
from e2urec_core.pollution.rule import FoldRule
from e2urec_core.scoring import yes_probabilities
from e2urec_core.settings import Sharding
from e2urec_core.sharding.partition import Divided, divide, users_of
from e2urec_core.sharding.training import Task, TrainedSlice, Trainee, train_tasks

if TYPE_CHECKING:
    from e2urec_core.engine import Bench
    from e2urec_core.recommender import Recommender


@dataclass(frozen=True)
class OtherFolds(Divided):
    """Rows in the folds of their users, where the rows of a fold are those of all others.

    Args:
        set_aside: Numbers of users whose rows train nothing.
    """

    set_aside: numpy.ndarray

    def upto(self, shard: int, piece: int) -> tuple[Prompts, Prompts]:
        """Training and validation rows of the network of a fold: of users who are neither in it nor set aside."""
        return self.rows.select(self._others(self.rows, shard)), self.validation.select(self._others(self.validation, shard))

    def count(self, shard: int, piece: int) -> int:
        """Training rows of the network of a fold."""
        return len(self._others(self.rows, shard))

    def own(self, fold: int) -> numpy.ndarray:
        """Positions of the training rows that the network of a fold answers."""
        return numpy.flatnonzero(self.partition.places(users_of(self.rows))[0] == fold)

    def _others(self, rows: Prompts, fold: int) -> numpy.ndarray:
        users = users_of(rows)
        return numpy.flatnonzero((self.partition.places(users)[0] != fold) & ~numpy.isin(users, self.set_aside))


def into_folds(rows: Prompts, validation: Prompts, folds: FoldRule, bench: Bench, set_aside: numpy.ndarray | None = None) -> OtherFolds:
    """Rows in the folds of their users: a user's fold depends on the user's number and the seed alone.

    Raises:
        BadSetting: A fold or all but a fold has no row.
    """
    sharding = _sharding(folds)
    num_users = len(numpy.unique(users_of(rows)))
    if folds.num_folds > num_users:
        raise BadSetting(f"{folds.num_folds} folds are asked of {num_users} users", hint=f"set `--folds.num-folds` to {num_users} or fewer")
    aside = numpy.empty(0, dtype=numpy.int64) if set_aside is None else set_aside
    divided = OtherFolds(divide(rows, sharding, bench, _nobody), rows, validation, aside)
    empty = sum(not len(divided.own(fold)) or not divided.count(fold, 0) for fold in range(folds.num_folds))
    if empty:
        raise BadSetting(
            f"{empty} of {folds.num_folds} folds of {num_users} users have nobody in them or nobody to learn from",
            hint="lower `--folds.num-folds` or `--folds.set-aside-below`",
        )
    return divided


def held_out_answers(divided: OtherFolds, start: Recommender, folds: FoldRule, bench: Bench) -> numpy.ndarray:
    """p(Yes) of every training row by the network of its user's fold, float64, (row,); every network starts from `start`."""
    sharding, yes = _sharding(folds), numpy.empty(len(divided.rows))
    trainee = Trainee(start, sharding, bench.seed)

    def answer(made: TrainedSlice) -> None:
        own = divided.own(made.shard)
        yes[own] = yes_probabilities(trainee.student(made.weights), divided.rows.select(own), bench)

    train_tasks([Task(fold) for fold in range(folds.num_folds)], trainee, divided, sharding, bench, answer)
    return yes


def _sharding(folds: FoldRule) -> Sharding:
    return Sharding(num_shards=folds.num_folds, training=folds.training)


def _nobody() -> Recommender:
    raise AssertionError("folds are drawn by digest")
