"""Writes a table row group by row group, with one of them in memory at a time.

Finished groups are kept beside, so that a killed stage makes none of them twice, and so that several processes can share the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from e2urec_core.checkpoints import KeptTables
from e2urec_core.engine import Workers

# A dictionary of floats that hardly repeat is larger than the floats, and slower both ways.
HOW = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}


def write_row_groups(
    path: Path,
    schema: pa.Schema,
    groups: Sequence[Callable[[], pa.Table]],
    kept: KeptTables | None,
    workers: Workers,
    told: Callable[[int], None] = lambda rows: None,
) -> None:
    """Write the tables that `groups` make, one row group each, into `path`, whose stem names them among the kept ones.

    Args:
        path: Parquet file to write; only the main process writes it.
        schema: Of every table, with the file's metadata.
        groups: Make the tables; each is called once, by one process.
        kept: Where finished tables lie until the file is whole; needed when several processes share the work.
        workers: The processes.
        told: Told the rows of a table that was there already, or that another process has made.
    """
    made: set[int] = set()

    def table_of(number: int) -> pa.Table:
        table = kept.get(path.stem, number, schema) if kept else None
        if table is None:
            table = groups[number]()
            if kept:
                kept.put(path.stem, number, table)
        elif number not in made:
            told(table.num_rows)
        made.add(number)
        return table

    if workers.world > 1:
        assert kept is not None, "processes share row groups through a folder"
        for number in range(workers.rank, len(groups), workers.world):
            table_of(number)
        workers.wait()
    if workers.is_main:
        with pq.ParquetWriter(path, schema, **{**HOW, "compression": {name: _squeezed(schema, name) for name in schema.names}}) as writer:
            for number in range(len(groups)):
                writer.write_table(table_of(number))
    workers.wait()


def _squeezed(schema: pa.Schema, name: str) -> str:
    # Encoder states are noise to a compressor, and most of the bytes.
    return "none" if pa.types.is_large_binary(schema.field(name).type) else "zstd"
