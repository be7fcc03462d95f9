"""Row groups one by one: each is made once, whichever process makes it, and the file is the same however many there were."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2urec_core.checkpoints import KeptTables
from e2urec_core.data.streaming import write_row_groups

SCHEMA = pa.schema([pa.field("number", pa.int64(), nullable=False)], metadata={b"made": b"here"})


def process(rank: int = 0, world: int = 1) -> Any:
    return SimpleNamespace(rank=rank, world=world, is_main=rank == 0, wait=lambda: None)


def groups(made: list[int], count: int = 5) -> list[Callable[[], pa.Table]]:
    """Group n holds n + 1 rows of its number; each call is noted."""

    def make(number: int) -> pa.Table:
        made.append(number)
        return pa.table({"number": [number] * (number + 1)}, schema=SCHEMA)

    return [partial(make, number) for number in range(count)]


def test_every_group_is_made_once_and_is_a_row_group_of_the_file(tmp_path: Path) -> None:
    made: list[int] = []
    write_row_groups(tmp_path / "rows.parquet", SCHEMA, groups(made), None, process())
    file = pq.ParquetFile(tmp_path / "rows.parquet")
    assert made == [0, 1, 2, 3, 4]
    assert [file.read_row_group(number)["number"].to_pylist() for number in range(5)] == [[n] * (n + 1) for n in range(5)]
    assert file.schema_arrow.metadata[b"made"] == b"here"


def test_processes_share_the_groups_and_the_main_one_alone_writes_the_same_file(tmp_path: Path) -> None:
    kept, shares = KeptTables(tmp_path / "kept"), {}
    # The others come first here: where they run at once, the main process waits for them.
    for rank in (2, 1, 0):
        shares[rank] = []
        write_row_groups(tmp_path / "rows.parquet", SCHEMA, groups(shares[rank]), kept, process(rank, 3))
        assert (tmp_path / "rows.parquet").exists() == (rank == 0)
    assert shares == {0: [0, 3], 1: [1, 4], 2: [2]}
    write_row_groups(tmp_path / "alone.parquet", SCHEMA, groups([]), None, process())
    assert (tmp_path / "rows.parquet").read_bytes() == (tmp_path / "alone.parquet").read_bytes()


def test_groups_that_lie_kept_are_not_made_again_and_damaged_ones_are(tmp_path: Path) -> None:
    kept, made = KeptTables(tmp_path / "kept"), []
    write_row_groups(tmp_path / "rows.parquet", SCHEMA, groups([]), kept, process())
    (damaged,) = (tmp_path / "kept").glob("rows-000003-*")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    write_row_groups(tmp_path / "rows.parquet", SCHEMA, groups(made), kept, process())
    assert made == [3]


def test_files_of_other_names_do_not_share_what_is_kept(tmp_path: Path) -> None:
    kept, made = KeptTables(tmp_path / "kept"), []
    write_row_groups(tmp_path / "rows.parquet", SCHEMA, groups([]), kept, process())
    write_row_groups(tmp_path / "others.parquet", SCHEMA, groups(made), kept, process())
    assert made == [0, 1, 2, 3, 4]


def test_a_table_of_no_groups_is_an_empty_file_of_its_schema(tmp_path: Path) -> None:
    write_row_groups(tmp_path / "rows.parquet", SCHEMA, [], None, process())
    assert pq.read_table(tmp_path / "rows.parquet").equals(SCHEMA.empty_table())


def test_several_processes_without_a_folder_to_share_are_our_own_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="through a folder"):
        write_row_groups(tmp_path / "rows.parquet", SCHEMA, groups([]), None, process(0, 2))


def test_rows_that_were_made_before_or_elsewhere_are_told_and_own_ones_are_left_to_their_makers(tmp_path: Path) -> None:
    kept, told = KeptTables(tmp_path / "kept"), {0: [], 1: []}
    write_row_groups(tmp_path / "rows.parquet", SCHEMA, groups([]), kept, process(1, 2), told[1].append)
    write_row_groups(tmp_path / "rows.parquet", SCHEMA, groups([]), kept, process(0, 2), told[0].append)
    assert told == {0: [2, 4], 1: []}
    again: list[int] = []
    write_row_groups(tmp_path / "rows.parquet", SCHEMA, groups([]), kept, process(), again.append)
    assert again == [1, 2, 3, 4, 5]
