"""A dataset is a frozen class that reads its own files into three tables; everything after that is the same for all.

One new dataset = one new file in this folder. It returns ratings, items and users in the columns of `data_contracts`, refuses what
its format does not allow with a `BadInput`, and knows nothing of prompts or splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from e2urec_core.errors import BadInput
from e2urec_core.settings import Plugin

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True)
class Tables:
    """What a dataset gives.

    Args:
        interactions: user_id (String), item_id (String), rating (Float32), timestamp_s (Int64, seconds since 1970, UTC); any order.
        items: item_id (String), title (String), one row an item.
        users: user_id (String), profile (String or null: a sentence about the user), cohort (String or null: a group that a
            request may name, such as users whose data was polluted), one row a user.
    """

    interactions: polars.DataFrame
    items: polars.DataFrame
    users: polars.DataFrame


class Dataset(Plugin):
    """Settings of one source of ratings."""

    package: ClassVar[str] = "e2urec_core.datasets"
    licence: ClassVar[str] = ""
    source: ClassVar[str] = ""

    def read(self) -> Tables:
        """Read the source whole.

        Raises:
            BadInput: A file, column or row is not what the format says.
        """
        raise AssertionError(f"{type(self).__name__} does not read")

    def fingerprint(self) -> str:
        """Digest of what `read` depends on beside the settings: the bytes of the source files, or the empty text."""
        return ""


def ordered(tables: Tables) -> Tables:
    """The same tables in one fixed order: ratings by time, then user, then item, so that the result does not depend on file order.

    Raises:
        BadInput: There are no ratings, a user rated an item twice, or a rating names an unknown item or user.
    """
    import polars as pl

    rows = tables.interactions
    if rows.is_empty():
        raise BadInput("the dataset holds 0 ratings", hint="check the path and the file's separator")
    twice = rows.height - rows.select("user_id", "item_id").n_unique()
    if twice:
        raise BadInput(
            f"{twice:,} of {rows.height:,} ratings repeat a user and item that were rated before",
            hint="keep one rating for each user and item, for instance the newest, and run again",
        )
    for name, table in (("item", tables.items), ("user", tables.users)):
        repeated = table.height - table[f"{name}_id"].n_unique()
        if repeated:
            raise BadInput(f"{repeated:,} of {table.height:,} {name}s are listed twice", hint=f"keep one row for each {name}")
        unknown = rows.join(table, on=f"{name}_id", how="anti").height
        if unknown:
            raise BadInput(
                f"{unknown:,} of {rows.height:,} ratings name {name}s that the {name} table does not list",
                hint=f"add the missing {name}s or take their ratings out",
            )
    return Tables(
        interactions=rows.sort("timestamp_s", "user_id", "item_id"),
        items=tables.items.sort("item_id"),
        users=tables.users.with_columns(pl.col("profile", "cohort").cast(pl.String)).sort("user_id"),
    )
