"""Turns ratings into prompts: who the user is, what they watched and how they liked it, and the film in question.

The history of a row is the user's ratings before it in time order. Ratings of one second are ordered by item id: many sources stamp
a whole session with one second, so without a rule "the last ten" would depend on the order of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from e2urec_core.errors import BadInput
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    import polars

    from e2urec_core.datasets.base import Tables


class PromptRule(Settings):
    """How a rating becomes a prompt with a label."""

    template: Literal["reference", "short"] = "reference"
    """`reference`: profile, titles with stars, the candidate; `short`: titles the user liked or saw and the candidate, as in the paper."""
    history_length: int = Field(10, ge=1, le=200)
    """Latest earlier ratings shown. Reference: K = 10."""
    min_history: int = Field(5, ge=1, le=200)
    """Earlier ratings a row must have to become an example. Reference: 5."""
    like_above: float = Field(3.0, ge=0)
    """A rating above this is a Yes, in stars."""


def build_prompts(tables: Tables, rule: PromptRule) -> polars.DataFrame:
    """One row for each rating with enough history, in time order.

    Args:
        tables: Ratings, items and users, `ordered`.
        rule: Template and lengths.

    Returns:
        example_id (Int64, counts up in time order), user_id, item_id, timestamp_s, rating, prompt, label (Int8).

    Raises:
        BadInput: No user has enough ratings.
    """
    import polars as pl

    starred = rule.template == "reference"
    event = pl.format("{} ({}*)", "title", pl.col("rating").round(1).cast(pl.String).str.strip_suffix(".0")) if starred else pl.col("title")
    rows = (
        tables.interactions.lazy()
        .join(tables.items.lazy(), on="item_id", how="left")
        .join(tables.users.lazy().select("user_id", "profile"), on="user_id", how="left")
        .sort("user_id", "timestamp_s", "item_id")
        .with_columns(event.alias("event"), pl.int_range(pl.len()).over("user_id").alias("num_earlier"))
        .with_columns(
            pl.concat_str(
                [pl.col("event").shift(back).over("user_id") for back in range(rule.history_length, 0, -1)],
                separator=", ",
                ignore_nulls=True,
            ).alias("history")
        )
        .filter(pl.col("num_earlier") >= rule.min_history)
        .with_columns(
            _text(rule).alias("prompt"),
            (pl.col("rating") > rule.like_above).cast(pl.Int8).alias("label"),
        )
        .sort("timestamp_s", "user_id", "item_id")
        .with_row_index("example_id")
        .select(pl.col("example_id").cast(pl.Int64), "user_id", "item_id", "timestamp_s", "rating", "prompt", "label")
        .collect()
    )
    if rows.is_empty():
        raise BadInput(
            f"none of {tables.users.height:,} users has more than {rule.min_history} ratings, so there is nothing to predict",
            hint="lower `--prompt.min-history` or bring more ratings",
        )
    return rows


def _text(rule: PromptRule) -> polars.Expr:
    import polars as pl

    if rule.template == "short":
        return pl.format("The user watched, oldest first: {}. Will the user like {}?", "history", "title")
    profile = pl.when(pl.col("profile").is_null()).then(pl.lit("")).otherwise(pl.col("profile") + " ")
    return pl.format("{}Watched so far, oldest first: {}. Will the user like {}? Answer Yes or No:", profile, "history", "title")
