"""Interactions as numbers: sorted, compared and named again.

Users and items are places in lists of names, so that 25 million rows fit into little memory and are compared as fast as numbers are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from data_contracts.interactions import INTERACTIONS
from e2urec_core.data.deletions import Deletions

if TYPE_CHECKING:
    import polars

ROWS_AT_A_TIME = 500_000


@dataclass
class Rows:
    """Rows, and the names that their numbers stand for.

    Args:
        frame: user, item (UInt32, places in the names), rating, timestamp_s, label.
        users: Names, sorted.
        items: Names, sorted.
    """

    frame: polars.DataFrame
    users: polars.Series
    items: polars.Series

    def leave_out(self, unknown: polars.DataFrame) -> None:
        """Drop the rows of the users and items in `unknown`."""
        import polars as pl

        for what in ("user", "item"):
            places = unknown.filter(pl.col("what") == what)["place"]
            if len(places):
                self.frame = self.frame.filter(~pl.col(what).is_in(places.implode()))


def ranked(column: polars.Series) -> tuple[polars.Series, polars.Series]:
    """The distinct names of a categorical column, sorted, and for each row the place of its name among them (UInt32)."""
    import polars as pl

    distinct = column.unique().drop_nulls()
    codes, names = distinct.to_physical().to_numpy(), distinct.cast(pl.String)
    order = names.arg_sort().to_numpy()
    rank = numpy.zeros(int(codes.max(initial=0)) + 1, dtype=numpy.uint32)
    rank[codes[order]] = numpy.arange(len(order), dtype=numpy.uint32)
    placed = rank[column.to_physical().to_numpy()] if len(column) else numpy.empty(0, numpy.uint32)
    return names.gather(order), pl.Series(column.name, placed, dtype=pl.UInt32)


def without_deleted(rows: Rows, deletions: Deletions) -> tuple[Rows, int]:
    """Drop the rows of deleted users up to the moment of deletion; later rows belong to a new user of another name."""
    import polars as pl

    deletions.refuse_names_in_use(rows.users.to_list())
    moments = deletions.of(rows.users.to_list())
    if not moments:
        return rows, 0
    last = pl.DataFrame(
        {"user": list(moments), "cut": [moment for moment, _, _ in moments.values()]}, schema={"user": pl.UInt32, "cut": pl.Int64}
    )
    joined = rows.frame.join(last, on="user", how="left")
    kept = joined.filter(pl.col("cut").is_null() | (pl.col("timestamp_s") > pl.col("cut"))).drop("cut")
    dropped = rows.frame.height - kept.height
    renamed = {place: name for place, (_, _, name) in moments.items()}
    names = [renamed.get(place, name) for place, name in enumerate(rows.users.to_list())]
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = numpy.empty(len(names), dtype=numpy.uint32)
    rank[order] = numpy.arange(len(names), dtype=numpy.uint32)
    frame = kept.with_columns(user=pl.Series("user", rank[kept["user"].to_numpy()], dtype=pl.UInt32))
    return Rows(frame, pl.Series("user", [names[place] for place in order], dtype=pl.String), rows.items), dropped


def without_repeated(frame: polars.DataFrame) -> tuple[polars.DataFrame, int, int]:
    """The rows in order; of those that share user, item and moment the one of the lowest rating, then of the lower answer, stays.

    Returns:
        The rows; how many were repeated; how many of these differ from the one that stayed.
    """
    import polars as pl

    keys = ["timestamp_s", "user", "item"]
    frame = frame.sort(keys)
    again = frame.select(pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in keys).fill_null(value=False)).to_series()
    count = int(again.sum())
    if not count:
        return frame, 0, 0
    shares = again | again.shift(-1, fill_value=False)
    groups = frame.filter(shares).sort(*keys, "rating", "label", nulls_last=True).group_by(keys, maintain_order=True)
    first = groups.agg(
        pl.col("rating", "label").first(), differs=(pl.struct("rating", "label") != pl.struct("rating", "label").first()).sum()
    )
    kept = pl.concat([frame.filter(~shares), first.select(frame.columns)]).sort(keys)
    return kept, count, int(first["differs"].sum())


def numbered(named: polars.DataFrame) -> Rows:
    """Rows with names, as of a part file, in the order of part files."""
    import polars as pl

    names: dict[str, polars.Series] = {}
    codes: dict[str, polars.Series] = {}
    for what in ("user", "item"):
        column = named[f"{what}_id"].alias(what).cast(pl.Categorical(pl.Categories.random()))
        names[what], codes[what] = ranked(column)
    frame = named.select(pl.Series(codes["user"]), pl.Series(codes["item"]), "rating", "timestamp_s", "label")
    return Rows(frame.sort("timestamp_s", "user", "item"), names["user"], names["item"])


def read_part(path: Path, columns: Sequence[str] | None = None) -> Iterator[polars.DataFrame]:
    """The rows of a part file, some at a time; at least one frame, which may be empty."""
    import polars as pl
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        nothing = pl.DataFrame(file.schema_arrow.empty_table())
        yield nothing.select(columns or nothing.columns)
        for batch in file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=columns):
            yield pl.DataFrame(batch)


def write_part(rows: Rows, path: Path) -> None:
    """Write the rows with names and ids in the place of numbers, some at a time."""
    import pyarrow.parquet as pq

    hashes = [name_hashes(names) for names in (rows.users, rows.items)]
    with pq.ParquetWriter(path, INTERACTIONS.schema(), compression="zstd", write_page_checksum=True, write_statistics=False) as writer:
        for table in _named(rows, hashes):
            writer.write_table(table)


def write_table(table: Any, path: Path) -> None:
    """Write a small table as Parquet, the same bytes for the same rows."""
    import pyarrow.parquet as pq

    # Statistics would put the smallest and largest user id into the footer, where a scan for them must look too.
    pq.write_table(table.combine_chunks(), path, compression="zstd", write_statistics=False, write_page_checksum=True)


def _named(rows: Rows, hashes: list[numpy.ndarray]) -> Iterator[Any]:
    import pyarrow as pa

    names = [pa.array(names.to_arrow()).cast(pa.string()) for names in (rows.users, rows.items)]
    for some in rows.frame.iter_slices(ROWS_AT_A_TIME):
        codes = [some[name].to_numpy() for name in ("user", "item")]
        times = some["timestamp_s"].to_numpy()
        ids = interaction_ids(hashes[0][codes[0]], hashes[1][codes[1]], times)
        columns = {
            "interaction_id": pa.array(ids),
            "user_id": names[0].take(pa.array(codes[0])),
            "item_id": names[1].take(pa.array(codes[1])),
            "rating": some["rating"].to_arrow(),
            "timestamp_s": pa.array(times),
            "label": some["label"].to_arrow(),
        }
        yield pa.table([columns[column.name] for column in INTERACTIONS.columns], schema=INTERACTIONS.schema())


def name_hashes(names: polars.Series) -> numpy.ndarray:
    """64 bits of each name, the same in every process and version."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names.to_list())
    return numpy.frombuffer(digests, dtype="<u8")


def interaction_ids(users: numpy.ndarray, items: numpy.ndarray, timestamps_s: numpy.ndarray) -> numpy.ndarray:
    """One number for each interaction, the same in every run: 63 bits mixed from user, item and moment.

    Two of 25 million interactions share a number with a chance of 1 in 30,000; the contract would notice.

    Args:
        users: Hashes of the users' names, uint64, (row,).
        items: Hashes of the items' names, uint64, (row,).
        timestamps_s: int64, (row,).

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014), applied three times.
    """
    mixed = _mix(timestamps_s.astype(numpy.uint64) + numpy.uint64(0x9E3779B97F4A7C15))
    mixed = _mix(mixed ^ items)
    mixed = _mix(mixed ^ users)
    return (mixed >> numpy.uint64(1)).astype(numpy.int64)


def _mix(bits: numpy.ndarray) -> numpy.ndarray:
    bits = (bits ^ (bits >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> numpy.uint64(31))
