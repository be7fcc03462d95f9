"""Takes what is on the suppression list out of tables: single interactions, and rows that were put aside and name somebody.

Whole users are taken out as deleted ones are: see `Suppressed.joined`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from e2urec_core.data.deletions import Deletions
from e2urec_core.data.interaction_rows import Rows
from e2urec_core.data.suppressed import Suppressed

if TYPE_CHECKING:
    import polars


def without_pairs(rows: Rows, suppressed: Suppressed, deletions: Deletions) -> int:
    """Drop the suppressed interactions among new rows; returns how many were dropped.

    Args:
        rows: Under the names of their source.
        suppressed: The list.
        deletions: Who was deleted, which tells who bears several names.
    """
    import polars as pl

    if not suppressed.pairs:
        return 0
    # Of 25 million rows, items are looked at for these users alone.
    places = [place for place, user in enumerate(rows.users.to_list()) if suppressed.have_pairs(deletions.lives(user))]
    theirs = rows.frame.filter(pl.col("user").is_in(places)).select("user", "item", "timestamp_s")
    named = theirs.with_columns(user_id=rows.users.gather(theirs["user"]), item_id=rows.items.gather(theirs["item"]))
    gone = _suppressed(named, suppressed, deletions).select("user", "item", "timestamp_s").unique()
    before = rows.frame.height
    rows.frame = rows.frame.join(gone, on=gone.columns, how="anti") if gone.height else rows.frame
    return before - rows.frame.height


def stored_without_pairs(stored: polars.DataFrame, suppressed: Suppressed, deletions: Deletions) -> polars.DataFrame:
    """The rows of a stored part without the suppressed interactions, in their order."""
    import polars as pl

    if not suppressed.pairs:
        return stored
    users = [user for user in stored["user_id"].unique().to_list() if suppressed.have_pairs(deletions.lives(user))]
    gone = _suppressed(stored.filter(pl.col("user_id").is_in(users)), suppressed, deletions)
    return stored.filter(~pl.col("interaction_id").is_in(gone["interaction_id"].implode())) if gone.height else stored


def naming_nobody(aside: polars.DataFrame, suppressed: Suppressed, deletions: Deletions) -> polars.DataFrame:
    """Of rows that were put aside those that neither are of a suppressed user or interaction nor mention a suppressed user anywhere.

    Args:
        aside: The columns of the quarantine, and `parsed_user` and `parsed_item`, as far as they could be read.
        suppressed: The list.
        deletions: Who was deleted.
    """
    import polars as pl

    def is_theirs(user: str, item: str | None) -> bool:
        lives = deletions.lives(user)
        return bool(suppressed.user_cut_offs(lives)) or (item is not None and suppressed.pair_cut_off(lives, item) is not None)

    met = aside.select("parsed_user", "parsed_item").drop_nulls("parsed_user").unique()
    theirs = met.filter(pl.Series([is_theirs(*pair) for pair in met.iter_rows()], dtype=pl.Boolean))
    kept = aside.join(theirs, on=["parsed_user", "parsed_item"], how="anti", nulls_equal=True, maintain_order="left")
    for column in ("user_id", "item_id", "rating", "time", "file"):
        texts = kept[column].drop_nulls().unique().to_list()
        # A folder such as `user=7` names a user; `part-7.parquet` does not.
        read = {text: " ".join(re.findall(r"=([^/]*)", text)) if column == "file" else text for text in texts}
        naming = [text for text in texts if suppressed.mentioned(read[text])]
        kept = kept.filter(~pl.col(column).is_in(naming).fill_null(value=False))
    return kept


def _suppressed(named: polars.DataFrame, suppressed: Suppressed, deletions: Deletions) -> polars.DataFrame:
    """The rows, with user_id and item_id, that the list keeps out."""
    import polars as pl

    met = named.select("user_id", "item_id").unique()
    cuts = [suppressed.pair_cut_off(deletions.lives(user), item) for user, item in met.iter_rows()]
    return named.join(met.with_columns(until=pl.Series(cuts, dtype=pl.Int64)), on=["user_id", "item_id"]).filter(
        pl.col("timestamp_s") <= pl.col("until")
    )
