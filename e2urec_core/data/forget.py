"""Chooses who is forgotten and marks every example with the part it plays from then on.

A forgotten user's training rows are what unlearning removes. Their rows in the validation window leave model selection, and their
rows in the test window are reported apart: the prompts of both carry the history that is being deleted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from e2urec_core.artifacts import file_digest
from e2urec_core.data.named import ITEM, USER, Pairs, named_deletions, named_interactions, named_users, names_interactions
from e2urec_core.data.places import EXAMPLES, GONE, MARKS, NAMED, USERS
from e2urec_core.errors import BadRequest
from e2urec_core.seeding import numpy_generator
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    import polars

PARTS = ("retained", "forgotten", "validation", "forgotten_validation", "test", "forgotten_test", "holdout", "other")


class ForgetRule(Settings):
    """Who is forgotten: users and interactions named in a file, or a share of the training users drawn by the seed."""

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
    deletions_file: Path | None = None
    """CSV with the header user_id,item_id: users, whose item is empty, and single interactions to forget together; replaces the draw."""

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> ForgetRule:
        files = [file for file in (self.users_file, self.interactions_file, self.deletions_file) if file is not None]
        if len(files) > 1:
            raise ValueError(
                f"{('two', 'three')[len(files) - 2]} requests are named; name all users and interactions in one deletions_file"
            )
        if self.nobody and files:
            raise ValueError("nobody is forgotten, and a file names somebody; leave one of the two out")
        return self

    @property
    def names_interactions_in(self) -> str:
        """The setting whose file names single interactions, or the empty text."""
        if self.deletions_file is not None and names_interactions(self.deletions_file):
            return "deletions_file"
        return "interactions_file" if self.interactions_file is not None else ""

    def fingerprint(self) -> str:
        """Digest of the file that names users or interactions, or the empty text; tomorrow it may name others under the same name."""
        file = self.users_file or self.interactions_file or self.deletions_file
        return file_digest(file) if file is not None and file.is_file() else ""


def write_request(interactions: Path, examples: Path, rule: ForgetRule, seed: int, place: Path) -> dict[str, int]:
    """Write every example's part and which examples go, and in files of their own who and what is named, and the rows told without it.

    Args:
        interactions: Folder of stored interactions.
        examples: Folder of the examples that were made of them.
        rule: Share, cohort or file.
        seed: The run's seed.
        place: Where the files go: `parts.parquet` and `gone.parquet`; `users.parquet` unless interactions alone are named; and where
            some are, `interactions.parquet` with all of them and `examples.parquet` with the rows that are told anew.

    Returns:
        Rows by part, those that are forgotten in any case, and what was asked for.

    Raises:
        BadRequest: See `choose_forgotten` and `remove_interactions`; a file names users who are not stored; every training row would
            go; or none would, where interactions alone are named in `interactions_file`.
    """
    import polars as pl
    import pyarrow as pa

    from data_contracts.examples import GONE as GONE_TABLE
    from e2urec_core.data.interaction_rows import write_table
    from e2urec_core.data.retelling import remove_interactions

    rows = pl.read_parquet(examples / EXAMPLES, columns=["example_id", "user_id", "timestamp_s", "split"])
    cohorts = pl.read_parquet(interactions / USERS, columns=["user_id", "cohort"])
    users, pairs = _named(rows, cohorts, rule, seed)
    gone, asked = rows["user_id"].is_in(users), {"forgotten_users": len(users)} if users or not pairs else {}
    removal = remove_interactions(interactions, examples, pairs, users) if pairs else None
    if removal is not None:
        gone, asked = gone | pl.Series(removal.gone), asked | removal.counts
    trains = rows["split"] == "train"
    _refuse_too_little_or_too_much(int((gone & trains).sum()), int(trains.sum()), rule, len(pairs))
    marks = mark_rows(rows, cohorts, gone)
    if users or not pairs:
        _write(pl.DataFrame({USER: users}, schema={USER: pl.String}), place / USERS)
    if removal is not None:
        write_table(pa.table({USER: [user for user, _ in pairs], ITEM: [item for _, item in pairs]}), place / NAMED)
        write_table(removal.anew, place / EXAMPLES)
    write_table(pa.table([rows["example_id"].filter(gone).to_arrow()], schema=GONE_TABLE.schema()), place / GONE)
    _write(marks, place / MARKS)
    counts = {str(part): int(count) for part, count in marks["part"].value_counts().iter_rows()}
    return {"forgotten": 0, **counts, **asked, "users": rows["user_id"].n_unique()}


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
        chosen = named_users(rule.users_file)
        _refuse_unknown(chosen, trained, "have no training row", {"file": rule.users_file, "training users": f"{trained.height:,}"})
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


def _named(rows: polars.DataFrame, cohorts: polars.DataFrame, rule: ForgetRule, seed: int) -> tuple[list[str], Pairs]:
    """Whole users and single interactions that are asked for, each sorted."""
    if rule.interactions_file is not None:
        return [], named_interactions(rule.interactions_file)
    if rule.deletions_file is None:
        return choose_forgotten(rows, cohorts, rule, seed), []
    users, pairs = named_deletions(rule.deletions_file)
    _refuse_unknown(users, cohorts, "were never stored", {"file": rule.deletions_file, "stored users": f"{cohorts.height:,}"})
    return users, pairs


def _refuse_unknown(named: list[str], known: polars.DataFrame, fault: str, facts: dict[str, object]) -> None:
    unknown = len(set(named) - set(known["user_id"]))
    if unknown:
        raise BadRequest(
            f"{unknown:,} of {len(named):,} named users {fault}",
            facts=facts,
            hint="take them out of the file: there is nothing to forget of them",
        )


def _refuse_too_little_or_too_much(gone: int, trained: int, rule: ForgetRule, num_pairs: int) -> None:
    if not gone and rule.interactions_file is not None:
        raise BadRequest(
            f"the {num_pairs:,} named interactions are those of none of {trained:,} training rows, so there is nothing to unlearn",
            hint="name interactions of the training window in `--forget.interactions-file`, or delete them at the source",
        )
    if gone == trained:
        raise BadRequest(
            f"all {trained:,} training rows would be forgotten, so nothing is left to recommend from",
            hint="name fewer users and interactions, or withdraw the model instead of unlearning",
        )
