"""Reads moments: numbers in seconds or finer units, and dates in text; whole seconds since 1970 come out, UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars

NEWEST_S = 4_102_444_800
"""2100-01-01 00:00:00 UTC: the contract's, written out because a dataset is imported for its help without Arrow."""
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DATE = r"^(\d{4})[-/](\d{2})[-/](\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(?:[.,]\d+)?)? ?(?:Z|z|UTC|([+-]\d{2}):?(\d{2})?)?$"


def seconds_of_dates(text: polars.Expr) -> polars.Expr:
    """Whole seconds since 1970 of dates such as `2026-01-31`, `2026-01-31 12:00:00.5` or `2026-01-31T12:00:00+01:00`; else missing.

    A date without a time is its midnight, and one without a zone is UTC. Each text is read for itself, whatever stands around it.
    """
    import polars as pl

    parts = text.str.strip_chars().str.extract_groups(DATE).struct
    year, month, day, clock, second, hours, minutes = (parts.field(str(number)) for number in range(1, 8))
    date = pl.concat_str(year, month, day, separator="-")
    zone = pl.concat_str(hours.fill_null("+00"), minutes.fill_null("00"))
    whole = pl.concat_str(date, pl.lit(" "), clock.fill_null("00:00"), second.fill_null(":00"), zone)
    return whole.str.to_datetime("%Y-%m-%d %H:%M:%S%z", time_unit="us", strict=False).dt.timestamp("us").floordiv(10**6)


def seconds_of_numbers(column: polars.Expr, kind: polars.DataType, unit: str) -> polars.Expr:
    """Whole seconds since 1970 of numbers, or of numbers in text, in this unit; rounded down; missing where there is no number."""
    import polars as pl

    # Whole numbers are read as such: a 64-bit float would lose digits of nanoseconds.
    floored = _number(column, kind).floor().cast(pl.Int64, strict=False)
    if kind.is_integer():
        floored = column.cast(pl.Int64, strict=False)
    elif not kind.is_numeric():
        floored = pl.coalesce(column.str.strip_chars().cast(pl.Int64, strict=False), floored)
    return floored.floordiv(UNITS[unit])


def unit_of(rows: polars.LazyFrame, column: polars.Expr, kind: polars.DataType) -> str:
    """Unit of the table's median moment, counted so that the order of rows does not matter; `iso` where most are no numbers."""
    import polars as pl

    number = _number(column, kind)
    size = number.filter(number.is_finite()).abs()
    counts = {name: (size <= NEWEST_S * in_a_second).sum() for name, in_a_second in UNITS.items()}
    told = rows.select(total=column.count(), finite=size.len(), **counts).collect(engine="streaming").row(0, named=True)
    if told["finite"] * 2 < told["total"] or (not told["finite"] and kind == pl.String):
        return "iso"
    return next((name for name in UNITS if told[name] * 2 >= told["finite"]), "ns")


def _number(column: polars.Expr, kind: polars.DataType) -> polars.Expr:
    import polars as pl

    return column.cast(pl.Float64) if kind.is_numeric() else column.str.strip_chars().cast(pl.Float64, strict=False)
