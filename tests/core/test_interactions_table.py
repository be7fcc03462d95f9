"""A table of the user's own: columns by setting, four kinds of files, ids and moments in the many ways in which people write them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.places import part_files
from e2urec_core.datasets.base import Dataset
from e2urec_core.datasets.interactions import Interactions
from e2urec_core.errors import BadInput, BadSetting

REPOSITORY = Path(__file__).parents[2]
NOW = 978300019
ROWS = [("anna", "mug", 5.0, NOW), ("ben", "cup", 2.0, NOW + 1)]
CSV = f"user_id,item_id,rating,timestamp\nanna,mug,5,{NOW}\nben,cup,2,{NOW + 1}\n"
FRAME = pl.DataFrame({"user_id": ["anna", "ben"], "item_id": ["mug", "cup"], "rating": [5, 2], "timestamp": [NOW, NOW + 1]})


class Stored(NamedTuple):
    """What the gate has stored of a table."""

    rows: list[tuple[str, str, float | None, int]]
    labels: list[int]
    titles: dict[str, str]
    profiles: dict[str, str | None]
    aside: dict[str, int]
    remarks: list[str]


def stored(place: Path, path: Path, **settings: Any) -> Stored:
    """Read a table through the gate, however many of its rows are bad."""
    out = place / f"out-{len(list(place.glob('out-*')))}"
    out.mkdir()
    ingest(Interactions(path=str(path), **settings), IngestRule(max_quarantined=1), out)
    rows, noted = pl.read_parquet(part_files(out)), read_counts(out)
    return Stored(
        rows.select("user_id", "item_id", "rating", "timestamp_s").rows(),
        rows["label"].to_list(),
        dict(pl.read_parquet(out / "items.parquet").rows()),
        dict(pl.read_parquet(out / "users.parquet").select("user_id", "profile").rows()),
        noted["this_reading"]["quarantined"],
        noted["remarks"],
    )


def text(place: Path, content: str, name: str = "rows.csv") -> Path:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(content)
    return place / name


def parquet(place: Path, frame: pl.DataFrame, name: str = "rows.parquet") -> Path:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(place / name)
    return place / name


def ndjson(rows: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def written(place: Path, kind: str) -> Path:
    """The two rows in one kind of file."""
    if kind == "parquet":
        return parquet(place, FRAME)
    if kind in ("csv.gz", "ndjson.gz"):
        data = CSV if kind == "csv.gz" else ndjson(FRAME.to_dicts())
        (place / f"rows.{kind}").write_bytes(gzip.compress(data.encode()))
        return place / f"rows.{kind}"
    contents = {"csv": CSV, "tsv": CSV.replace(",", "\t"), "ndjson": ndjson(FRAME.to_dicts()), "jsonl": ndjson(FRAME.to_dicts())}
    return text(place, contents[kind], f"rows.{kind}")


@pytest.mark.parametrize("kind", ["csv", "tsv", "ndjson", "jsonl", "parquet", "csv.gz", "ndjson.gz"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    told = stored(tmp_path, written(tmp_path, kind))
    assert told.rows == ROWS
    assert (told.labels, told.aside) == ([1, 0], {})
    assert told.titles == {"mug": "mug", "cup": "cup"}
    assert told.profiles == {"anna": None, "ben": None}


def test_a_format_that_is_named_holds_whatever_the_ending(tmp_path: Path) -> None:
    assert stored(tmp_path, text(tmp_path, CSV.replace(",", ";"), "export.txt"), format="csv", separator=";").rows == ROWS


def test_a_folder_is_all_its_files_but_those_that_are_hidden(tmp_path: Path) -> None:
    lines = CSV.splitlines(keepends=True)
    text(tmp_path, lines[0] + lines[1], "in/a.csv")
    text(tmp_path, lines[0] + lines[2], "in/deeper/b.csv")
    text(tmp_path, CSV.replace("ben", "carl"), "in/_old/d.csv")
    text(tmp_path, "what", "in/_SUCCESS")
    text(tmp_path, CSV.replace("ben", "carl"), "in/.ipynb_checkpoints/c.csv")
    assert stored(tmp_path, tmp_path / "in").rows == ROWS


def test_a_glob_is_the_files_that_it_meets(tmp_path: Path) -> None:
    lines = CSV.splitlines(keepends=True)
    text(tmp_path, lines[0] + lines[1], "in/day-1.csv")
    text(tmp_path, lines[0] + lines[2], "in/day-2.csv")
    text(tmp_path, lines[0] + lines[2].replace("ben", "carl"), "in/other.csv")
    assert stored(tmp_path, tmp_path / "in" / "day-*.csv").rows == ROWS


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_folders_named_key_and_value_are_columns_of_text(tmp_path: Path, kind: str) -> None:
    for item, row in (("007", 0), ("a%20b", 1), ("__HIVE_DEFAULT_PARTITION__", 1)):
        frame = FRAME[row].drop("item_id")
        name = f"in/item_id={item}/part.{kind}"
        if kind == "parquet":
            parquet(tmp_path, frame, name)
        else:
            text(tmp_path, frame.write_csv() if kind == "csv" else ndjson(frame.to_dicts()), name)
    told = stored(tmp_path, tmp_path / "in")
    assert told.rows == [("anna", "007", 5.0, NOW), ("ben", "a b", 2.0, NOW + 1)]
    assert told.aside == {"missing item": 1}
    assert stored(tmp_path, tmp_path / "in" / "item_id=007" / f"part.{kind}").rows == told.rows[:1]


def test_files_may_have_their_columns_in_another_order_and_more_of_them(tmp_path: Path) -> None:
    text(tmp_path, CSV, "in/a.csv")
    text(tmp_path, f"more,timestamp,rating,item_id,user_id\n1,{NOW + 2},4,jug,carl\n", "in/b.csv")
    assert stored(tmp_path, tmp_path / "in").rows == [*ROWS, ("carl", "jug", 4.0, NOW + 2)]


def test_columns_of_other_names_are_named_by_settings(tmp_path: Path) -> None:
    path = text(tmp_path, CSV.replace("user_id,item_id,rating,timestamp", "who,what,stars,at"))
    columns = {"user_column": "who", "item_column": "what", "rating_column": "stars", "time_column": "at"}
    assert stored(tmp_path, path, **columns).rows == ROWS


def test_a_table_may_have_columns_called_file_and_line_of_its_own(tmp_path: Path) -> None:
    frame = FRAME.with_columns(file=pl.lit("x"), line=7)
    for path in (parquet(tmp_path, frame), text(tmp_path, frame.write_csv()), text(tmp_path, ndjson(frame.to_dicts()), "rows.ndjson")):
        assert stored(tmp_path, path).rows == ROWS
    with pytest.raises(BadSetting) as refused:
        stored(tmp_path, path, item_column="file")
    assert refused.value.fact == "1 of 4 columns of the table are called `file`, which is the name of a row's place"


@pytest.mark.parametrize(
    ("found", "hint"),
    [("userid", "did you mean `userid`? "), ("user_ids", "did you mean `user_ids`? "), ("customer", "")],
)
def test_a_missing_column_is_named_with_the_nearest_that_is_there(tmp_path: Path, found: str, hint: str) -> None:
    for path in (text(tmp_path, CSV.replace("user_id", found)), parquet(tmp_path, FRAME.rename({"user_id": found}))):
        with pytest.raises(BadInput) as refused:
            stored(tmp_path, path)
        assert refused.value.fact == "1 of 4 columns are missing in the table: user_id"
        assert refused.value.facts == {"its columns": f"{found}, item_id, rating, timestamp"}
        assert refused.value.hint == f"{hint}name the columns by settings such as `--dataset.user-column`, `--dataset.time-column`"


def test_a_first_row_in_the_place_of_a_header_is_recognised_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        stored(tmp_path, text(tmp_path, CSV.split("\n", 1)[1]))
    assert refused.value.fact == "4 of 4 columns are missing in the table: user_id, item_id, timestamp, rating"
    assert refused.value.facts == {"its columns": "4; the first line looks like a row"}
    assert refused.value.hint.startswith("write the names of the columns into the first line; ")
    assert "anna" not in str(refused.value)


def test_a_field_that_only_late_ndjson_rows_have_is_found(tmp_path: Path) -> None:
    early = {"user_id": "anna", "item_id": "mug", "timestamp": NOW}
    path = text(tmp_path, ndjson([early] * 1500 + [{**early, "rating": 4}]), "rows.ndjson")
    told = stored(tmp_path, path)
    assert (told.rows, told.aside) == ([("anna", "mug", 4.0, NOW)], {"unreadable rating": 1500})


def test_files_of_several_formats_in_one_folder_are_refused(tmp_path: Path) -> None:
    text(tmp_path, CSV, "in/a.csv")
    parquet(tmp_path, FRAME, "in/b.parquet")
    with pytest.raises(BadInput) as refused:
        stored(tmp_path, tmp_path / "in")
    assert refused.value.fact == f"`{tmp_path / 'in'}` holds 2 files of 2 known formats: 1 csv, 1 parquet"
    assert "--dataset.format" in refused.value.hint


def test_a_rating_above_the_threshold_is_a_yes_and_one_on_it_a_no(tmp_path: Path) -> None:
    # In 32 bits, 3.7 is a little more than in 64.
    ratings = (0, 3, 3.7, 3.8, 10)
    path = text(tmp_path, "user_id,item_id,rating,timestamp\n" + "".join(f"u,i,{rating},{NOW + at}\n" for at, rating in enumerate(ratings)))
    assert stored(tmp_path, path).labels == [0, 0, 1, 1, 1]
    assert stored(tmp_path, path, like_above=3.7).labels == [0, 0, 0, 1, 1]


CLICKS = {"1": 1, "0": 0, "true": 1, "FALSE": 0, " Yes ": 1, "no": 0, "1.0": 1, "clicked": 1, "skip": 0, "-1": 0}


def test_a_click_column_says_yes_or_no_in_many_words_and_needs_no_rating(tmp_path: Path) -> None:
    lines = [f"u,i,{word},{NOW + at}\n" for at, word in enumerate([*CLICKS, "2", "maybe", ""])]
    told = stored(tmp_path, text(tmp_path, "user_id,item_id,click,timestamp\n" + "".join(lines)), click_column="click")
    assert told.labels == list(CLICKS.values())
    assert {row[2] for row in told.rows} == {None}
    assert told.aside == {"click is neither yes nor no": 3}


@pytest.mark.parametrize("clicks", [[True, False], [1, 0], [1.0, 0.0], ["yes", "no"]], ids=["bool", "int", "float", "text"])
def test_a_typed_click_column_says_the_same(tmp_path: Path, clicks: list[Any]) -> None:
    assert stored(tmp_path, parquet(tmp_path, FRAME.with_columns(click=pl.Series(clicks))), click_column="click").labels == [1, 0]


def test_a_table_without_a_rating_or_click_column_is_asked_for_one(tmp_path: Path) -> None:
    with pytest.raises(BadSetting) as refused:
        stored(tmp_path, text(tmp_path, CSV), rating_column=None)
    assert (
        refused.value.fact == "neither `--dataset.rating-column` nor `--dataset.click-column` names a column, so no row says who liked what"
    )


@pytest.mark.parametrize("path", [None, ""])
def test_a_table_that_was_not_named_is_asked_for(path: str | None) -> None:
    for ask in (Interactions(path=path).scan, Interactions(path=path).fingerprint):
        with pytest.raises(BadSetting) as refused:
            ask()
        assert refused.value.hint == "add `--dataset.path FILE`"


def ids_of(place: Path, path: Path) -> tuple[list[str], dict[str, int]]:
    told = stored(place, path)
    return [row[0] for row in told.rows], told.aside


def with_ids(values: list[Any], kind: pl.DataType | type[pl.DataType] | None = None) -> pl.DataFrame:
    count = len(values)
    columns = {"item_id": ["mug"] * count, "rating": [5] * count, "timestamp": list(range(NOW, NOW + count))}
    return pl.DataFrame({"user_id": pl.Series(values, dtype=kind), **columns})


@pytest.mark.parametrize(
    ("frame", "ids", "missing"),
    [
        (with_ids(["007", "7", " 7 ", "-7", "2147483648", "12.0"]), ["007", "7", "7", "-7", "2147483648", "12.0"], 0),
        (with_ids(["", "  ", "\t", None, "anna b"]), ["anna b"], 4),
        (with_ids([7, -7, 2**31, 2**62, None]), ["7", "-7", str(2**31), str(2**62)], 1),
        (with_ids([2**64 - 1], pl.UInt64), [str(2**64 - 1)], 0),
        # A column of whole numbers with a missing value is a float column in pandas.
        (with_ids([12.0, -0.0, None, float("nan"), 12.5, float("inf"), 2.0**53]), ["12", "0"], 5),
        (with_ids(["12", "13"]).with_columns(pl.col("user_id").cast(pl.Decimal(20, 3))), ["12", "13"], 0),
        (with_ids(["anna", "ben"]).with_columns(pl.col("user_id").cast(pl.Categorical)), ["anna", "ben"], 0),
        (with_ids([b"anna", b"ben"]), ["anna", "ben"], 0),
    ],
    ids=["text", "empty", "integers", "unsigned", "floats", "decimals", "categories", "bytes"],
)
def test_ids_are_text_trimmed_and_otherwise_as_they_stand(tmp_path: Path, frame: pl.DataFrame, ids: list[str], missing: int) -> None:
    assert ids_of(tmp_path, parquet(tmp_path, frame)) == (ids, {"missing user": missing} if missing else {})


def test_numbers_and_text_are_the_same_ids_in_csv_ndjson_and_parquet(tmp_path: Path) -> None:
    lines = [
        f'{{"user_id":{user},"item_id":"mug","rating":5,"timestamp":{NOW + at}}}\n'
        for at, user in enumerate(('"007"', "7", "12345678901234567890"))
    ]
    ids = (["007", "7", "12345678901234567890"], {})
    assert ids_of(tmp_path, text(tmp_path, "".join(lines), "rows.ndjson")) == ids
    csv = "".join(f"{user},mug,5,{NOW + at}\n" for at, user in enumerate(ids[0]))
    assert ids_of(tmp_path, text(tmp_path, f"user_id,item_id,rating,timestamp\n{csv}")) == ids


def times_of(place: Path, values: list[Any], **settings: Any) -> tuple[list[int], dict[str, int], list[str]]:
    """Moments as text in a CSV file."""
    lines = "".join(f"u,i{at},5,{value}\n" for at, value in enumerate(values))
    told = stored(place, text(place, f"user_id,item_id,rating,timestamp\n{lines}"), **settings)
    return [row[3] for row in told.rows], told.aside, told.remarks


@pytest.mark.parametrize(("unit", "size"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_numbers_are_seconds_or_finer_units_as_told_or_as_their_median_tells(tmp_path: Path, unit: str, size: int) -> None:
    moments = [NOW * size, (NOW + 10) * size, (NOW + 11) * size - (size > 1)]
    seconds = [NOW, NOW + 10, NOW + 11 - (size > 1)]
    assert times_of(tmp_path, moments, time_unit=unit) == (seconds, {}, [])
    assert times_of(tmp_path, moments) == (seconds, {}, [f"times are read as {unit} since 1970"])
    typed = parquet(tmp_path, pl.DataFrame({"user_id": "u", "item_id": ["a", "b", "c"], "rating": 5, "timestamp": moments}))
    assert [row[3] for row in stored(tmp_path, typed).rows] == seconds


def test_nanoseconds_in_text_keep_every_digit(tmp_path: Path) -> None:
    # As a 64-bit float, this is rounded up to the next second.
    assert times_of(tmp_path, [f"{NOW}999999999"], time_unit="ns")[0] == [NOW]


def test_seconds_with_a_fraction_are_rounded_down(tmp_path: Path) -> None:
    assert times_of(tmp_path, [f"{NOW}.9", f" {NOW} ", "9.78300019e8"])[0] == [NOW] * 3
    frame = FRAME.with_columns(timestamp=pl.Series([NOW + 0.9, NOW + 1.5]))
    assert stored(tmp_path, parquet(tmp_path, frame)).rows == ROWS


def test_one_unit_holds_for_the_whole_table_however_its_rows_are_ordered(tmp_path: Path) -> None:
    moments = [str(NOW + at) for at in range(6)] + [str((NOW + at) * 1000) for at in range(6, 10)]
    told = times_of(tmp_path, moments)
    assert told == times_of(tmp_path, moments[::-1])
    # Six of ten are seconds, so the other four are far in the future.
    assert told == (list(range(NOW, NOW + 6)), {"time outside 1970 to 2100": 4}, ["times are read as s since 1970"])


def test_the_unit_of_a_long_table_is_not_that_of_its_first_rows(tmp_path: Path) -> None:
    count = 150_000
    moments = pl.Series(range(NOW, NOW + 2 * count))
    frame = pl.DataFrame(
        {"user_id": "u", "item_id": "i", "rating": 5, "timestamp": pl.concat([moments[: count - 1], moments[count - 1 :] * 1000])}
    )
    told = stored(tmp_path, parquet(tmp_path, frame))
    assert told.remarks == ["times are read as ms since 1970"]


DATES = {
    "2000-12-31T22:00:19Z": 0,
    "2000-12-31 22:00:19": 0,
    "2000-12-31T22:00:19.999999Z": 0,
    "2000-12-31T23:00:19+01:00": 0,
    "2000-12-31T16:30:19-0530": 0,
    "2000-12-31 22:00": -19,
    "2000-12-31": -19 - 22 * 3600,
    "2000/12/31 22:00:19 UTC": 0,
}


@pytest.mark.parametrize("turn", [1, -1])
def test_dates_in_text_are_read_one_by_one_whatever_stands_first(tmp_path: Path, turn: int) -> None:
    # NOW is 2000-12-31 22:00:19 UTC.
    texts = list(DATES)[::turn]
    told = times_of(tmp_path, [*texts, "31.12.2000", "2000-02-30", "soon"])
    assert told[0] == sorted(NOW + shift for shift in DATES.values())
    assert told[1:] == ({"unreadable time": 3}, ["times are read as dates in text"])
    assert times_of(tmp_path, texts, time_unit="iso")[0] == told[0]


@pytest.mark.parametrize(
    "moments",
    [
        pl.Series([datetime(2000, 12, 31, 22, 0, 19), datetime(2000, 12, 31, 22, 0, 20)], dtype=pl.Datetime("ms")),
        pl.Series([datetime(2000, 12, 31, 22, 0, 19, 999), datetime(2000, 12, 31, 22, 0, 20)], dtype=pl.Datetime("ns")),
        pl.Series([datetime(2000, 12, 31, 22, 0, 19, tzinfo=UTC), datetime(2000, 12, 31, 22, 0, 20, tzinfo=UTC)]).dt.convert_time_zone(
            "Asia/Tokyo"
        ),
    ],
    ids=["ms", "ns", "zone"],
)
def test_typed_moments_are_read_as_such(tmp_path: Path, moments: pl.Series) -> None:
    told = stored(tmp_path, parquet(tmp_path, FRAME.with_columns(timestamp=moments)))
    assert (told.rows, told.remarks) == (ROWS, ["times are read as the table's own dates"])


def test_typed_dates_are_their_midnight(tmp_path: Path) -> None:
    told = stored(tmp_path, parquet(tmp_path, FRAME.with_columns(timestamp=date(1970, 1, 2))))
    assert {row[3] for row in told.rows} == {86_400}


def test_numbers_are_not_taken_for_dates_in_text(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        stored(tmp_path, parquet(tmp_path, FRAME), time_unit="iso")
    assert refused.value.fact == "the column `timestamp` holds numbers, not dates in text"


def test_titles_may_stand_in_the_rows_and_the_newest_that_is_not_blank_holds(tmp_path: Path) -> None:
    rows = [("mug", "Old Mug", 0), ("mug", "Mug", 2), ("mug", "", 3), ("cup", "Cup B", 1), ("cup", "Cup A", 1), ("jug", " ", 4)]
    lines = "".join(f"u,{item},5,{NOW + at},{title}\n" for item, title, at in rows)
    told = stored(tmp_path, text(tmp_path, f"user_id,item_id,rating,timestamp,title\n{lines}"), title_column="title")
    assert told.titles == {"mug": "Mug", "cup": "Cup B"}
    assert told.aside == {"item without a title": 1}


def test_titles_may_stand_in_a_table_of_their_own_and_items_that_it_does_not_list_are_put_aside(tmp_path: Path) -> None:
    items = text(tmp_path, "item_id,title\nmug,Mug\njug,Jug\npot,\n", "items.csv")
    path = text(tmp_path, CSV + f"carl,pot,5,{NOW}\n")
    told = stored(tmp_path, path, items_path=str(items))
    assert told.rows == ROWS[:1]
    assert told.titles == {"mug": "Mug", "jug": "Jug"}
    assert told.aside == {"unknown item": 1, "item without a title": 1}
    named = text(tmp_path, "item_id,name\nmug,Mug\ncup,Cup\npot,Pot\n", "items.csv")
    assert stored(tmp_path, path, items_path=str(named), title_column="name").titles["cup"] == "Cup"
    with pytest.raises(BadInput) as refused:
        stored(tmp_path, path, items_path=str(named))
    assert refused.value.fact == "1 of 2 columns are missing in the table of items: title"


def test_an_item_that_is_listed_twice_with_different_titles_is_refused(tmp_path: Path) -> None:
    items = text(tmp_path, "item_id,title\nmug,Mug\nmug,Mug\ncup,Cup\n", "items.csv")
    assert stored(tmp_path, text(tmp_path, CSV), items_path=str(items)).titles == {"mug": "Mug", "cup": "Cup"}
    items.write_text("item_id,title\nmug,Mug\nmug,Big Mug\ncup,Cup\n")
    with pytest.raises(BadInput) as refused:
        stored(tmp_path, text(tmp_path, CSV), items_path=str(items))
    assert refused.value.fact == "1 of 3 items are listed twice with different titles"


def test_profiles_may_stand_in_the_rows_and_the_newest_word_of_each_column_holds(tmp_path: Path) -> None:
    lines = f"anna,mug,5,{NOW},25,nurse\nanna,cup,5,{NOW + 1},26,\nben,cup,5,{NOW},,\n"
    path = text(tmp_path, f"user_id,item_id,rating,timestamp,age,job\n{lines}")
    told = stored(tmp_path, path, profile_columns="age, job")
    assert told.profiles == {"anna": "The user: age 26, job nurse.", "ben": None}


def test_profiles_may_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    users = text(tmp_path, ndjson([{"user_id": "anna", "age": 25, "job": "nurse\n"}, {"user_id": "zoe", "age": 3}]), "users.ndjson")
    told = stored(tmp_path, text(tmp_path, CSV), users_path=str(users), profile_columns="job,age")
    assert told.profiles == {"anna": "The user: job nurse, age 25.", "ben": None}
    users.write_text(ndjson([{"user_id": "anna", "age": 25}, {"user_id": "anna", "age": 26}]))
    with pytest.raises(BadInput) as refused:
        stored(tmp_path, text(tmp_path, CSV), users_path=str(users), profile_columns="age")
    assert refused.value.fact == "1 of 2 users are listed twice"


def test_fingerprint_follows_the_bytes_of_all_tables_and_not_their_place(tmp_path: Path) -> None:
    tables = []
    for name in ("here", "there"):
        rows, items, users = (text(tmp_path, CSV + part, f"{name}/{part or 'rows'}.csv") for part in ("", "items", "users"))
        tables.append(Interactions(path=str(rows), items_path=str(items), users_path=str(users)))
    assert tables[0].fingerprint() == tables[1].fingerprint()
    for name in ("rows", "items", "users"):
        before = tables[1].fingerprint()
        text(tmp_path, "other", f"there/{name}.csv")
        assert tables[1].fingerprint() != before


def test_settings_make_a_round_trip_through_json() -> None:
    dataset = Interactions(path="rows.csv", click_column="click", rating_column=None, profile_columns="age")
    assert Dataset.model_validate(json.loads(json.dumps(dataset.canonical()))) == dataset


def test_importing_the_dataset_imports_no_polars() -> None:
    code = "import sys, e2urec_core.datasets.interactions; assert not {'polars', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_the_newest_moment_is_the_contracts() -> None:
    from data_contracts.interactions import LAST_TIMESTAMP_S
    from e2urec_core.data.moments import NEWEST_S

    assert NEWEST_S == LAST_TIMESTAMP_S
