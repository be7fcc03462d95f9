"""Cuts the examples by one moment in time for everybody, and keeps some users out of training altogether.

The past trains, the nearer future selects, the later future tests. Ratings of one second stay on one side, so that no training row
is as new as a validation row. Users held out are the known non-members that a membership attack needs: they lived through the same
window as those who are forgotten, but no model has seen them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from e2urec_core.errors import BadInput, SplitLeak
from e2urec_core.seeding import numpy_generator
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    import polars


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


def split_by_time(examples: polars.DataFrame, cohorts: polars.DataFrame, rule: SplitRule, seed: int) -> polars.DataFrame:
    """Add the column `split`: train, validation, test or holdout.

    Args:
        examples: As `build_prompts` returns them, in time order.
        cohorts: user_id, cohort; holdout users are drawn from every cohort alike.
        rule: The shares.
        seed: The run's seed.

    Returns:
        The examples with `split`, renumbered from 0 in time order.

    Raises:
        BadInput: A part of the split is empty.
    """
    import polars as pl

    rows = examples.tail(rule.last_examples) if rule.last_examples else examples
    time = rows["timestamp_s"]
    first_validation = _first_of_its_second(time, round(rows.height * rule.train_share))
    first_test = _first_of_its_second(time, round(rows.height * (rule.train_share + rule.validation_share)))
    index = pl.int_range(pl.len())
    part = (
        pl.when(index < first_validation)
        .then(pl.lit("train"))
        .when(index < first_test)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
    )
    rows = rows.with_columns(part.alias("split"), index.cast(pl.Int64).alias("example_id"))
    held = _holdout_users(rows.filter(pl.col("split") == "train"), cohorts, rule.holdout_share, seed)
    rows = rows.with_columns(
        pl.when(pl.col("user_id").is_in(held.implode()) & (pl.col("split") != "test"))
        .then(pl.lit("holdout"))
        .otherwise("split")
        .alias("split")
    )
    counts = dict(rows["split"].value_counts().iter_rows())
    if len(held) and not counts.get("train"):
        raise BadInput(
            f"a holdout share of {rule.holdout_share} takes all {len(held):,} training users",
            hint="lower `--split.holdout-share`, or bring more users",
        )
    for name in ("train", "validation", "test"):
        if not counts.get(name):
            raise BadInput(
                f"the {name} part of the split is empty: {rows.height:,} examples lie in {time.n_unique():,} different seconds",
                hint="bring rows from more moments in time, or change `--split.train-share` and `--split.validation-share`",
            )
    refuse_leakage(rows)
    return rows


def refuse_leakage(rows: polars.DataFrame) -> None:
    """Make sure that what trains is older than what selects, and that older than what tests.

    Raises:
        SplitLeak: A row of an earlier part is as new as the oldest row of a later part.
    """
    import polars as pl

    for earlier, later in (("train", "validation"), ("validation", "test")):
        oldest = rows.filter(pl.col("split") == later)["timestamp_s"].min()
        before = rows.filter(pl.col("split") == earlier)["timestamp_s"]
        late = int((before >= oldest).sum())
        if late:
            raise SplitLeak(
                f"{late:,} {earlier} rows are as new as the oldest {later} row or newer",
                facts={f"newest {earlier} row": _utc(before.max()), f"oldest {later} row": _utc(oldest)},
                hint="the split was taken before sorting; pass an Interactions artifact, which is sorted by `timestamp_s`",
            )


def _first_of_its_second(time: polars.Series, index: int) -> int:
    """The cut nearest before `index` that does not part rows of one second."""
    at = min(index, len(time) - 1)
    return int(time.search_sorted(time[at], side="left"))


def _holdout_users(train: polars.DataFrame, cohorts: polars.DataFrame, share: float, seed: int) -> polars.Series:
    import polars as pl

    random = numpy_generator(seed, "holdout-users")
    users = train.select("user_id").unique().join(cohorts, on="user_id", how="left").sort("user_id")
    held: list[str] = []
    for cohort in sorted(users["cohort"].fill_null("").unique()):
        names = users.filter(pl.col("cohort").fill_null("") == cohort)["user_id"].to_list()
        held += random.permutation(names)[: round(share * len(names))].tolist()
    return pl.Series("user_id", held, dtype=pl.String)


def _utc(timestamp_s: object) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(str(timestamp_s)), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
