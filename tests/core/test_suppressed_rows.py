"""What is on the suppression list does not come back, neither from a new file nor from stored parts, and every row is counted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2urec_core.data.appending import read_counts
from e2urec_core.data.deletions import Deletions
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.places import part_files
from e2urec_core.data.suppressed import Marks, Suppressed
from e2urec_core.datasets.interactions import Interactions
from e2urec_core.errors import BadInput, BadSetting

NOW = 978300000
MARKS = Marks(bytes(32))
HEADER = "user_id,item_id,rating,timestamp,title,age\n"
FIRST = f"anna,mug,5,{NOW},Mug,25\nben,cup,2,{NOW + 10},Cup,40\nanna,cup,4,{NOW + 20},Cup,25\n"
SECOND = f"carl,mug,3,{NOW + 30},Mug,31\nanna,jug,1,{NOW + 40},Jug,\n"


def listed(users: Mapping[str, int] | None = None, pairs: Mapping[tuple[str, str], int] | None = None) -> Suppressed:
    """A list of names with seconds after NOW."""
    marked: dict[str, dict[str, int]] = {}
    for (user, item), after in (pairs or {}).items():
        marked.setdefault(MARKS.of_user(user), {})[MARKS.of_pair(user, item)] = NOW + after
    return Suppressed({MARKS.of_user(user): NOW + after for user, after in (users or {}).items()}, marked, MARKS)


def gate(
    place: Path,
    name: str,
    rows: str,
    suppressed: Suppressed | None = None,
    earlier: str | None = None,
    deleted: str | None = None,
    **set_: object,
) -> Path:
    """Read rows into the fresh folder `name`."""
    (place / f"{name}.csv").write_text(HEADER + rows)
    if deleted is not None:
        (place / f"{name}-deleted.csv").write_text(f"user_id,deleted_at\n{deleted}")
    rule = IngestRule(deleted=place / f"{name}-deleted.csv" if deleted is not None else None, max_quarantined=1.0)
    told = {"title_column": "title", "profile_columns": "age", **set_}
    source = Interactions(path=str(place / f"{name}.csv"), **told)  # type: ignore[arg-type]
    (place / name).mkdir()
    total = ingest(source, rule, place / name, place / earlier if earlier else None, suppressed=suppressed)
    assert total == len(stored(place / name)) == read_counts(place / name)["rows"]
    return place / name


def stored(folder: Path) -> list[tuple[str, str, int]]:
    return sorted(row for part in part_files(folder) for row in pl.read_parquet(part).select("user_id", "item_id", "timestamp_s").rows())


def after(folder: Path) -> list[tuple[str, str, int]]:
    """The stored rows with seconds after NOW."""
    return [(user, item, second - NOW) for user, item, second in stored(folder)]


def users(folder: Path) -> dict[str, str | None]:
    return dict(pl.read_parquet(folder / "users.parquet").select("user_id", "profile").rows())


def reading(folder: Path) -> dict[str, int]:
    return read_counts(folder)["this_reading"]


def holds(folder: Path, name: str) -> bool:
    """Whether any value of any stored table is or contains the name."""
    frames = [pl.read_parquet(path) for path in folder.rglob("*.parquet")]
    return any(name in str(value) for frame in frames for row in frame.rows() for value in row)


def test_a_suppressed_user_is_in_no_stored_file_and_every_row_is_counted(tmp_path: Path) -> None:
    folder = gate(tmp_path, "first", FIRST + SECOND, listed({"anna": 40}))
    assert after(folder) == [("ben", "cup", 10), ("carl", "mug", 30)]
    assert users(folder) == {"ben": "The user: age 40.", "carl": "The user: age 31."}
    assert not holds(folder, "anna")
    assert not any(b"anna" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    told = reading(folder)
    assert (told["read"], told["kept"], told["suppressed"], told["deleted"]) == (5, 2, 3, 0)


def test_rows_after_the_moment_belong_to_somebody_new(tmp_path: Path) -> None:
    # The moment itself is still kept out.
    folder = gate(tmp_path, "first", FIRST + SECOND, listed({"anna": 20}))
    assert after(folder) == [("anna#2", "jug", 40), ("ben", "cup", 10), ("carl", "mug", 30)]
    assert reading(folder)["suppressed"] == 2
    assert "anna" not in users(folder)
    assert "anna#2" in users(folder)


def test_a_user_whom_a_table_lists_without_rows_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("user_id,age\nanna,25\nben,40\n")
    people = {"users_path": str(tmp_path / "people.csv")}
    assert users(gate(tmp_path, "gone", FIRST, listed({"anna": 20}), **people)) == {"ben": "The user: age 40."}
    assert users(gate(tmp_path, "back", FIRST, listed({"anna": 19}), **people))["anna#2"] == "The user: age 25."


def test_single_interactions_go_up_to_their_moment_and_nobody_is_renamed(tmp_path: Path) -> None:
    again = f"anna,mug,1,{NOW + 50},Mug,\n"
    folder = gate(tmp_path, "first", FIRST + SECOND + again, listed(pairs={("anna", "mug"): 49, ("ben", "mug"): 49}))
    assert after(folder) == [("anna", "cup", 20), ("anna", "jug", 40), ("anna", "mug", 50), ("ben", "cup", 10), ("carl", "mug", 30)]
    assert (reading(folder)["suppressed"], reading(folder)["deleted"]) == (1, 0)


def test_items_are_marked_for_users_with_single_interactions_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    told = Marks.of_pair
    monkeypatch.setattr(Marks, "of_pair", lambda self, user, item: asked.append((user, item)) or told(self, user, item))
    suppressed = listed({"carl": 99}, {("anna", "mug"): 49})
    asked.clear()
    gate(tmp_path, "first", FIRST + SECOND, suppressed)
    assert sorted(asked) == [("anna", "cup"), ("anna", "jug"), ("anna", "mug")]


def test_a_single_interaction_of_somebody_who_comes_back_stays_gone(tmp_path: Path) -> None:
    rows = FIRST + SECOND + f"anna,jug,1,{NOW + 60},Jug,\n"
    for pair in ("anna", "anna#2"):
        folder = gate(tmp_path, f"under-{pair}", rows, listed({"anna": 20}, {(pair, "jug"): 50}))
        assert [row for row in after(folder) if "anna" in row[0]] == [("anna#2", "jug", 60)]
        assert reading(folder)["suppressed"] == 3


@pytest.mark.parametrize(
    ("deleted", "until", "name", "rows"),
    [
        # Up to NOW + 20 by the table and NOW by the list: the later moment counts, and it is one deletion.
        ({"anna": [20]}, 0, "anna#2", (2, 0)),
        ({"anna": [0]}, 20, "anna#2", (1, 1)),
        ({"anna": [0, 10]}, 20, "anna#3", (1, 1)),
        ({"ben": [5]}, 20, "anna#2", (0, 2)),
    ],
)
def test_with_a_table_of_deleted_users_the_later_moment_counts_and_it_is_one_deletion(
    tmp_path: Path, deleted: dict[str, list[int]], until: int, name: str, rows: tuple[int, int]
) -> None:
    table = "".join(f"{user},{NOW + moment}\n" for user, moments in deleted.items() for moment in moments)
    folder = gate(tmp_path, "first", FIRST + SECOND, listed({"anna": until}), deleted=table)
    assert [row for row in after(folder) if "anna" in row[0]] == [(name, "jug", 40)]
    assert (reading(folder)["deleted"], reading(folder)["suppressed"]) == rows


def test_somebody_who_came_back_and_is_suppressed_under_the_new_name_comes_back_as_the_third(tmp_path: Path) -> None:
    both = listed({"anna": 0, "anna#2": 20})
    whole = gate(tmp_path, "whole", FIRST + SECOND, both)
    assert after(whole) == [("anna#3", "jug", 40), ("ben", "cup", 10), ("carl", "mug", 30)]
    gate(tmp_path, "first", FIRST, listed({"anna": 0}))
    assert after(tmp_path / "first") == [("anna#2", "cup", 20), ("ben", "cup", 10)]
    assert after(gate(tmp_path, "second", FIRST + SECOND, both, "first")) == after(whole)
    table = gate(tmp_path, "table", FIRST + SECOND, listed({"anna#2": 20}), deleted=f"anna,{NOW}\n")
    assert after(table) == after(whole)


def test_a_source_whose_users_bear_the_name_of_one_who_comes_back_is_refused_without_naming_them(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="1 users of the source bear names that users who come back") as refused:
        gate(tmp_path, "first", FIRST + f"anna#2,mug,4,{NOW},Mug,\n", listed({"anna": 20}))
    assert "anna" not in str(refused.value)


def test_a_user_whose_own_name_ends_in_a_number_is_suppressed_like_any_other(tmp_path: Path) -> None:
    rows = FIRST + f"dora#2,mug,4,{NOW},Mug,\ndora,mug,4,{NOW},Mug,\n"
    folder = gate(tmp_path, "first", rows, listed({"dora#2": 0}))
    assert [row for row in after(folder) if "dora" in row[0]] == [("dora", "mug", 0)]


def linked(one: Path, other: Path) -> list[bool]:
    return [os.path.samefile(*pair) for pair in zip(part_files(one), part_files(other), strict=False)]


def test_stored_parts_lose_what_is_suppressed_and_others_stay_linked(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST)
    second = gate(tmp_path, "second", f"dora,mug,3,{NOW + 30},Mug,31\n", None, "first")
    late = f"ben,jug,5,{NOW + 90},Jug,\n"
    third = gate(tmp_path, "third", late, listed({"anna": 19}, {("dora", "cup"): 99}), "second")
    assert linked(second, third) == [False, True]
    assert after(third) == [("anna#2", "cup", 20), ("ben", "cup", 10), ("ben", "jug", 90), ("dora", "mug", 30)]
    assert (reading(third)["deleted_from_earlier_parts"], reading(third)["suppressed"]) == (1, 0)
    fourth = gate(tmp_path, "fourth", late, listed({"anna": 19}, {("dora", "mug"): 30}), "third")
    assert [row[0] for row in after(fourth)] == ["anna#2", "ben", "ben"]


def test_parts_are_not_read_where_the_list_is_as_before(tmp_path: Path) -> None:
    told = listed({"anna": 20})
    first = gate(tmp_path, "first", FIRST, told)
    (part,) = part_files(first)
    part.write_bytes(b"\0" * part.stat().st_size)
    (tmp_path / "second.csv").write_text(HEADER + SECOND)
    (tmp_path / "second").mkdir()
    assert ingest(Interactions(path=str(tmp_path / "second.csv")), IngestRule(), tmp_path / "second", first, suppressed=told) == 3
    assert linked(first, tmp_path / "second") == [True]


def test_a_moment_that_moves_on_takes_stored_rows_of_whoever_had_come_back(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST + SECOND, listed({"anna": 0}))
    second = gate(tmp_path, "second", f"ben,jug,5,{NOW + 90},Jug,\n", listed({"anna": 20}), "first")
    assert [row for row in after(second) if "anna" in row[0]] == [("anna#2", "jug", 40)]
    third = gate(tmp_path, "third", f"ben,pot,5,{NOW + 95},Pot,\n", listed({"anna": 50}), "second")
    assert not holds(third, "anna")


def test_what_was_stored_with_a_list_is_not_appended_to_without_one(tmp_path: Path) -> None:
    gate(tmp_path, "first", FIRST, listed({"anna": 20}))
    with pytest.raises(BadSetting, match="were made with a suppression list, and the ledger holds 0 entries now"):
        gate(tmp_path, "second", SECOND, None, "first")


def test_when_everything_is_suppressed_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no interactions are left"):
        gate(tmp_path, "first", f"anna,mug,5,{NOW},Mug,25\n", listed({"anna": 20}))


BAD = f"""anna,mug,99,{NOW},Mug,25
ben,mug,99,{NOW},Mug,25
ben,anna,99,{NOW},Mug,25
ben,mug, anna ,{NOW},Mug,25
ben,mug,5,anna/{NOW},Mug,25
,mug,anna;5,{NOW},Mug,25
joanna,mug,99,{NOW},Mug,25
dora,cup,99,{NOW},Mug,25
dora,mug,99,{NOW},Mug,25
"""


def test_the_quarantine_names_no_suppressed_user_and_counts_what_it_withholds(tmp_path: Path) -> None:
    folder = gate(tmp_path, "first", FIRST + BAD, listed({"anna": 40}, {("dora", "cup"): 5}))
    aside = pl.read_parquet(folder / "quarantine.parquet")
    kept = [("ben", "mug", "99"), ("joanna", "mug", "99"), ("dora", "mug", "99")]
    assert aside.select("user_id", "item_id", "rating").rows() == kept
    told = reading(folder)
    assert (sum(told["quarantined"].values()), told["withheld"]) == (9, 6)
    assert told["read"] == told["kept"] + 9 + told["suppressed"]
    assert not any(value == "anna" for frame in map(pl.read_parquet, folder.rglob("*.parquet")) for row in frame.rows() for value in row)


def test_a_folder_that_is_called_after_a_user_names_nobody_in_the_quarantine(tmp_path: Path) -> None:
    for user in ("anna", "ben"):
        (tmp_path / "rows" / f"user_id={user}").mkdir(parents=True)
        (tmp_path / "rows" / f"user_id={user}" / "part.csv").write_text(f"item_id,rating,timestamp\nmug,99,{NOW}\ncup,5,{NOW}\n")
    (tmp_path / "out").mkdir()
    source = Interactions(path=str(tmp_path / "rows"))
    ingest(source, IngestRule(max_quarantined=1.0), tmp_path / "out", suppressed=listed({"anna": 40}))
    assert not holds(tmp_path / "out", "anna")
    assert pl.read_parquet(tmp_path / "out" / "quarantine.parquet").height == 1


def test_a_refusal_names_no_place_of_a_row_that_is_withheld(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(HEADER + FIRST + f"anna,anna,99,{NOW},Mug,25\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="1 of 4 rows") as refused:
        ingest(Interactions(path=str(tmp_path / "rows.csv")), IngestRule(), tmp_path / "out", suppressed=listed({"anna": 40}))
    assert refused.value.facts == {"rating outside the scale": "1 rows"}
    assert "anna" not in str(refused.value)


def test_the_page_of_a_check_tells_of_withheld_rows_without_their_place(tmp_path: Path) -> None:
    from e2urec_core.data_page import check_source, document, render, text

    (tmp_path / "rows.csv").write_text(HEADER + FIRST + f"anna,anna,99,{NOW},Mug,25\n")
    (tmp_path / "out").mkdir()
    source = Interactions(path=str(tmp_path / "rows.csv"))
    findings, refused = check_source(source, IngestRule(max_quarantined=0.5), tmp_path / "out", listed({"anna": 40}))
    assert refused is None
    assert (document(findings)["rows"]["suppressed"], document(findings)["rows"]["withheld"]) == (2, 1)
    for shown in (text(findings), render(findings)):
        assert "a row that names a suppressed user" in shown
        assert "anna" not in shown


some_rows = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 6)), min_size=1, max_size=25)
some_users = st.dictionaries(st.sampled_from(["a", "a#2", "b"]), st.integers(0, 6), max_size=3)
some_pairs = st.dictionaries(st.tuples(st.sampled_from("ac"), st.sampled_from("xy")), st.integers(0, 6), max_size=2)
some_table = st.sampled_from([{}, {"a": (2,)}, {"a": (1, 3), "c": (0,)}])


@settings(max_examples=30)
@given(rows=some_rows, people=some_users, pairs=some_pairs, table=some_table)
def test_any_list_beside_any_table_leaves_what_a_slow_count_in_plain_python_leaves(
    rows: list[tuple[str, str, int]], people: dict[str, int], pairs: dict[tuple[str, str], int], table: dict[str, tuple[int, ...]]
) -> None:
    moments: dict[str, tuple[int, ...]] = {}
    for user in "abc":
        told = table.get(user, ())
        if user in people:
            told = (*told[:-1], max((people[user], *told[-1:])))
        while told and (later := people.get(f"{user}#{len(told) + 1}")) is not None:
            told = (*told, max(later, told[-1]))
        moments[user] = told
    kept = set()
    for user, item, second in rows:
        if second > pairs.get((user, item), -1) and second > max(moments[user], default=-1):
            kept.add((f"{user}#{len(moments[user]) + 1}" if moments[user] else user, item, second))
    lines = [f"{user},{item},5,{NOW + second},{item},\n" for user, item, second in rows]
    deleted = "".join(f"{user},{NOW + moment}\n" for user, each in table.items() for moment in each) or None
    both = listed(people, pairs)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if not kept:
            with pytest.raises(BadInput):
                gate(place, "whole", "".join(lines), both, deleted=deleted)
            return
        whole = gate(place, "whole", "".join(lines), both, deleted=deleted)
        assert set(after(whole)) == kept
        counts = reading(whole)
        assert counts["read"] == counts["kept"] + counts["repeated"] + counts["deleted"] + counts["suppressed"]
        # What was stored before anybody asked ends in the same rows.
        gate(place, "before", "".join(lines))
        assert after(gate(place, "again", "".join(lines[:3]), both, "before", deleted=deleted)) == after(whole)


def test_a_list_that_names_nobody_here_leaves_the_table_of_deleted_users_as_it_is() -> None:
    table = Deletions({"anna": (1,)})
    assert listed({"zoe": 5}).joined(table, ["anna", "ben"]) == table
    assert Suppressed().joined(table, ["anna"]) is table
    assert Suppressed().user_cut_offs(["anna"]) == {}
