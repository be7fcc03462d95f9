"""Chooses who is forgotten and marks every example with the part it plays from then on.

A forgotten user's training rows are what unlearning removes. Their rows in the validation window leave model selection, and their
rows in the test window are reported apart: the prompts of both carry the history that is being deleted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from e2urec_core.artifacts import file_digest
from e2urec_core.data.places import EXAMPLES, MARKS, USERS
from e2urec_core.errors import BadRequest
from e2urec_core.seeding import numpy_generator
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    import polars

PARTS = ("retained", "forgotten", "validation", "forgotten_validation", "test", "forgotten_test", "holdout", "other")


class ForgetRule(Settings):
    """Who is forgotten: users or interactions named in a file, or a share of the training users drawn by the seed."""

    share: float = Field(0.2, ge=0, le=1)
    """Share of the training users, of the named cohort if one is named, who are forgotten. Reference: 0.2."""
    cohort: str = ""
    """Only users of this cohort are drawn, such as `polluted` of the sample; empty draws from all."""
    nobody: bool = False
    """Whether nobody is forgotten: what a first champion is trained and judged with."""
    users_file: Path | None = None
    """Text file with one user id a line; replaces the draw."""
    interactions_file: Path | None = None
    """CSV with the header user_id,item_id: single interactions to forget, in the place of whole users; replaces the draw."""

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> ForgetRule:
        if self.users_file is not None and self.interactions_file is not None:
            raise ValueError("users_file and interactions_file are two requests; run one after the other")
        if self.nobody and (self.users_file is not None or self.interactions_file is not None):
            raise ValueError("nobody is forgotten, and a file names somebody; leave one of the two out")
        return self

    def fingerprint(self) -> str:
        """Digest of the file that names users or interactions, or the empty text; tomorrow it may name others under the same name."""
        file = self.users_file or self.interactions_file
        return file_digest(file) if file is not None and file.is_file() else ""


def write_request(interactions: Path, examples: Path, rule: ForgetRule, seed: int, place: Path) -> dict[str, int]:
    """Write every example's part, and in files of their own the users, or the interactions and the rows that are told without them.

    Args:
        interactions: Folder of stored interactions.
        examples: Folder of the examples that were made of them.
        rule: Share, cohort or file.
        seed: The run's seed.
        place: Where the files go.

    Returns:
        Rows by part, and what was asked for.

    Raises:
        BadRequest: See `choose_forgotten` and `remove_interactions`.
    """
    import polars as pl

    from e2urec_core.data.retelling import remove_interactions

    rows = pl.read_parquet(examples / EXAMPLES, columns=["example_id", "user_id", "timestamp_s", "split"])
    cohorts = pl.read_parquet(interactions / USERS, columns=["user_id", "cohort"])
    if rule.interactions_file is not None:
        removal = remove_interactions(interactions, examples, rule.interactions_file, place)
        marks, asked = mark_rows(rows, cohorts, pl.Series(removal.gone)), removal.counts
    else:
        users = choose_forgotten(rows, cohorts, rule, seed)
        marks, asked = mark_parts(rows, cohorts, users), {"forgotten_users": len(users)}
        _write(pl.DataFrame({"user_id": users}), place / USERS)
    _write(marks, place / MARKS)
    counts = {str(part): int(count) for part, count in marks["part"].value_counts().iter_rows()}
    return {**counts, **asked, "users": rows["user_id"].n_unique()}


def choose_forgotten(examples: polars.DataFrame, cohorts: polars.DataFrame, rule: ForgetRule, seed: int) -> list[str]:
    """Ids of the users to forget, sorted.

    Args:
        examples: With `user_id` and `split`.
        cohorts: user_id, cohort.
        rule: Share, cohort or file.
        seed: The run's seed.

    Raises:
        BadRequest: Nobody or everybody would be forgotten, or a named user has no training row.
    """
    import polars as pl

    if rule.nobody:
        return []
    trained = examples.filter(pl.col("split") == "train").select("user_id").unique().join(cohorts, on="user_id", how="left").sort("user_id")
    if rule.users_file is not None:
        chosen = _named(rule.users_file, trained["user_id"].to_list())
    else:
        pool = trained.filter(pl.col("cohort") == rule.cohort) if rule.cohort else trained
        if pool.is_empty():
            known = sorted(trained["cohort"].drop_nulls().unique())
            raise BadRequest(
                f"none of {trained.height:,} training users belongs to the cohort `{rule.cohort}`",
                hint=f"cohorts of this dataset: {', '.join(known) or 'none'}; set `--forget.cohort` to one of them or leave it out",
            )
        count = round(rule.share * pool.height)
        if not count:
            of = f" of the cohort `{rule.cohort}`" if rule.cohort else ""
            raise BadRequest(
                f"no users are forgotten: a share of {rule.share} of {pool.height:,} training users{of} is 0 users",
                hint="raise `--forget.share` or name users with `--forget.users-file`",
            )
        chosen = sorted(numpy_generator(seed, "forget-users").permutation(pool["user_id"].to_list())[:count].tolist())
    if len(chosen) == trained.height:
        raise BadRequest(
            f"all {trained.height:,} training users would be forgotten, so nothing is left to recommend from",
            hint="lower `--forget.share`, or withdraw the model instead of unlearning",
        )
    return chosen


def mark_parts(examples: polars.DataFrame, cohorts: polars.DataFrame, forgotten: list[str]) -> polars.DataFrame:
    """Each example's part once the users `forgotten` are forgotten; see `mark_rows`."""
    return mark_rows(examples, cohorts, examples["user_id"].is_in(forgotten))


def mark_rows(examples: polars.DataFrame, cohorts: polars.DataFrame, gone: polars.Series) -> polars.DataFrame:
    """Each example's part once the rows that are `gone`, True or False for each example, are forgotten.

    Returns:
        example_id, part (one of `PARTS`), in the examples' order. `holdout` are rows of never-seen users from the training window
        whose cohort occurs among the forgotten, the fair comparison of a membership attack; `other` are the remaining ones.
    """
    import polars as pl

    split, is_gone = pl.col("split"), pl.col("gone")
    newest = examples.filter(split == "train")["timestamp_s"].max()
    groups = cohorts.with_columns(pl.col("cohort").fill_null(""))
    rows = examples.with_columns(gone.alias("gone")).join(groups, on="user_id", how="left", maintain_order="left")
    peers = rows.filter((split == "train") & is_gone)["cohort"].unique()
    part = (
        pl.when(split == "train")
        .then(pl.when(is_gone).then(pl.lit("forgotten")).otherwise(pl.lit("retained")))
        .when(split.is_in(["validation", "test"]))
        .then(pl.when(is_gone).then(pl.concat_str(pl.lit("forgotten_"), split)).otherwise(split))
        .when((pl.col("timestamp_s") <= newest) & pl.col("cohort").is_in(peers.implode()) & ~is_gone)
        .then(pl.lit("holdout"))
        .otherwise(pl.lit("other"))
    )
    return rows.select("example_id", part.alias("part"))


def _write(table: polars.DataFrame, path: Path) -> None:
    # Statistics would put the smallest and largest user id into the footer, where a scan for them must look too.
    table.write_parquet(path, compression="zstd", statistics=False)


def _named(path: Path, trained: list[str]) -> list[str]:
    try:
        named = sorted({line.strip() for line in path.read_text().splitlines() if line.strip()})
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise BadRequest(
            f"the file of users to forget cannot be read: {reason}", facts={"file": path}, hint="check `--forget.users-file`"
        ) from None
    if not named:
        raise BadRequest("no users are forgotten: the file names 0 users", facts={"file": path}, hint="write one user id a line into it")
    unknown = len(set(named) - set(trained))
    if unknown:
        raise BadRequest(
            f"{unknown:,} of {len(named):,} named users have no training row",
            facts={"file": path, "training users": f"{len(trained):,}"},
            hint="take them out of the file: there is nothing to forget of them",
        )
    return named
