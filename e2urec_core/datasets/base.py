"""A dataset is a frozen class that opens its own files as rows with verdicts; everything after that is the same for all.

One new dataset = one new file in this folder. It says what each row means in the columns of `data_contracts` and which rows break a
rule of its format; it refuses a source that is no such table at all, and knows nothing of prompts or splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from e2urec_core.settings import Plugin

if TYPE_CHECKING:
    import polars

RULE = "rule"
RAW = {"user_id": "raw_user", "item_id": "raw_item", "rating": "raw_rating", "timestamp_s": "raw_time"}
"""Columns of a source that keep what stood in the file, as text, for rows that are put aside."""


@dataclass(frozen=True)
class Source:
    """What a dataset gives.

    Args:
        rows: One row an interaction, in any order. user_id, item_id (String), rating (Float32, missing where there are none),
            timestamp_s (Int64, seconds since 1970, UTC), label (Int8, 1 where the user liked the item); `rule` (String: the first rule
            that the row breaks, or missing), `file` and `line` where it stood, and the columns of `RAW`.
        items: item_id, title (String), one row an item; None where ids stand for titles.
        users: user_id, profile (String or null: a sentence about the user), cohort (String or null: a group that a request may name,
            such as users whose data was polluted), one row a user; None where the source tells nothing of its users.
        hints: What to do about each rule that rows may break; `rule` holds no other names but those of `left_out`.
        left_out: Names in `rule` that are no fault: such rows are counted and go no further, such as books that nobody rated.
        users_are_all: Whether a row of a user whom `users` does not list breaks a rule.
        remarks: What a person should know of how the source was read.
        files: The files that are read, so that a message can name the one that is damaged.
    """

    rows: polars.LazyFrame
    items: polars.LazyFrame | None
    users: polars.LazyFrame | None
    hints: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    users_are_all: bool = False
    remarks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Dataset(Plugin):
    """Settings of one source of interactions."""

    package: ClassVar[str] = "e2urec_core.datasets"
    licence: ClassVar[str] = ""
    source: ClassVar[str] = ""
    expected: ClassVar[Mapping[str, int]] = {}
    """Published counts of the whole source: `rows`, `users`, `items`."""
    checksums: ClassVar[Mapping[str, str]] = {}
    """Published checksums, by the name of the file that they are of."""

    like_above: float = Field(3.0, ge=0)
    """A rating above this is a Yes, on the dataset's own scale."""

    def scan(self) -> Source:
        """Open the source; rows are read when they are collected.

        Raises:
            BadInput: A file or column is not what the format says.
        """
        raise AssertionError(f"{type(self).__name__} does not read")

    def spelled(self, user: polars.Expr) -> polars.Expr:
        """A user's id, from a list of users such as that of deleted ones, in the spelling of `scan`."""
        return user

    def fingerprint(self) -> str:
        """Digest of what `scan` depends on beside the settings: the bytes of the source files, or the empty text."""
        return ""


def first_broken(rules: Mapping[str, polars.Expr]) -> polars.Expr:
    """The name of the first rule that a row breaks, or missing; a rule that cannot be judged counts as kept."""
    import polars as pl

    return pl.coalesce([pl.when(broken).then(pl.lit(name)) for name, broken in rules.items()]).alias(RULE)


def clean_title(column: str) -> polars.Expr:
    """Text as a prompt may hold it: composed (NFC), without control, formatting or direction characters, single spaces, trimmed.

    Formatting characters (zero-width ones, direction overrides) go without a trace; line breaks and tabs become spaces.
    """
    import polars as pl

    text = pl.col(column).str.normalize("NFC").str.replace_all(r"[\p{Cf}\p{Co}\p{Cn}]", "")
    return text.str.replace_all(r"[\p{Cc}\p{Z}\s]+", " ").str.strip_chars()


def canonical_id(column: str, kind: polars.DataType) -> polars.Expr:
    """An id as text: trimmed; whole numbers without a point, so that `12.0` of a table with missing values is `12`; empty is missing."""
    import polars as pl

    raw = pl.col(column)
    if kind.is_float():
        whole = raw.is_finite() & (raw == raw.floor()) & (raw.abs() < 2**53)
        return pl.when(whole).then(raw.cast(pl.Int64, strict=False).cast(pl.String))
    if kind.is_decimal():
        digits = raw.cast(pl.String).str.replace(r"\.0+$", "")
        return pl.when(~digits.str.contains(".", literal=True)).then(digits)
    text = raw.cast(pl.String).str.strip_chars()
    return pl.when(text.str.len_bytes() > 0).then(text)


def as_text(column: str) -> polars.Expr:
    """What stands in a column, as text."""
    import polars as pl

    return pl.col(column).cast(pl.String)


def newest_text(column: str) -> polars.Expr:
    """The newest text that is not blank, and of those of one second the last in the alphabet; missing where there is none."""
    import polars as pl

    said = pl.col(column).str.contains(r"\S").fill_null(value=False)
    return pl.col(column).filter(said).sort_by(pl.col("timestamp_s").filter(said), pl.col(column).filter(said)).last()
