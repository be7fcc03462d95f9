"""The gate at the door: every row is accounted for, and neither the order of rows nor their cut into files changes what is stored."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.expectations import violations
from data_contracts.interactions import INTERACTIONS, ITEMS, USERS
from data_contracts.quarantine import QUARANTINE
from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.places import part_files
from e2urec_core.datasets.base import Dataset, Source, first_broken
from e2urec_core.datasets.interactions import Interactions
from e2urec_core.errors import BadInput

REPOSITORY = Path(__file__).parents[2]
ALL = IngestRule(max_quarantined=1.0)
HEADER = "user_id,item_id,rating,timestamp\n"


class Row(NamedTuple):
    """One row of a source."""

    user: str | None
    item: str | None
    rating: float | None
    second: int
    unrated: bool = False


class Rows(Dataset):
    """Rows in memory. Users a, b, c and a#2 are listed, d is not; items x and y have titles, z has none, w is not listed."""

    kind: Literal["rows"] = "rows"
    given: tuple[Row, ...] = ()

    def scan(self) -> Source:
        kinds = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp_s": pl.Int64, "unrated": pl.Boolean}
        rows = pl.LazyFrame(self.given, schema=kinds, orient="row").with_row_index("line", 1)
        rules = {
            "unrated": pl.col("unrated"),
            "missing user": pl.col("user_id").is_null(),
            "missing item": pl.col("item_id").is_null(),
            "rating outside the scale": pl.col("rating") > 5,
            "time is negative": pl.col("timestamp_s") < 0,
        }
        return Source(
            rows=rows.with_columns(
                first_broken(rules),
                label=(pl.col("rating").fill_null(0) > 3).cast(pl.Int8),
                file=pl.lit("memory"),
                raw_user="user_id",
                raw_item="item_id",
            ),
            items=pl.LazyFrame(
                {"item_id": ["x", "y", "z"], "title": ["Mug", "Cup", None]}, schema={"item_id": pl.String, "title": pl.String}
            ),
            users=pl.LazyFrame({"user_id": ["a", "b", "c"], "profile": ["A.", "B.", "C."], "cohort": None}),
            left_out=("unrated",),
            users_are_all=True,
        )


class Told(NamedTuple):
    """What the slow oracle says of some rows."""

    kept: list[tuple[str, str, float | None, int, int]]
    counts: dict[str, object]


def oracle(rows: list[Row], moments: Mapping[str, tuple[int, ...]], held: list[tuple[str, str, float | None, int, int]] = ()) -> Told:
    """The gate in plain Python, one row after the other."""
    aside, left, deleted, groups = Counter[str](), 0, 0, {}
    for row in rows:
        if row.unrated:
            left += 1
        elif row.user is None or row.item is None:
            aside["missing user" if row.user is None else "missing item"] += 1
        elif row.rating is not None and row.rating > 5:
            aside["rating outside the scale"] += 1
        elif row.second < 0:
            aside["time is negative"] += 1
        elif row.item not in ("x", "y"):
            aside["item without a title" if row.item == "z" else "unknown item"] += 1
        elif row.user not in ("a", "b", "c"):
            aside["unknown user"] += 1
        elif row.user in moments and row.second <= max(moments[row.user]):
            deleted += 1
        else:
            user = f"{row.user}#{len(moments[row.user]) + 1}" if row.user in moments else row.user
            groups.setdefault((row.second, user, row.item), []).append((row.rating, int((row.rating or 0) > 3)))
    stay = {key: min(each, key=lambda said: (said[0] is None, said)) for key, each in groups.items()}
    conflicting = sum(said != stay[key] for key, each in groups.items() for said in each)
    repeated = sum(len(each) for each in groups.values()) - len(groups)
    known = {(second, user, item) for user, item, _, second, _ in held}
    kept = [(user, item, rating, second, label) for (second, user, item), (rating, label) in sorted(stay.items())]
    new = [row for row in kept if (row[3], row[0], row[1]) not in known]
    counts = {
        "read": len(rows),
        "kept": len(new),
        "quarantined": dict(aside),
        "left_out": {"unrated": left},
        "repeated": repeated,
        "conflicting": conflicting,
        "deleted": deleted,
        "suppressed": 0,
        "withheld": 0,
        "already_held": len(kept) - len(new),
        "deleted_from_earlier_parts": 0,
    }
    return Told(new, counts)


def deletion_list(place: Path, moments: Mapping[str, tuple[int, ...]]) -> Path:
    path = place / "deleted.csv"
    rows = "".join(f"{user},{moment}\n" for user, each in moments.items() for moment in each)
    path.write_text(f"user_id,deleted_at\n{rows}")
    return path


def stored(folder: Path) -> list[tuple[str, str, float | None, int, int]]:
    """Every row of every part, without its id."""
    return [row for part in part_files(folder) for row in pl.read_parquet(part).drop("interaction_id").rows()]


def assert_contracts(folder: Path) -> None:
    tables = [(part, INTERACTIONS) for part in part_files(folder)]
    tables += [(folder / "items.parquet", ITEMS), (folder / "users.parquet", USERS), (folder / "quarantine.parquet", QUARANTINE)]
    for path, contract in tables:
        assert violations(contract, pq.read_table(path)) == [], path.name


def gate(dataset: Dataset, place: Path, rule: IngestRule = ALL, earlier: Path | None = None) -> dict[str, object]:
    """Read the dataset into a fresh folder and return what was counted."""
    place.mkdir()
    assert ingest(dataset, rule, place, earlier) == pl.concat(pl.read_parquet(part) for part in part_files(place)).height
    return read_counts(place)["this_reading"]


some_rows = st.lists(
    st.builds(
        Row,
        user=st.sampled_from(["a", "a", "b", "c", "d", None]),
        item=st.sampled_from(["x", "x", "y", "z", "w", None]),
        rating=st.sampled_from([1.0, 2.0, 4.0, 9.0, None]),
        second=st.integers(-1, 4),
        unrated=st.sampled_from([False, False, False, True]),
    ),
    max_size=40,
)
some_deletions = st.sampled_from([{}, {"a": (2,)}, {"a": (0, 3)}, {"a": (1,), "b": (2, 4), "nobody": (3,)}])


@given(rows=some_rows, moments=some_deletions)
def test_every_row_is_kept_or_counted_as_a_slow_count_in_plain_python_does(rows: list[Row], moments: Mapping[str, tuple[int, ...]]) -> None:
    told = oracle(rows, moments)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rule = IngestRule(max_quarantined=1.0, deleted=deletion_list(place, moments) if moments else None)
        (place / "out").mkdir()
        if not told.kept:
            with pytest.raises(BadInput, match=r"0 interactions|no interactions are left"):
                ingest(Rows(given=tuple(rows)), rule, place / "out")
            return
        assert ingest(Rows(given=tuple(rows)), rule, place / "out") == len(told.kept)
        noted = read_counts(place / "out")
        counts = noted["this_reading"]
        assert counts == told.counts
        aside = sum(counts["quarantined"].values())
        assert counts["read"] == counts["kept"] + aside + counts["left_out"]["unrated"] + counts["repeated"] + counts["deleted"]
        assert stored(place / "out") == told.kept
        assert_contracts(place / "out")
        assert Counter(pl.read_parquet(place / "out" / "quarantine.parquet")["rule"]) == counts["quarantined"]
        assert (noted["rows"], noted["likes"]) == (len(told.kept), sum(row[4] for row in told.kept))
        seconds = [row[3] for row in told.kept]
        assert (noted["oldest_timestamp_s"], noted["newest_timestamp_s"]) == (min(seconds), max(seconds))


@given(first=some_rows, second=some_rows)
def test_rows_that_are_appended_are_counted_as_a_slow_count_in_plain_python_does(first: list[Row], second: list[Row]) -> None:
    before = oracle(first, {})
    if not before.kept:
        return
    after = oracle(second, {}, before.kept)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        gate(Rows(given=tuple(first)), place / "1")
        assert gate(Rows(given=tuple(second)), place / "2", earlier=place / "1") == after.counts
        assert stored(place / "2") == before.kept + after.kept
        assert read_counts(place / "2")["likes"] == sum(row[4] for row in before.kept + after.kept)
        assert_contracts(place / "2")


def table(place: Path, files: Mapping[str, str]) -> Interactions:
    """A folder of CSV files below a header each."""
    place.mkdir()
    for name, rows in files.items():
        (place / name).write_text(HEADER + rows)
    return Interactions(path=str(place))


def bytes_of(folder: Path) -> dict[str, bytes]:
    kept = [*part_files(folder), folder / "items.parquet", folder / "users.parquet"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_the_order_of_rows_and_their_cut_into_files_change_no_byte_of_what_is_stored(tmp_path: Path) -> None:
    # 400 rows of 12 users, 9 items and 30 moments: many of them repeat each other, with other ratings.
    draw = random.Random(3)
    lines = [f"u{draw.randrange(12)},i{draw.randrange(9)},{draw.randrange(1, 12)},{978300000 + draw.randrange(30)}\n" for _ in range(400)]
    counts, kept = [], []
    for number, num_files in enumerate((1, 1, 2, 7)):
        draw.shuffle(lines)
        files = {f"{at}.csv": "".join(lines[at::num_files]) for at in range(num_files)}
        counts.append(gate(table(tmp_path / f"in{number}", files), tmp_path / f"out{number}"))
        kept.append(bytes_of(tmp_path / f"out{number}"))
        assert_contracts(tmp_path / f"out{number}")
    assert counts[0]["repeated"] > counts[0]["conflicting"] > 0
    assert counts[0]["quarantined"]["rating outside the scale"] > 0
    assert all(each == counts[0] for each in counts)
    assert all(each == kept[0] for each in kept)


def test_rows_that_repeat_user_item_and_moment_are_counted_and_the_lowest_rating_stays(tmp_path: Path) -> None:
    rows = "anna,mug,5,978300019\nanna,mug,2,978300019\nanna,mug,2,978300019\nben,mug,5,978300019\nben,mug,4,978300019\n"
    counts = gate(table(tmp_path / "in", {"a.csv": rows}), tmp_path / "out")
    # Of anna's three rows two are repeated, and one of these differs from the 2 that stays; ben's 5 differs from his 4.
    assert (counts["read"], counts["kept"], counts["repeated"], counts["conflicting"]) == (5, 2, 3, 2)
    assert stored(tmp_path / "out") == [("anna", "mug", 2.0, 978300019, 0), ("ben", "mug", 4.0, 978300019, 1)]


def test_the_same_user_and_item_at_another_moment_stay(tmp_path: Path) -> None:
    counts = gate(table(tmp_path / "in", {"a.csv": "anna,mug,5,978300019\nanna,mug,5,978300020\n"}), tmp_path / "out")
    assert (counts["kept"], counts["repeated"]) == (2, 0)


def test_clicks_of_one_moment_that_differ_are_a_conflict_and_the_no_stays(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,click,timestamp\nanna,mug,1,978300019\nanna,mug,0,978300019\n")
    counts = gate(Interactions(path=str(tmp_path / "a.csv"), click_column="click"), tmp_path / "out")
    assert (counts["repeated"], counts["conflicting"]) == (1, 1)
    assert stored(tmp_path / "out") == [("anna", "mug", None, 978300019, 0)]


def test_an_interaction_has_the_same_id_in_another_process_and_in_any_company(tmp_path: Path) -> None:
    rows = [f"u{at % 7},i{at % 5},4,{978300000 + at}\n" for at in range(60)]
    gate(table(tmp_path / "in", {"a.csv": "".join(rows)}), tmp_path / "out")
    ids = pl.read_parquet(part_files(tmp_path / "out")[0])
    assert ids["interaction_id"].n_unique() == 60
    assert ids["interaction_id"].min() >= 0
    code = (
        "import sys; from pathlib import Path; from e2urec_core.data.ingest import *; from e2urec_core.datasets.interactions import *;"
        "out = Path(sys.argv[2]); out.mkdir(); ingest(Interactions(path=sys.argv[1]), IngestRule(), out)"
    )
    table(tmp_path / "half", {"b.csv": "".join(reversed(rows[30:]))})
    words = [str(tmp_path / "half"), str(tmp_path / "there")]
    subprocess.run([sys.executable, "-c", code, *words], cwd=REPOSITORY, check=True, capture_output=True)
    half = pl.read_parquet(part_files(tmp_path / "there")[0])
    assert half.height == 30
    assert half.equals(ids.filter(pl.col("timestamp_s") >= 978300030))


def test_two_interactions_that_differ_in_one_of_user_item_and_moment_have_different_ids(tmp_path: Path) -> None:
    users, items, moments = ("anna", "ben", "12", "1"), ("mug", "2", "12", "anna"), (0, 1, 978300019)
    rows = "".join(f"{user},{item},4,{moment}\n" for user in users for item in items for moment in moments)
    gate(table(tmp_path / "in", {"a.csv": rows}), tmp_path / "out")
    assert pl.read_parquet(part_files(tmp_path / "out")[0])["interaction_id"].n_unique() == 4 * 4 * 3


def test_what_was_put_aside_stands_in_the_quarantine_as_it_stood_in_its_file(tmp_path: Path) -> None:
    # The header is line 1.
    files = {"a.csv": "anna, mug ,5,978300019\n\n ,mug,5 ,978300019\n", "b.csv": "ben,cup,eleven,978300019\ncarl,cup,3, soon\n"}
    counts = gate(table(tmp_path / "in", files), tmp_path / "out")
    assert counts["quarantined"] == {"missing user": 1, "unreadable rating": 1, "unreadable time": 1}
    assert pl.read_parquet(tmp_path / "out" / "quarantine.parquet").rows() == [
        ("missing user", "a.csv", 4, " ", "mug", "5 ", "978300019"),
        ("unreadable rating", "b.csv", 2, "ben", "cup", "eleven", "978300019"),
        ("unreadable time", "b.csv", 3, "carl", "cup", "3", " soon"),
    ]


def test_an_empty_quarantine_has_the_columns_of_a_full_one(tmp_path: Path) -> None:
    gate(table(tmp_path / "in", {"a.csv": "anna,mug,5,978300019\n"}), tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "quarantine.parquet").schema.equals(QUARANTINE.schema())


def with_bad_rows(place: Path, good: int, bad: list[str]) -> Interactions:
    return table(place, {"a.csv": "".join(f"u{at},mug,4,{978300000 + at}\n" for at in range(good)) + "".join(bad)})


def test_a_share_of_bad_rows_up_to_the_threshold_goes_on(tmp_path: Path) -> None:
    # 1 of 1,000 is 0.1 %, the usual threshold.
    dataset = with_bad_rows(tmp_path / "in", 999, ["v,mug,4,-1\n"])
    assert gate(dataset, tmp_path / "out", IngestRule())["quarantined"] == {"time outside 1970 to 2100": 1}
    assert gate(dataset, tmp_path / "exact", IngestRule(max_quarantined=0.001))["kept"] == 999


def test_a_share_of_bad_rows_above_the_threshold_stops_with_rules_counts_and_places_and_names_no_user(tmp_path: Path) -> None:
    bad = ["secret7,mug,9,978300019\n", "secret7,mug,77,978300019\n", "secret8,mug,4,soon\n", ",mug,4,978300019\n"]
    with pytest.raises(BadInput) as refused:
        gate(with_bad_rows(tmp_path / "in", 996, bad).model_copy(update={"highest_rating": 5.0}), tmp_path / "out", IngestRule())
    assert refused.value.fact == "4 of 1,000 rows (0.4 %) break a rule; at most 0.1 % may"
    assert refused.value.facts == {
        "rating outside the scale": "2 rows, first at a.csv line 998: '9'",
        "missing user": "1 rows, first at a.csv line 1,001",
        "unreadable time": "1 rows, first at a.csv line 1,000: 'soon'",
    }
    assert refused.value.hint == "the scale is 0 to 5: set `--dataset.lowest-rating` and `--dataset.highest-rating`"
    assert "secret" not in str(refused.value)


def test_a_folder_that_is_named_after_a_user_is_not_named_in_the_refusal(tmp_path: Path) -> None:
    (tmp_path / "in" / "user_id=secret7").mkdir(parents=True)
    (tmp_path / "in" / "user_id=secret7" / "a.csv").write_text("item_id,rating,timestamp\nmug,99,978300019\n")
    with pytest.raises(BadInput) as refused:
        gate(Interactions(path=str(tmp_path / "in")), tmp_path / "out", IngestRule())
    assert refused.value.facts == {"rating outside the scale": "1 rows, first at user_id=*/a.csv line 2: '99'"}


def test_rows_that_are_no_fault_do_not_count_against_the_threshold(tmp_path: Path) -> None:
    rows = [Row("a", "x", 4.0, 1), *[Row("a", "y", None, 2, unrated=True)] * 5]
    counts = gate(Rows(given=tuple(rows)), tmp_path / "out", IngestRule(max_quarantined=0))
    assert (counts["left_out"], counts["quarantined"], counts["read"]) == ({"unrated": 5}, {}, 6)
    assert pl.read_parquet(tmp_path / "out" / "quarantine.parquet").is_empty()


@pytest.mark.parametrize("rows", [(), (Row("a", "y", None, 2, unrated=True),), (Row(None, "x", 4.0, 1),)], ids=["none", "no-fault", "bad"])
def test_a_source_without_a_row_to_keep_is_refused(tmp_path: Path, rows: tuple[Row, ...]) -> None:
    with pytest.raises(BadInput) as refused:
        gate(Rows(given=rows), tmp_path / "out")
    assert refused.value.fact == "the dataset holds 0 interactions"


def test_a_source_in_which_everybody_was_deleted_is_refused_with_that_reason(tmp_path: Path) -> None:
    rule = IngestRule(deleted=deletion_list(tmp_path, {"a": (5,)}))
    with pytest.raises(BadInput) as refused:
        gate(Rows(given=(Row("a", "x", 4.0, 5),)), tmp_path / "out", rule)
    assert (refused.value.fact, refused.value.hint) == ("no interactions are left", "every row belongs to a deleted or suppressed user")


def test_a_deleted_user_whom_the_source_still_lists_is_not_stored_without_a_later_row(tmp_path: Path) -> None:
    rule = IngestRule(max_quarantined=1, deleted=deletion_list(tmp_path, {"a": (2,), "b": (2,)}))
    gate(Rows(given=(Row("a", "x", 4.0, 1), Row("b", "x", 4.0, 3))), tmp_path / "out", rule)
    # c has no row and was not deleted.
    assert pl.read_parquet(tmp_path / "out" / "users.parquet").rows() == [("b#2", "B.", None), ("c", "C.", None)]


def test_no_file_holds_a_smallest_or_largest_user_in_its_footer(tmp_path: Path) -> None:
    gate(with_bad_rows(tmp_path / "in", 3, ["v,mug,4,-1\n"]), tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.parquet"):
        group = pq.read_metadata(path).row_group(0)
        assert all(group.column(at).statistics is None for at in range(group.num_columns)), path.name
