"""What the stage says of the rows that were not simply kept."""

from __future__ import annotations

from tasks.ingest import WORDS, lines

NOTHING = {"read": 10, "kept": 10, "quarantined": {}, "left_out": {"unrated": 0}, **dict.fromkeys(WORDS, 0)}


def test_rows_that_are_all_kept_are_not_worth_a_line() -> None:
    assert list(lines(NOTHING)) == []


def test_every_kind_of_loss_has_its_line_with_its_count() -> None:
    became = {
        **NOTHING,
        "read": 12_345,
        "quarantined": {"missing user": 3, "unreadable time": 1},
        "left_out": {"unrated": 2000},
        "repeated": 5,
        "conflicting": 2,
        "deleted": 7,
        "suppressed": 3,
        "withheld": 1,
        "already_held": 11,
        "deleted_from_earlier_parts": 13,
    }
    assert list(lines(became)) == [
        "3 of 12,345 rows were put aside: missing user",
        "1 of 12,345 rows were put aside: unreadable time",
        "2,000 of 12,345 rows were left out: unrated",
        "5 rows repeat user, item and moment of another: one of each is kept",
        "2 of these differ in rating or answer",
        "7 rows of deleted users were dropped",
        "3 rows were dropped, as the suppression list says",
        "1 of the rows put aside are not kept, as they name a suppressed user",
        "11 rows were stored before",
        "13 stored rows of users deleted or suppressed since were dropped",
    ]
