"""Tells good rows from bad ones: reads a source in one pass, and puts what breaks a rule aside under the rule's name.

Nothing is dropped in silence: a row is kept, or it is counted under a rule and, unless it is no fault at all, written to the quarantine
as it stood in its file, as long as it names nobody who is suppressed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.quarantine import QUARANTINE as QUARANTINE_TABLE
from e2urec_core.data.deletions import Deletions
from e2urec_core.data.files import FILE, LINE
from e2urec_core.data.interaction_rows import Rows, ranked, write_table
from e2urec_core.data.places import ITEMS, QUARANTINE
from e2urec_core.data.suppressed import Suppressed
from e2urec_core.data.suppressing import naming_nobody
from e2urec_core.datasets.base import RAW, RULE, Source, clean_title
from e2urec_core.errors import BadInput

if TYPE_CHECKING:
    import polars

LONGEST_SHOWN = 40
UNKNOWN_ITEM, UNKNOWN_USER, UNTITLED = "unknown item", "unknown user", "item without a title"


def collect_rows(source: Source) -> tuple[Rows, dict[str, int]]:
    """The rows that keep every rule, in one pass over the files, and how many go no further, by rule."""
    import polars as pl

    kinds = {name: pl.Categorical(pl.Categories.random()) for name in ("user", "item")}
    every = source.rows.select(
        user=pl.col("user_id").cast(kinds["user"]),
        item=pl.col("item_id").cast(kinds["item"]),
        rating="rating",
        timestamp_s="timestamp_s",
        label="label",
        rule=pl.col(RULE).cast(pl.Categorical(pl.Categories.random())),
    ).collect(engine="streaming")
    counts = {str(name): int(count) for name, count in every["rule"].drop_nulls().value_counts().iter_rows()}
    frame = (every.filter(pl.col("rule").is_null()) if counts else every).drop("rule")
    del every
    users, user_codes = ranked(frame["user"])
    items, item_codes = ranked(frame["item"])
    return Rows(frame.with_columns(user=user_codes, item=item_codes), users, items), counts


def items_of(source: Source, rated: polars.Series, earlier: Path | None) -> polars.DataFrame:
    """item_id and title, one row an item, sorted; items that only earlier rows know keep their titles."""
    import polars as pl

    if source.items is None:
        items = pl.DataFrame({"item_id": rated}).with_columns(title=clean_title("item_id"))
    else:
        items = source.items.filter(pl.col("item_id").is_not_null()).unique().collect(engine="streaming")
    repeated = items.height - items["item_id"].n_unique()
    if repeated:
        raise BadInput(f"{repeated:,} of {items.height:,} items are listed twice with different titles", hint="keep one row for each item")
    if earlier is not None:
        before = pl.read_parquet(earlier / ITEMS)
        # Where ids stand for titles, an earlier title says more.
        told = items.filter((~blank() & (source.items is not None)) | ~pl.col("item_id").is_in(before["item_id"].implode()))
        items = pl.concat([before.join(told, on="item_id", how="anti"), told])
    return items.sort("item_id")


def blank() -> polars.Expr:
    """Whether there is no title."""
    import polars as pl

    return pl.col("title").is_null() | (pl.col("title").str.len_bytes() == 0)


def users_of(source: Source) -> polars.DataFrame:
    """user_id, profile and cohort of the users that the source lists.

    Raises:
        BadInput: A user is listed twice.
    """
    import polars as pl

    kinds = {"user_id": pl.String, "profile": pl.String, "cohort": pl.String}
    if source.users is None:
        return pl.DataFrame(schema=kinds)
    told = source.users.select(pl.col(name).cast(kind) for name, kind in kinds.items()).collect(engine="streaming")
    repeated = told.height - told["user_id"].n_unique()
    if repeated:
        raise BadInput(f"{repeated:,} of {told.height:,} users are listed twice", hint="keep one row for each user")
    return told


def unknown_names(source: Source, items: polars.DataFrame, users: polars.DataFrame, rows: Rows) -> polars.DataFrame:
    """Users and items of rows that no table lists: what, name, place, rule."""
    import polars as pl

    listed = pl.DataFrame({"name": rows.items}).with_row_index("place").join(items, left_on="name", right_on="item_id", how="left")
    in_table = pl.col("name").is_in(items["item_id"].implode())
    verdict = pl.when(in_table).then(pl.lit(UNTITLED)).otherwise(pl.lit(UNKNOWN_ITEM)).alias(RULE)
    found = [listed.filter(~in_table | blank()).select(pl.lit("item").alias("what"), "name", "place", verdict)]
    if source.users_are_all:
        missing = pl.DataFrame({"name": rows.users}).with_row_index("place").filter(~pl.col("name").is_in(users["user_id"].implode()))
        found.append(missing.select(pl.lit("user").alias("what"), "name", "place", pl.lit(UNKNOWN_USER).alias(RULE)))
    return pl.concat(found)


def put_aside(
    source: Source, counts: Mapping[str, int], unknown: polars.DataFrame, place: Path, suppressed: Suppressed, deletions: Deletions
) -> tuple[dict[str, int], int]:
    """Write the rows that break a rule to the quarantine; the files are read again only where there are some.

    Args:
        source: The rows.
        counts: Rows that go no further, by rule, as `collect_rows` told.
        unknown: Users and items that no table lists.
        place: Where the quarantine goes.
        suppressed: Whom no row of the quarantine may name.
        deletions: Who was deleted.

    Returns:
        Rows that go no further, by rule, the most first, those whose item or user is unknown among them; and how many of them name a
        suppressed user and are therefore not written.
    """
    import polars as pl

    left = {name: counts.get(name, 0) for name in source.left_out}
    if not set(counts) - set(left) and unknown.is_empty():
        write_table(QUARANTINE_TABLE.schema().empty_table(), place / QUARANTINE)
        return {name: count for name, count in left.items() if count}, 0
    by = {
        what: unknown.lazy().filter(pl.col("what") == what).select(pl.col("name").alias(f"{what}_id"), pl.col(RULE).alias(f"{what} rule"))
        for what in ("item", "user")
    }
    rows = source.rows.filter(pl.col(RULE).is_null() | ~pl.col(RULE).is_in(list(left)))
    rows = rows.join(by["item"], on="item_id", how="left").join(by["user"], on="user_id", how="left")
    raw = {
        name: (pl.col(column) if column in source.rows.collect_schema().names() else pl.lit(None, pl.String))
        for name, column in RAW.items()
    }
    rows = rows.with_columns(pl.coalesce(pl.col(RULE).cast(pl.String), "item rule", "user rule").alias(RULE))
    aside = rows.filter(pl.col(RULE).is_not_null()).select(
        RULE,
        file=FILE,
        line=pl.col(LINE).cast(pl.Int64),
        user_id=raw["user_id"],
        item_id=raw["item_id"],
        rating=raw["rating"],
        time=raw["timestamp_s"],
        parsed_user="user_id",
        parsed_item="item_id",
    )
    faults = aside.sort(FILE, LINE).collect(engine="streaming")
    kept = naming_nobody(faults, suppressed, deletions) if suppressed else faults
    write_table(kept.drop("parsed_user", "parsed_item").to_arrow().cast(QUARANTINE_TABLE.schema()), place / QUARANTINE)
    told = left | {str(name): int(count) for name, count in faults[RULE].value_counts().iter_rows()}
    in_order = sorted(told.items(), key=lambda each: (-each[1], each[0]))
    return {name: count for name, count in in_order if count}, faults.height - kept.height


def refuse_too_many(read: int, told: Mapping[str, int], source: Source, most: float, place: Path) -> None:
    """Stop where more than the share `most` of the `read` rows break a rule.

    Args:
        read: Rows that could be interactions.
        told: Rows that break each rule, the most frequent first.
        source: Knows what to do about each rule.
        most: Share, 0 to 1.
        place: Folder of the quarantine, for a first example of each rule.

    Raises:
        BadInput: With the rules and their counts.
    """
    count = sum(told.values())
    if count <= most * read:
        return
    import polars as pl

    aside = pl.read_parquet(place / QUARANTINE)
    first = aside.unique(RULE, keep="first", maintain_order=True)
    shown = {row[RULE]: _shown(row) for row in first.iter_rows(named=True)}
    worst = next(iter(told))
    raise BadInput(
        f"{count:,} of {read:,} rows ({_percent(count / read)}) break a rule; at most {_percent(most)} may",
        facts={name: f"{number:,} rows" + (f", first {shown[name]}" if name in shown else "") for name, number in told.items()},
        hint=source.hints.get(worst) or "mend the rows, or raise `--ingest.max-quarantined`",
    )


def _shown(row: Mapping[str, Any]) -> str:
    """Where a row stood and what it said, without its user."""
    value = next(
        (
            row[name]
            for word, name in (("item", "item_id"), ("rating", "rating"), ("click", "rating"), ("time", "time"), ("date", "time"))
            if word in row[RULE]
        ),
        None,
    )
    text = repr(value)[:LONGEST_SHOWN] if value is not None else ""
    # Folders such as `user=7` may name a user.
    file = re.sub(r"=[^/]*", "=*", row["file"])
    return f"at {file} line {row['line']:,}" + (f": {text}" if text else "")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
