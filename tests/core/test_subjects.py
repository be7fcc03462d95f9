"""Subjects: the history of releases names people by random numbers, and whose these are can be forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledgers import digest, release, releases_at, subject
from sqlalchemy import text

from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.schema import VERSION_TABLE
from e2urec_core.ledger.subjects import Subjects
from e2urec_core.pseudonyms import Pseudonyms

NAMES = Pseudonyms(bytes(range(32)))


@pytest.fixture
def ledger(place: Path | str) -> Ledger:
    return open_ledger(place)


def test_everybody_keeps_a_random_subject(ledger: Ledger) -> None:
    subjects = Subjects(ledger, NAMES)
    first = subjects.of(["7", "8"], [("9", "mug")])
    assert len(set(first)) == 3
    assert subjects.of({"8", "7"}, {("9", "mug")}) == first
    marks = {NAMES.of_user("7"), NAMES.of_user("8"), NAMES.of_interaction("9", "mug")}
    assert subjects.by_mark().keys() == marks
    assert not marks & {*first}
    assert subjects.of([], []) == []


def test_subjects_do_not_follow_from_the_key(tmp_path: Path) -> None:
    one, other = (Subjects(open_ledger(tmp_path / f"{name}.db"), NAMES) for name in ("one", "other"))
    assert one.of(["7"], []) != other.of(["7"], [])


def test_those_who_are_purged_can_no_longer_be_told(ledger: Ledger) -> None:
    subjects = Subjects(ledger, NAMES)
    asked = ["7", "8"], [("7", "mug"), ("9", "mug"), ("9", "cup")]
    before = subjects.of(*asked)
    assert subjects.erase(["7"], [("9", "cup")]) == 3
    assert subjects.by_mark().keys() == {NAMES.of_user("8"), NAMES.of_interaction("9", "mug")}
    assert subjects.erase(["7"], [("9", "cup")]) == 0
    # Whoever is forgotten again is somebody new.
    assert len({*subjects.of(*asked)} & {*before}) == 2


def test_no_byte_of_the_file_keeps_a_mark_that_went(tmp_path: Path) -> None:
    file = tmp_path / "requests.db"
    subjects, people = Subjects(open_ledger(file), NAMES), [f"user-{number}" for number in range(400)]
    subjects.of(people, [])
    gone = people[::2]
    assert all(NAMES.of_user(user).encode() in file.read_bytes() for user in gone)
    assert subjects.erase(gone, []) == len(gone)
    left = file.read_bytes()
    assert not [user for user in gone if NAMES.of_user(user).encode() in left]
    assert all(NAMES.of_user(user).encode() in left for user in people[1::2])


def test_an_older_ledger_keeps_knowing_whom_its_releases_have_forgotten(place: Path | str) -> None:
    ledger = open_ledger(place)
    releases_at(place).add(release(1), {subject(5): digest(5)})
    with ledger.writing() as connection:
        connection.execute(text("DROP TABLE subject_marks"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0003'"))
    assert Subjects(open_ledger(place), NAMES).by_mark() == {subject(5): subject(5)}
