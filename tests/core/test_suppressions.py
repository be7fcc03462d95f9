"""The suppression list in the ledger: what is kept of whom, that nothing of it goes, and that nobody can be read from it."""

from __future__ import annotations

import hashlib
import hmac
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import child, ended
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from e2urec_core.data.suppressed import Marks, Suppressed
from e2urec_core.errors import BadKey, DamagedLedger
from e2urec_core.failpoints import VARIABLE as FAILPOINT
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.requests import Requests
from e2urec_core.ledger.suppressions import FILE, VARIABLE, Suppressions, open_suppressions, suppressed_in

MARKS = Marks(bytes(range(32)))
EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def ledger(place: Path | str) -> Ledger:
    return open_ledger(place)


@pytest.fixture
def suppressions(ledger: Ledger) -> Suppressions:
    return Suppressions(ledger, MARKS)


def test_a_mark_is_an_hmac_of_the_name() -> None:
    assert MARKS.of_user("90417") == hmac.new(bytes(range(32)), b"user:90417", hashlib.sha256).hexdigest()
    assert MARKS.of_pair("7", "mug") == hmac.new(bytes(range(32)), b'interaction:["7","mug"]', hashlib.sha256).hexdigest()


def test_entries_come_back_and_the_same_again_changes_nothing(ledger: Ledger, suppressions: Suppressions) -> None:
    assert suppressions.entries() == Suppressed(marks=MARKS)
    given = {"7": EARLY, "8": EARLY + timedelta(seconds=1.9)}, {("7", "mug"): LATE, ("9", "mug"): EARLY}
    assert suppressions.add(*given) == 4
    head, told = ledger.head(), suppressions.entries()
    # A moment within a second takes that second's rows along.
    seconds = int(EARLY.timestamp())
    assert told.users == {MARKS.of_user("7"): seconds, MARKS.of_user("8"): seconds + 1}
    assert told.pairs == {
        MARKS.of_user("7"): {MARKS.of_pair("7", "mug"): int(LATE.timestamp())},
        MARKS.of_user("9"): {MARKS.of_pair("9", "mug"): seconds},
    }
    assert (suppressions.add(*given), suppressions.add({}, {})) == (0, 0)
    assert ledger.head() == head
    assert Requests(ledger).verify() == head


def test_the_later_moment_wins_whatever_the_order(ledger: Ledger, suppressions: Suppressions) -> None:
    assert [suppressions.add({"7": until}, {("7", "mug"): until}) for until in (LATE, EARLY, LATE + timedelta(days=1))] == [2, 0, 2]
    until = int((LATE + timedelta(days=1)).timestamp())
    assert suppressions.entries().users == {MARKS.of_user("7"): until}
    assert suppressions.entries().pairs == {MARKS.of_user("7"): {MARKS.of_pair("7", "mug"): until}}
    Requests(ledger).verify()


def test_each_changed_entry_has_its_event_and_neither_events_nor_rows_hold_a_name(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "requests.db")
    Suppressions(ledger, MARKS).add({"identifier-90417": EARLY}, {("identifier-90418", "item-12345"): EARLY})
    told = [(event.event, event.subject) for event in ledger.events()]
    assert sorted(told) == sorted(("suppression kept", MARKS.of_user(f"identifier-{number}")) for number in (90417, 90418))
    raw = (tmp_path / "requests.db").read_bytes()
    assert not any(name in raw for name in (b"identifier", b"90417", b"90418", b"item-12345"))


def test_a_moment_after_2038_fits_in_both_databases(suppressions: Suppressions) -> None:
    far = datetime(2099, 12, 31, tzinfo=UTC)
    suppressions.add({"7": far}, {})
    assert suppressions.entries().users == {MARKS.of_user("7"): int(far.timestamp())}


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM suppressions WHERE item_mark = ''",
        "DELETE FROM suppressions",
        "UPDATE suppressions SET until_s = until_s - 1",
        "UPDATE suppressions SET user_mark = 'f' || substr(user_mark, 2) WHERE item_mark <> ''",
        f"INSERT INTO suppressions VALUES ('{'0' * 64}', '', 5)",
    ],
)
def test_a_row_that_is_not_what_the_history_says_is_found(ledger: Ledger, suppressions: Suppressions, change: str) -> None:
    suppressions.add({"7": EARLY}, {("8", "mug"): EARLY})
    Requests(ledger).verify()
    with ledger.writing() as connection:
        on = " ON suppressions" if connection.dialect.name == "postgresql" else ""
        trigger = "suppressions_refuse_removal" if on else "suppressions_refuse_delete"
        connection.execute(text(f"DROP TRIGGER {trigger}{on}"))
        connection.execute(text(change))
    with pytest.raises(DamagedLedger, match="`suppressions`"):
        Requests(ledger).verify()


def test_the_database_refuses_to_remove_a_row(ledger: Ledger, suppressions: Suppressions) -> None:
    suppressions.add({"7": EARLY}, {})
    with pytest.raises(DBAPIError, match="rows of suppressions stay"), ledger.writing() as connection:
        connection.execute(text("DELETE FROM suppressions"))
    assert len(suppressions.entries().users) == 1


def test_the_digest_follows_every_entry_and_the_key_and_is_empty_without_entries() -> None:
    def digest(users: dict[str, int], pairs: dict[str, dict[str, int]], key: int = 0) -> str:
        return Suppressed(users, pairs, Marks(bytes([key] * 32))).digest

    assert digest({}, {}) == Suppressed().digest == ""
    told = [digest({"a": 1}, {}), digest({"a": 2}, {}), digest({"b": 1}, {}), digest({}, {"a": {"b": 1}}), digest({"a": 1}, {}, 1)]
    assert len(set(told)) == len(told)
    assert digest({"a": 1, "b": 2}, {}) == digest({"b": 2, "a": 1}, {})


def test_a_list_of_marks_without_a_key_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="compared by their key"):
        Suppressed({"a": 1})


@given(st.dictionaries(st.text("ab#2", min_size=1), st.integers(0, 5)), st.lists(st.text("ab#2", min_size=1)))
def test_cut_offs_are_those_of_the_users_on_the_list(entries: dict[str, int], users: list[str]) -> None:
    told = Suppressed({MARKS.of_user(user): until for user, until in entries.items()}, {}, MARKS).user_cut_offs(users)
    assert told == {place: entries[user] for place, user in enumerate(users) if user in entries}


def test_the_key_is_drawn_once_and_another_one_is_refused(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "requests.db")
    first = open_suppressions(tmp_path, ledger)
    first.add({"7": EARLY}, {})
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert open_suppressions(tmp_path, ledger).add({"7": EARLY}, {}) == 0
    key = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).unlink()
    with pytest.raises(BadKey, match="the key of the suppression list is missing, and the ledger holds suppression marks"):
        suppressed_in(tmp_path)
    (tmp_path / FILE).write_bytes(bytes(32))
    (tmp_path / FILE).chmod(0o600)
    with pytest.raises(BadKey, match="is not the one that the ledger's suppression marks were made with"):
        suppressed_in(tmp_path)
    (tmp_path / FILE).write_bytes(key)
    assert suppressed_in(tmp_path).user_cut_offs(["6", "7"]) == {1: int(EARLY.timestamp())}


def test_the_key_is_not_that_of_the_pseudonyms(tmp_path: Path) -> None:
    from e2urec_core.pseudonyms import open_pseudonyms

    ledger = open_ledger(tmp_path / "requests.db")
    names = open_pseudonyms(tmp_path, ledger)
    open_suppressions(tmp_path, ledger).add({"7": EARLY}, {})
    assert names.of_user("7") not in "".join(suppressed_in(tmp_path).users)


def test_a_workspace_without_a_ledger_or_without_entries_has_an_empty_list_and_gets_neither_ledger_nor_key(tmp_path: Path) -> None:
    assert suppressed_in(tmp_path) == Suppressed()
    assert list(tmp_path.iterdir()) == []
    open_ledger(tmp_path / "requests.db")
    assert suppressed_in(tmp_path) == Suppressed()
    assert not (tmp_path / "keys").exists()


def test_a_key_without_its_ledger_is_no_empty_list(tmp_path: Path) -> None:
    open_suppressions(tmp_path, open_ledger(tmp_path / "requests.db")).add({"7": EARLY}, {})
    (tmp_path / "requests.db").unlink()
    with pytest.raises(DamagedLedger, match="has the key of a suppression list, and its ledger is gone"):
        suppressed_in(tmp_path)


@pytest.mark.parametrize("name", ["ledger.begin", "ledger.commit", "ledger.committed"])
def test_a_kill_leaves_all_entries_or_none_and_the_same_again_completes_them(tmp_path: Path, name: str) -> None:
    ledger = open_ledger(tmp_path / "requests.db")
    users = {str(number): EARLY for number in range(20)}

    def add() -> None:
        Suppressions(open_ledger(tmp_path / "requests.db"), MARKS).add(users, {})

    assert ended(child(add, **{FAILPOINT: f"{name}:1:kill"})) == -signal.SIGKILL
    there = len(Suppressions(ledger, MARKS).entries().users)
    assert there == (20 if name == "ledger.committed" else 0)
    assert Suppressions(ledger, MARKS).add(users, {}) == 20 - there
    Requests(ledger).verify()
