"""The ledger's history: a chain of sealed events that refuses changes, and shows those that were made all the same."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from ledgers import champion, digest, registered, releases_at
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from e2urec_core.artifacts import digest_of
from e2urec_core.errors import DamagedLedger, StorageFailed
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.records import Head

COLUMNS = ("seq", "at", "event", "subject", "facts", "previous", "hash")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a ledger with seven events."""
    path = tmp_path / "requests.db"
    releases = releases_at(path)
    champion(releases, 1)
    champion(releases, 2, forgotten=[1])
    registered(releases, 3)
    with sqlite3.connect(path) as connection:
        for trigger in ("events_refuse_update", "events_refuse_delete"):
            connection.execute(f"DROP TRIGGER {trigger}")
    connection.close()
    return path


def edited(path: Path, *statements: str) -> Ledger:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0
    connection.close()
    return open_ledger(path)


def test_every_event_is_sealed_with_the_one_before_it(place: Path | str) -> None:
    releases = releases_at(place)
    champion(releases, 1)
    ledger = open_ledger(place)
    events = ledger.events()
    assert [event.event for event in events] == ["release added", "release registered", "champion changed"]
    assert [event.seq for event in events] == [1, 2, 3]
    assert [event.previous for event in events] == ["0" * 64, events[0].hash, events[1].hash]
    for event in events:
        assert event.hash == digest_of(event.model_dump(exclude={"hash"}))
    assert ledger.verify() == ledger.head() == Head(seq=3, hash=events[-1].hash)


def test_an_empty_history_verifies(place: Path | str) -> None:
    assert open_ledger(place).verify() == Head(seq=0, hash="0" * 64)


@pytest.mark.parametrize("table", ["events", "promotions"])
@pytest.mark.parametrize("change", ["UPDATE {} SET at = 'never'", "DELETE FROM {}"])
def test_the_database_refuses_to_change_what_is_append_only(place: Path | str, table: str, change: str) -> None:
    champion(releases_at(place), 1)
    ledger = open_ledger(place)
    with pytest.raises(DBAPIError, match=f"{table} is append-only"), ledger.writing() as connection:
        connection.execute(text(change.format(table)))
    assert ledger.verify().seq == 3


def test_every_changed_byte_of_every_event_is_found(file: Path) -> None:
    intact = file.read_bytes()
    rows = [event.model_dump() for event in open_ledger(file).events()]
    assert len(rows) == 8
    tried = 0
    for row in rows:
        for column in COLUMNS[1:]:
            for at in {0, len(row[column]) // 2, len(row[column]) - 1}:
                flipped = row[column][:at] + chr(ord(row[column][at]) ^ 1) + row[column][at + 1 :]
                ledger = edited(file, f"UPDATE events SET {column} = '{flipped.replace(chr(39), chr(39) * 2)}' WHERE seq = {row['seq']}")
                with pytest.raises(DamagedLedger, match=rf"event {row['seq']} .*(is not what was written|does not follow)"):
                    ledger.verify()
                file.write_bytes(intact)
                tried += 1
    assert tried >= 100


@pytest.mark.parametrize("value", ["x'00ff'", "7", "CAST(x'ff' AS TEXT)", "''"])
def test_an_event_whose_facts_became_something_else_is_found(file: Path, value: str) -> None:
    with pytest.raises(DamagedLedger):
        edited(file, f"UPDATE events SET facts = {value} WHERE seq = 4").verify()


@pytest.mark.parametrize("seq", range(1, 9))
def test_every_dropped_event_is_named(file: Path, seq: int) -> None:
    with pytest.raises(DamagedLedger, match=f"event {seq} .* is missing"):
        edited(file, f"DELETE FROM events WHERE seq = {seq}").verify()


@pytest.mark.parametrize("kept", range(8))
def test_a_history_that_was_cut_off_is_found_by_the_head(file: Path, kept: int) -> None:
    with pytest.raises(DamagedLedger, match=f"event {kept + 1} .* is missing: the last event is {kept}, the head says 8"):
        edited(file, f"DELETE FROM events WHERE seq > {kept}").verify()


@pytest.mark.parametrize(("one", "other"), [(1, 2), (3, 7), (7, 8)])
def test_events_that_changed_places_are_found(file: Path, one: int, other: int) -> None:
    swap = [f"UPDATE events SET seq = {new} WHERE seq = {old}" for old, new in ((one, 99), (other, one), (99, other))]
    with pytest.raises(DamagedLedger, match=f"event {one} "):
        edited(file, *swap).verify()


@pytest.mark.parametrize(
    "change", ["DELETE FROM heads", "UPDATE heads SET seq = 7", "UPDATE heads SET hash = 'x'", "UPDATE heads SET seq = -1"]
)
def test_a_head_that_was_changed_is_found(file: Path, change: str) -> None:
    with pytest.raises(DamagedLedger, match="head"):
        edited(file, change).verify()


def test_an_older_ledger_in_its_place_is_found_by_a_head_that_was_kept_elsewhere(file: Path) -> None:
    older = file.read_bytes()
    before = open_ledger(file).head()
    registered(releases_at(file), 4)
    known = open_ledger(file).verify(before)
    assert open_ledger(file).verify(known) == known
    file.write_bytes(older)
    assert open_ledger(file).verify() == before
    with pytest.raises(DamagedLedger, match=r"event 9 .* is missing: it was seen before"):
        open_ledger(file).verify(known)
    registered(releases_at(file), 5)
    with pytest.raises(DamagedLedger, match=r"event 10 .* is not the one that was seen before"):
        open_ledger(file).verify(known)


def test_a_clock_that_goes_backwards_or_lives_elsewhere_does_not_disorder_the_history(place: Path | str) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    times = iter([noon, noon - timedelta(days=400), (noon - timedelta(hours=1)).astimezone(timezone(timedelta(hours=9)))])
    ledger = open_ledger(place, clock=lambda: next(times))
    for name in "abc":
        with ledger.writing() as connection:
            ledger.append(connection, "told", name, {})
    assert [event.subject for event in ledger.events()] == ["a", "b", "c"]
    assert [event.at[:13] for event in ledger.events()] == ["2026-03-01T12", "2025-01-25T12", "2026-03-01T11"]
    assert ledger.verify().seq == 3


@pytest.mark.parametrize(("raised", "told"), [(KeyError("no"), KeyError), (OSError("no"), StorageFailed)])
def test_what_is_raised_in_a_transaction_undoes_all_of_it(place: Path | str, raised: Exception, told: type[Exception]) -> None:
    ledger = open_ledger(place)
    with pytest.raises(told, match="no"), ledger.writing() as connection:
        ledger.append(connection, "told", "a", {})
        raise raised
    assert ledger.events() == []
    assert ledger.verify().seq == 0


def test_the_first_fingerprint_stays(place: Path | str) -> None:
    ledger = open_ledger(place)
    assert ledger.fingerprint("key") is None
    assert ledger.keep_fingerprint("key", digest(1)) == digest(1)
    assert ledger.keep_fingerprint("key", digest(2)) == ledger.fingerprint("key") == digest(1)
    assert len(ledger.events()) == 1
