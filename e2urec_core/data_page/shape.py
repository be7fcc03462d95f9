"""How rows are spread over time, ratings and users: counts alone, whoever they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from e2urec_core.data.places import part_files

if TYPE_CHECKING:
    import pyarrow as pa

MOST_BARS = 120
MOST_RATINGS = 20
QUANTILES = {"least": 0.0, "10 %": 0.1, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "90 %": 0.9, "99 %": 0.99, "most": 1.0}
NO_RATING = "none"


@dataclass(frozen=True)
class Bars:
    """Counts side by side.

    Args:
        each: What one bar is, such as `month`.
        labels: Of the bars, in order.
        counts: Rows of each bar.
    """

    each: str
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def highest(self) -> int:
        """Rows of the highest bar."""
        return max(self.counts, default=0)


@dataclass(frozen=True)
class Shape:
    """Of the rows that are kept.

    Args:
        by_time: Rows of each day, month or year.
        by_rating: Rows of each rating, or of each of a few ranges.
        rows_per_user: Quantiles by name, whole numbers.
        num_users: Users with a row.
    """

    by_time: Bars
    by_rating: Bars
    rows_per_user: dict[str, int]
    num_users: int


def shape_of(place: Path) -> Shape:
    """The shape of stored interactions."""
    numbers = _columns(place, ["timestamp_s", "rating"])
    counts = rows_of_users(place).column("rows").to_numpy()
    quantiles = {name: int(numpy.quantile(counts, share, method="inverted_cdf")) for name, share in QUANTILES.items()}
    times = numbers.column("timestamp_s").to_numpy()
    return Shape(over_time(times), over_ratings(numbers.column("rating")), quantiles, len(counts))


def rows_of_users(place: Path) -> pa.Table:
    """user_id and rows of every user of stored interactions, most rows first, then by id."""
    grouped = _columns(place, ["user_id"]).group_by("user_id").aggregate([([], "count_all")])
    return grouped.rename_columns(["user_id", "rows"]).sort_by([("rows", "descending"), ("user_id", "ascending")])


def over_time(seconds: numpy.ndarray) -> Bars:
    """Rows of each day, month or year (UTC), whichever gives a few bars first; times without a row count 0.

    Args:
        seconds: Since 1970, int64, at least one.
    """
    moments = seconds.astype("datetime64[s]")
    for each, unit in (("day", "D"), ("month", "M"), ("year", "Y")):
        number = moments.astype(f"datetime64[{unit}]").astype(numpy.int64)
        first, last = int(number.min()), int(number.max())
        if last - first < MOST_BARS or each == "year":
            break
    labels = tuple(str(label) for label in numpy.arange(first, last + 1).astype(f"datetime64[{unit}]"))
    return Bars(each, labels, _plain(numpy.bincount(number - first, minlength=last - first + 1)))


def over_ratings(ratings: pa.ChunkedArray) -> Bars:
    """Rows of each rating; of equal ranges where there are many ratings."""
    import pyarrow.compute as pc

    missing, there = ratings.null_count, ratings.drop_null()
    none = ((NO_RATING,), (missing,)) if missing else ((), ())
    distinct = pc.unique(there)
    if len(distinct) <= MOST_RATINGS:
        counted = sorted((entry["values"], entry["counts"]) for entry in pc.value_counts(there).to_pylist())
        bars = Bars("rating", tuple(f"{value:g}" for value, _ in counted), tuple(count for _, count in counted))
    else:
        counts, edges = numpy.histogram(there.to_numpy(), bins=MOST_RATINGS)
        bars = Bars("range of ratings", tuple(f"{low:g} to {high:g}" for low, high in _pairs(edges)), _plain(counts))
    return Bars(bars.each, bars.labels + none[0], bars.counts + none[1])


def _pairs(edges: numpy.ndarray) -> list[tuple[float, float]]:
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _plain(counts: numpy.ndarray) -> tuple[int, ...]:
    return tuple(int(count) for count in counts)


def _columns(place: Path, names: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.concat_tables(pq.read_table(part, columns=list(names)) for part in part_files(place))
