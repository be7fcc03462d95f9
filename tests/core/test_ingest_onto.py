"""Later files are appended: earlier parts are linked and not read, and what was deleted does not come back."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from data_contracts.expectations import violations
from data_contracts.interactions import INTERACTIONS, USERS
from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.places import part_files
from e2urec_core.datasets.interactions import Interactions
from e2urec_core.errors import BadInput, BadSetting

NOW = 978300000
HEADER = "user_id,item_id,rating,timestamp,title,age\n"
FIRST = f"anna,mug,5,{NOW},Mug,25\nben,cup,2,{NOW + 10},Cup,40\nanna,cup,4,{NOW + 20},Cup,25\n"
SECOND = f"carl,mug,3,{NOW + 30},,31\nanna,jug,1,{NOW + 40},Jug,\n"
Kept = list[tuple[str, str, float, int, int]]


def dataset(place: Path, name: str, rows: str, **settings: object) -> Interactions:
    (place / name).write_text(HEADER + rows)
    told = {"title_column": "title", "profile_columns": "age", **settings}
    return Interactions(path=str(place / name), **told)  # type: ignore[arg-type]


def gate(place: Path, name: str, rows: str, earlier: str | None = None, deleted: str | None = None, **settings: object) -> Path:
    """Read rows into the fresh folder `name`."""
    if deleted is not None:
        (place / f"{name}-deleted.csv").write_text(f"user_id,deleted_at\n{deleted}")
    rule = IngestRule(deleted=place / f"{name}-deleted.csv" if deleted is not None else None)
    (place / name).mkdir()
    total = ingest(dataset(place, f"{name}.csv", rows, **settings), rule, place / name, place / earlier if earlier else None)
    assert total == len(stored(place / name)) == read_counts(place / name)["rows"]
    for path in part_files(place / name):
        found = violations(INTERACTIONS, pq.read_table(path))
        assert [broken.rule for broken in found] in ([], ["has rows"])
    assert violations(USERS, pq.read_table(place / name / "users.parquet")) == []
    return place / name


def stored(folder: Path) -> Kept:
    return sorted(row for part in part_files(folder) for row in pl.read_parquet(part).drop("interaction_id").rows())


def ids(folder: Path) -> list[int]:
    return sorted(number for part in part_files(folder) for number in pl.read_parquet(part)["interaction_id"])


def users(folder: Path) -> dict[str, str | None]:
    return dict(pl.read_parquet(folder / "users.parquet").select("user_id", "profile").rows())


def titles(folder: Path) -> dict[str, str]:
    return dict(pl.read_parquet(folder / "items.parquet").rows())


def linked(one: Path, other: Path) -> list[bool]:
    """Of each part whether both folders hold the same file."""
    return [os.path.samefile(*pair) for pair in zip(part_files(one), part_files(other), strict=False)]


def reading(folder: Path) -> dict[str, int]:
    return read_counts(folder)["this_reading"]


def test_newer_rows_become_a_part_of_their_own_beside_links_to_the_parts_before(tmp_path: Path) -> None:
    first = gate(tmp_path, "first", FIRST)
    second = gate(tmp_path, "second", SECOND, "first")
    assert [path.name for path in part_files(second)] == ["part-00000.parquet", "part-00001.parquet"]
    assert linked(first, second) == [True]
    assert (reading(second)["read"], reading(second)["kept"], reading(second)["already_held"]) == (2, 2, 0)
    noted = read_counts(second)
    # Likes: anna's 5 and 4.
    assert (noted["rows"], noted["parts"], noted["likes"]) == (5, 2, 2)
    assert (noted["oldest_timestamp_s"], noted["newest_timestamp_s"]) == (NOW, NOW + 40)


def test_earlier_parts_are_not_read_where_all_new_rows_are_newer(tmp_path: Path) -> None:
    first = gate(tmp_path, "first", FIRST)
    part = part_files(first)[0]
    part.write_bytes(b"\0" * part.stat().st_size)
    (tmp_path / "second").mkdir()
    assert ingest(dataset(tmp_path, "second.csv", SECOND), IngestRule(), tmp_path / "second", first) == 5
    assert linked(first, tmp_path / "second") == [True]
    assert pl.read_parquet(part_files(tmp_path / "second")[1]).height == 2


def test_earlier_parts_are_not_read_where_the_same_users_are_deleted_as_before(tmp_path: Path) -> None:
    first = gate(tmp_path, "first", FIRST, deleted=f"anna,{NOW}\n")
    part = part_files(first)[0]
    part.write_bytes(b"\0" * part.stat().st_size)
    (tmp_path / "second").mkdir()
    rule = IngestRule(deleted=tmp_path / "first-deleted.csv")
    assert ingest(dataset(tmp_path, "second.csv", SECOND), rule, tmp_path / "second", first) == 4


def test_rows_that_are_stored_already_are_counted_and_not_stored_twice(tmp_path: Path) -> None:
    first = gate(tmp_path, "first", FIRST)
    second = gate(tmp_path, "second", FIRST.splitlines(keepends=True)[2] + SECOND, "first")
    assert (reading(second)["read"], reading(second)["kept"], reading(second)["already_held"]) == (3, 2, 1)
    third = gate(tmp_path, "third", FIRST + SECOND, "second")
    assert (reading(third)["kept"], reading(third)["already_held"]) == (0, 5)
    assert linked(second, third) == [True, True]
    assert len(part_files(third)) == 2
    assert stored(third) == stored(second)
    assert len(stored(first)) == 3


def test_two_files_one_after_the_other_give_the_rows_of_both_at_once(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST)
    gate(tmp_path, "second", SECOND, "first")
    late = f"dora,mug,5,{NOW + 5},Mug,\nanna,mug,5,{NOW},Mug,25\n"
    third = gate(tmp_path, "third", late, "second")
    whole = gate(tmp_path, "whole", FIRST + SECOND + late)
    assert stored(third) == stored(whole)
    assert ids(third) == ids(whole)
    assert titles(third) == titles(whole)
    assert users(third) == users(whole) | {"anna": "The user: age 25."}
    sums = [
        {name: read_counts(folder)[name] for name in ("rows", "users", "items", "likes", "oldest_timestamp_s", "newest_timestamp_s")}
        for folder in (third, whole)
    ]
    assert sums[0] == sums[1]


def test_titles_and_profiles_stay_where_a_later_file_does_not_tell_them(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST)
    second = gate(tmp_path, "second", SECOND, "first")
    assert titles(second) == {"mug": "Mug", "cup": "Cup", "jug": "Jug"}
    assert users(second) == {"anna": "The user: age 25.", "ben": "The user: age 40.", "carl": "The user: age 31."}
    third = gate(
        tmp_path, "third", f"anna,mug,5,{NOW + 50},x,1\nanna,pot,5,{NOW + 60},x,1\n", "second", title_column=None, profile_columns=""
    )
    assert titles(third) == {"mug": "Mug", "cup": "Cup", "jug": "Jug", "pot": "pot"}
    assert users(third)["anna"] == "The user: age 25."


def test_a_later_file_may_tell_a_newer_title_and_profile(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST)
    second = gate(tmp_path, "second", f"anna,mug,5,{NOW + 50},Big Mug,26\n", "first")
    assert titles(second) == {"mug": "Big Mug", "cup": "Cup"}
    assert users(second) == {"anna": "The user: age 26.", "ben": "The user: age 40."}


def test_rows_up_to_the_deletion_are_dropped_and_later_ones_are_a_new_user_s(tmp_path: Path) -> None:
    rows = FIRST + f"anna,jug,3,{NOW + 30},Jug,\n"
    folder = gate(tmp_path, "first", rows, deleted=f"anna,{NOW + 20}\n")
    assert (reading(folder)["read"], reading(folder)["deleted"], reading(folder)["kept"]) == (4, 2, 2)
    assert stored(folder) == [("anna#2", "jug", 3.0, NOW + 30, 0), ("ben", "cup", 2.0, NOW + 10, 0)]


def test_who_was_deleted_twice_comes_back_as_the_third(tmp_path: Path) -> None:
    rows = FIRST + f"anna,jug,3,{NOW + 30},Jug,\n"
    folder = gate(tmp_path, "first", rows, deleted=f"anna,{NOW + 20}\nanna,{NOW + 5}\nanna,{NOW + 5}\n")
    assert [row[0] for row in stored(folder)] == ["anna#3", "ben"]


def test_who_comes_back_has_a_profile_only_if_the_source_still_tells_it(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("user_id,age\nanna,25\nben,40\n")
    rows = FIRST + f"anna,jug,3,{NOW + 30},Jug,\n"
    listed = gate(tmp_path, "listed", rows, deleted=f"anna,{NOW + 20}\nben,{NOW + 99}\n", users_path=str(tmp_path / "people.csv"))
    assert users(listed) == {"anna#2": "The user: age 25."}
    (tmp_path / "people.csv").write_text("user_id,age\nben,40\n")
    gone = gate(tmp_path, "gone", rows, deleted=f"anna,{NOW + 20}\n", users_path=str(tmp_path / "people.csv"))
    assert users(gone) == {"anna#2": None, "ben": "The user: age 40."}


def test_the_profile_that_was_stored_before_the_deletion_goes_with_the_user(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST)
    second = gate(tmp_path, "second", f"anna,jug,3,{NOW + 30},Jug,\n", "first", deleted=f"anna,{NOW + 20}\n")
    assert users(second) == {"anna#2": None, "ben": "The user: age 40."}


def test_parts_with_rows_of_users_deleted_since_are_written_anew_and_others_stay_linked(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST)
    gate(tmp_path, "second", SECOND, "first")
    third = gate(tmp_path, "third", f"ben,jug,5,{NOW + 50},Jug,\n", "second", deleted=f"carl,{NOW + 35}\n")
    assert linked(tmp_path / "second", third) == [True, False]
    assert reading(third)["deleted_from_earlier_parts"] == 1
    assert "carl" not in users(third)
    assert [row[:2] for row in stored(third)] == [("anna", "cup"), ("anna", "jug"), ("anna", "mug"), ("ben", "cup"), ("ben", "jug")]
    noted = read_counts(third)
    # Likes: anna's 5 and 4, ben's last 5.
    assert (noted["rows"], noted["likes"], noted["oldest_timestamp_s"]) == (5, 3, NOW)
    assert not any(b"carl" in path.read_bytes() for path in third.rglob("*") if path.is_file())


def test_counts_and_time_span_follow_the_rows_that_a_deletion_takes_out_of_earlier_parts(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST)
    second = gate(tmp_path, "second", f"ben,jug,5,{NOW + 5},Jug,\n", "first", deleted=f"anna,{NOW + 20}\n")
    noted = read_counts(second)
    # Of ben's 2 and 5 one is liked; anna's rows were the oldest and the newest.
    assert (noted["rows"], noted["likes"], noted["oldest_timestamp_s"], noted["newest_timestamp_s"]) == (2, 1, NOW + 5, NOW + 10)


def test_rows_that_were_stored_after_the_moment_of_deletion_become_those_of_the_new_user(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST)
    deleted = f"anna,{NOW + 10}\n"
    second = gate(tmp_path, "second", FIRST + SECOND, "first", deleted=deleted)
    whole = gate(tmp_path, "whole", FIRST + SECOND, deleted=deleted)
    assert stored(second) == stored(whole)
    assert ids(second) == ids(whole)
    assert "anna" not in users(second)
    assert "anna#2" in users(second)
    third = gate(tmp_path, "third", FIRST + SECOND, "second", deleted=deleted + f"anna,{NOW + 30}\n")
    again = gate(tmp_path, "again", FIRST + SECOND, deleted=deleted + f"anna,{NOW + 30}\n")
    assert stored(third) == stored(again)
    assert [row[0] for row in stored(third)] == ["anna#3", "ben", "carl"]


def test_a_part_all_of_whose_rows_are_deleted_is_left_out_and_later_ones_move_up(tmp_path: Path) -> None:
    gate(tmp_path, "first", f"anna,mug,5,{NOW},Mug,\n")
    second = gate(tmp_path, "second", SECOND, "first", deleted=f"anna,{NOW + 10}\n")
    assert [(part.name, pl.read_parquet(part).height) for part in part_files(second)] == [("part-00000.parquet", 2)]
    third = gate(tmp_path, "third", SECOND, "second", deleted=f"anna,{NOW + 10}\ncarl,{NOW}\n")
    assert [row[0] for row in stored(third)] == ["anna#2", "carl#2"]


def test_a_stale_export_that_is_imported_again_changes_no_row(tmp_path: Path) -> None:
    deleted = f"anna,{NOW + 20}\n"
    gate(tmp_path, "first", FIRST)
    second = gate(tmp_path, "second", SECOND, "first", deleted=deleted)
    third = gate(tmp_path, "third", FIRST, "second", deleted=deleted)
    # Two rows of anna's are those of a deleted user; ben's is held.
    assert (reading(third)["deleted"], reading(third)["already_held"], reading(third)["kept"]) == (2, 1, 0)
    assert all(linked(second, third))
    assert stored(third) == stored(second)
    assert users(third) == users(second)
    assert titles(third) == titles(second)


def test_interactions_made_with_a_table_of_deleted_users_are_not_appended_to_without_one(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST, deleted=f"anna,{NOW + 20}\n")
    for number, deleted in enumerate((None, "")):
        with pytest.raises(BadSetting) as refused:
            gate(tmp_path, f"second{number}", SECOND, "first", deleted)
        assert refused.value.fact == ("the stored interactions were made with a table of deleted users, and 0 deleted users are given now")
        assert "--ingest.deleted" in refused.value.hint


def test_when_every_stored_row_is_deleted_nothing_is_left(tmp_path: Path) -> None:
    gate(tmp_path, "first", f"anna,mug,5,{NOW},Mug,\n")
    with pytest.raises(BadInput) as refused:
        gate(tmp_path, "second", f"anna,cup,5,{NOW + 1},Cup,\n", "first", deleted=f"anna,{NOW + 10}\n")
    assert refused.value.fact == "no interactions are left"


@pytest.mark.parametrize(("deleted", "name"), [(f"anna,{NOW}\n", "anna#2"), (f"anna,{NOW}\nanna,{NOW + 9}\n", "anna#2")])
def test_a_source_whose_users_bear_names_of_those_who_come_back_is_refused_without_naming_them(
    tmp_path: Path, deleted: str, name: str
) -> None:
    sentence = "1 users of the source bear names that users who come back after deletion are given"
    with pytest.raises(BadInput) as refused:
        gate(tmp_path, "first", FIRST + f"{name},mug,4,{NOW},Mug,\n", deleted=deleted)
    assert refused.value.fact == sentence
    assert "anna" not in str(refused.value)
    (tmp_path / "people.csv").write_text(f"user_id,age\n{name},25\n")
    with pytest.raises(BadInput) as refused:
        gate(tmp_path, "second", FIRST, deleted=deleted, users_path=str(tmp_path / "people.csv"))
    assert refused.value.fact == sentence


@pytest.mark.parametrize(
    ("moment", "last"),
    [
        (f"{NOW + 19}", 1),
        (f" {NOW + 20} ", 0),
        ("2000-12-31T22:00:19.9Z", 1),
        ("2000-12-31 22:00:20", 0),
        ("2000-12-31T23:00:19+01:00", 1),
        ("2000-12-31", 2),
        ("2001-01-01", 0),
    ],
)
def test_moments_of_deletion_are_seconds_or_dates(tmp_path: Path, moment: str, last: int) -> None:
    # NOW + 20 is 2000-12-31 22:00:20 UTC; the second number says how many of anna's two rows are later.
    folder = gate(tmp_path, "first", FIRST, deleted=f"anna,{moment}\n")
    assert sum(row[0] == "anna#2" for row in stored(folder)) == last


@pytest.mark.parametrize(
    ("bad", "count"), [("anna,soon\n", 1), (",978300000\n", 1), ("anna,\n", 1), ("anna,-1\n ,5\n", 2), (f"anna,{NOW}000\n", 1)]
)
def test_a_deletion_that_cannot_be_read_is_refused_and_not_passed_over(tmp_path: Path, bad: str, count: int) -> None:
    with pytest.raises(BadInput) as refused:
        gate(tmp_path, "first", FIRST, deleted=f"ben,{NOW}\n{bad}")
    total = 1 + bad.count("\n")
    assert refused.value.fact == f"{count} of {total} rows of `first-deleted.csv` have no user or no moment between 1970 and 2100"
    assert "anna" not in str(refused.value)


def refusal_of_list(place: Path, data: bytes | None, name: str = "gone.csv") -> BadInput:
    if data is not None:
        (place / name).write_bytes(data)
    (place / "out").mkdir()
    with pytest.raises(BadInput) as refused:
        ingest(dataset(place, "in.csv", FIRST), IngestRule(deleted=place / name), place / "out")
    assert refused.value.hint
    assert "anna" not in str(refused.value)
    return refused.value


def test_a_table_of_deleted_users_that_is_not_there_or_no_table_is_refused(tmp_path: Path) -> None:
    for number, (data, words) in enumerate(
        [
            (None, "0 files found: there is no"),
            (b"", "is empty: 0 rows"),
            (b"user_id\nanna\n", "`gone.csv` lacks 1 of 2 columns: deleted_at"),
            (b"anna,978300000\n", "`gone.csv` lacks 2 of 2 columns: user_id, deleted_at"),
            ("user_id,deleted_at\nann\xe4,1\n".encode("latin-1"), "it is not UTF-8"),
            ("user_id,deleted_at\nanna,1\n".encode("utf-16"), "looks like UTF-16"),
            (b"user_id,deleted_at\nanna,1,2,3\n", "a line has more fields than the header"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        assert words in refusal_of_list(tmp_path / str(number), data).fact


def test_ids_in_a_table_of_deleted_users_are_read_as_ids_of_the_rows_are(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [12, 13], "item_id": ["mug", "mug"], "rating": [5, 5], "timestamp": [NOW, NOW]})
    frame.write_parquet(tmp_path / "in.parquet")
    # A float column, as pandas writes whole numbers beside a missing value.
    pl.DataFrame({"user_id": [12.0], "deleted_at": [float(NOW)]}).write_parquet(tmp_path / "gone.parquet")
    (tmp_path / "out").mkdir()
    ingest(Interactions(path=str(tmp_path / "in.parquet")), IngestRule(deleted=tmp_path / "gone.parquet"), tmp_path / "out")
    assert [row[0] for row in stored(tmp_path / "out")] == ["13"]


def test_the_fingerprint_of_the_rule_follows_the_bytes_of_the_deleted_users_in_a_file_or_a_folder(tmp_path: Path) -> None:
    assert IngestRule().fingerprint() == ""
    (tmp_path / "gone").mkdir()
    table = tmp_path / "gone" / "a.csv"
    for path in (table, tmp_path / "gone"):
        table.write_text(f"user_id,deleted_at\nanna,{NOW}\n")
        before = IngestRule(deleted=path).fingerprint()
        assert IngestRule(deleted=path).fingerprint() == before != ""
        table.write_text(f"user_id,deleted_at\nanna,{NOW + 1}\n")
        assert IngestRule(deleted=path).fingerprint() != before
    with pytest.raises(BadInput, match="0 files found"):
        IngestRule(deleted=tmp_path / "nowhere.csv").fingerprint()
