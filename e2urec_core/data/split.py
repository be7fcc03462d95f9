"""Cuts the examples by one moment in time for everybody, and keeps some users out of training altogether.

The past trains, the nearer future selects, the later future tests. Rows of one second stay on one side, so that no training row is as
new as a validation row. Users held out are the known non-members that a membership attack needs: they lived through the same window
as those who are forgotten, but no model has seen them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from e2urec_core.errors import BadInput, SplitLeak
from e2urec_core.seeding import numpy_generator
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    from numpy import ndarray

SPLITS = ("train", "validation", "test", "holdout")
TRAIN, VALIDATION, TEST, HOLDOUT = range(4)


class SplitRule(Settings):
    """Where the examples are cut."""

    train_share: float = Field(0.6, gt=0, lt=1)
    """Share of the examples, oldest first, that train."""
    validation_share: float = Field(0.2, gt=0, lt=1)
    """Share of the examples, next in time, that select models; the rest tests."""
    holdout_share: float = Field(0.05, ge=0, lt=1)
    """Share of the training users whose rows stay out of training and selection: the non-members of the loss attack."""
    last_examples: int = Field(0, ge=0)
    """Only the newest this many examples are used; 0 uses all. Reference on ml-1m: 100,000."""

    @model_validator(mode="after")
    def _leaves_something_to_test(self) -> SplitRule:
        if self.train_share + self.validation_share >= 1:
            raise ValueError(f"train_share {self.train_share} and validation_share {self.validation_share} leave nothing to test")
        return self


def split_by_time(times: ndarray, users: ndarray, user_ids: pa.Array, cohorts: pa.Array, rule: SplitRule, seed: int) -> ndarray:
    """What each example is for.

    Args:
        times: Seconds, ascending, int64, (row,).
        users: Places in `user_ids`, (row,).
        user_ids: Names of the users, sorted, (user,).
        cohorts: Group or missing of each user, (user,); holdout users are drawn from every cohort alike.
        rule: The shares.
        seed: The run's seed.

    Returns:
        Places in `SPLITS`, int8, (row,).

    Raises:
        BadInput: A part of the split is empty.
    """
    first_validation = _first_of_its_second(times, round(len(times) * rule.train_share))
    first_test = _first_of_its_second(times, round(len(times) * (rule.train_share + rule.validation_share)))
    parts = numpy.full(len(times), TEST, numpy.int8)
    parts[:first_test], parts[:first_validation] = VALIDATION, TRAIN
    held = _holdout_users(numpy.unique(users[:first_validation]), user_ids, cohorts, rule.holdout_share, seed)
    is_held = numpy.zeros(len(user_ids), bool)
    is_held[held] = True
    parts[:first_test][is_held[users[:first_test]]] = HOLDOUT
    counts = numpy.bincount(parts, minlength=len(SPLITS))
    if len(held) and not counts[TRAIN]:
        raise BadInput(
            f"a holdout share of {rule.holdout_share} takes all {len(held):,} training users",
            hint="lower `--split.holdout-share`, or bring more users",
        )
    for part in (TRAIN, VALIDATION, TEST):
        if not counts[part]:
            raise BadInput(
                f"the {SPLITS[part]} part of the split is empty: {len(times):,} examples lie in {len(numpy.unique(times)):,} different "
                "seconds",
                hint="bring rows from more moments in time, or change `--split.train-share` and `--split.validation-share`",
            )
    refuse_leakage(times, parts)
    return parts


def refuse_leakage(times: ndarray, parts: ndarray) -> None:
    """Make sure that what trains is older than what selects, and that older than what tests.

    Raises:
        SplitLeak: A row of an earlier part is as new as the oldest row of a later part.
    """
    for earlier, later in ((TRAIN, VALIDATION), (VALIDATION, TEST)):
        before, oldest = times[parts == earlier], times[parts == later].min()
        late = int((before >= oldest).sum())
        if late:
            raise SplitLeak(
                f"{late:,} {SPLITS[earlier]} rows are as new as the oldest {SPLITS[later]} row or newer",
                facts={f"newest {SPLITS[earlier]} row": _utc(int(before.max())), f"oldest {SPLITS[later]} row": _utc(int(oldest))},
                hint="the split was taken before sorting; pass an Interactions artifact, which is sorted by `timestamp_s`",
            )


def _first_of_its_second(times: ndarray, index: int) -> int:
    """The cut nearest before `index` that does not part rows of one second."""
    at = min(index, len(times) - 1)
    return int(numpy.searchsorted(times, times[at], side="left"))


def _holdout_users(trained: ndarray, user_ids: pa.Array, cohorts: pa.Array, share: float, seed: int) -> ndarray:
    """Places of the users who are held out, drawn from every cohort alike."""
    random = numpy_generator(seed, "holdout-users")
    groups = numpy.array(pc.fill_null(cohorts, "").to_pylist(), dtype=object)[trained]
    held: list[ndarray] = []
    for cohort in sorted(set(groups)):
        places = trained[groups == cohort]
        held.append(random.permutation(places)[: round(share * len(places))])
    return numpy.concatenate(held) if held else numpy.empty(0, numpy.int64)


def _utc(timestamp_s: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(timestamp_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
