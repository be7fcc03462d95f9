"""The stage `ingest` in a workspace with a suppression list: who is on it does not come back, and only entries change keys."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.places import part_files
from e2urec_core.datasets.sample import Sample
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.suppressions import VARIABLE, open_suppressions

if TYPE_CHECKING:
    from tasks._room import Room

pytestmark = pytest.mark.slow
SOURCE = Sample(num_users=20, ratings_per_user=8)
FAR = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def times_of(folder: Path, user: str) -> list[int]:
    rows = pl.concat(pl.read_parquet(part) for part in part_files(folder))
    return rows.filter(pl.col("user_id") == user)["timestamp_s"].sort().to_list()


def test_who_is_suppressed_does_not_come_back_and_keys_change_with_entries_alone(prefect: None, room: Room) -> None:
    from tasks.ingest import ingest

    def key() -> str:
        return room.journal.record.stages["ingest"].key

    first = ingest(SOURCE, IngestRule())
    without = key()
    ledger = open_ledger(room.workspace / "requests.db")
    assert ingest(SOURCE, IngestRule()) == first
    suppressions = open_suppressions(room.workspace, ledger)
    assert ingest(SOURCE, IngestRule()) == first
    # A ledger and a key alone are no entries.
    assert key() == without

    times = times_of(room.store.open(first), "u4")
    middle = datetime.fromtimestamp(times[len(times) // 2], UTC)
    suppressions.add({"u3": FAR, "u4": middle}, {})
    second = ingest(SOURCE, IngestRule())
    with_entries = key()
    assert with_entries != without
    folder = room.store.open(second)
    every = [value for path in folder.rglob("*.parquet") for row in pl.read_parquet(path).rows() for value in row]
    assert not {"u3", "u4"}.intersection(every)
    assert not any(word in path.read_bytes() for word in (b'"u3"', b"u3 ") for path in folder.rglob("*") if path.is_file())
    assert times_of(folder, "u4#2") == [time for time in times if time > middle.timestamp()]
    told = read_counts(folder)["this_reading"]
    assert told["suppressed"] == first.rows - second.rows == len(times_of(room.store.open(first), "u3")) + len(times) // 2 + 1

    suppressions.add({"u3": FAR}, {})
    assert ingest(SOURCE, IngestRule()) == second
    assert key() == with_entries
    suppressions.add({}, {("u5", "f1"): FAR})
    ingest(SOURCE, IngestRule())
    assert key() not in (with_entries, without)


def test_an_append_to_what_was_stored_before_takes_the_suppressed_out(prefect: None, room: Room) -> None:
    from tasks.ingest import ingest

    first = ingest(SOURCE, IngestRule())
    open_suppressions(room.workspace, open_ledger(room.workspace / "requests.db")).add({"u3": FAR}, {})
    second = ingest(SOURCE, IngestRule(onto=first.digest), first)
    assert second.rows == first.rows - len(times_of(room.store.open(first), "u3"))
    assert not times_of(room.store.open(second), "u3")
