"""A table of the user's own: rows 44 to 55 and 57 of FAULTS. A bad row is put aside under its rule; a file that is no table is refused.

Every refusal is one sentence with its numbers and a hint, and names no user: the user of the bad rows is always `secret7`.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2urec_core.data.appending import read_counts
from e2urec_core.data.files import reading
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.places import part_files
from e2urec_core.datasets.interactions import Interactions
from e2urec_core.errors import BadInput, UserError

USER = "secret7"
NOW = 978300019
HEADER = "user_id,item_id,rating,timestamp\n"
GOOD = f"anna,mug,5,{NOW}\nben,cup,2,{NOW + 1}\n"
ROWS = [("anna", "mug", 5.0, NOW), ("ben", "cup", 2.0, NOW + 1)]
ALL = IngestRule(max_quarantined=1)


class Read:
    """A table, read through the gate.

    Args:
        place: Folder for it.
        data: Bytes of its file.
        name: Name of its file.
        rule: What the gate lets through; everything, without one.
        settings: Of the dataset.
    """

    def __init__(self, place: Path, data: bytes | str, name: str = "rows.csv", rule: IngestRule = ALL, **settings: Any) -> None:
        place = Path(tempfile.mkdtemp(dir=place))
        (place / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        self.path, out = place / name, place / "out"
        out.mkdir()
        ingest(Interactions(path=str(place / name), **settings), rule, out)
        self.told = read_counts(out)["this_reading"]
        self.rows = pl.read_parquet(part_files(out)).select("user_id", "item_id", "rating", "timestamp_s").rows()
        self.titles = dict(pl.read_parquet(out / "items.parquet").rows())
        self.aside = pl.read_parquet(out / "quarantine.parquet").rows()
        self.bytes = part_files(out)[0].read_bytes()


def refusal(place: Path, data: bytes | str, name: str = "rows.csv", **settings: Any) -> BadInput:
    with pytest.raises(BadInput) as caught:
        Read(place, data, name, **settings)
    assert USER not in str(caught.value)
    assert caught.value.hint
    assert "\n" not in caught.value.fact
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value


def assert_cannot_be_read(error: BadInput, why: str, hint: str) -> None:
    assert error.fact.startswith("`/")
    assert error.fact.endswith(f"` cannot be read as a table: {why}")
    assert error.hint == hint


def as_parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


FRAME = pl.DataFrame(ROWS, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")


# 44: columns


def test_row_44_a_missing_or_renamed_column_stops_and_names_the_nearest(tmp_path: Path) -> None:
    error = refusal(tmp_path, (HEADER + GOOD).replace("item_id", "item"))
    assert error.fact == "1 of 4 columns are missing in the table: item_id"
    assert error.facts == {"its columns": "user_id, item, rating, timestamp"}
    assert error.hint.startswith("did you mean `item`? ")


def test_row_44_reordered_and_new_columns_change_nothing(tmp_path: Path) -> None:
    assert Read(tmp_path, f"new,timestamp,rating,item_id,user_id\n9,{NOW},5,mug,anna\n,{NOW + 1},2,cup,ben\n").rows == ROWS


@pytest.mark.parametrize(
    ("column", "values", "fact"),
    [
        ("user_id", [["a"], ["b"]], "1 of 4 columns of the table hold lists or records: user_id"),
        ("item_id", [{"a": 1}, {"a": 2}], "1 of 4 columns of the table hold lists or records: item_id"),
        ("rating", [True, False], "the column `rating` holds Boolean, not numbers"),
        ("timestamp", [True, False], "the column `timestamp` holds Boolean, not moments"),
        ("timestamp", [[1], [2]], "1 of 4 columns of the table hold lists or records: timestamp"),
    ],
)
def test_row_44_a_column_of_a_type_that_cannot_be_meant_stops(tmp_path: Path, column: str, values: list[Any], fact: str) -> None:
    assert refusal(tmp_path, as_parquet(FRAME.with_columns(pl.Series(column, values))), "rows.parquet").fact == fact


@pytest.mark.parametrize("kind", [pl.Time, pl.Duration("us")])
def test_row_44_a_time_of_day_or_a_span_is_no_moment(tmp_path: Path, kind: Any) -> None:
    data = as_parquet(FRAME.with_columns(timestamp=pl.lit(5, pl.Int64).cast(kind)))
    assert "not moments" in refusal(tmp_path, data, "rows.parquet").fact


def test_row_44_a_column_that_holds_nothing_puts_every_row_aside(tmp_path: Path) -> None:
    data = as_parquet(FRAME.with_columns(rating=pl.lit(None)))
    error = refusal(tmp_path, data, "rows.parquet", rule=IngestRule())
    assert error.fact == "2 of 2 rows (100 %) break a rule; at most 0.1 % may"
    assert error.facts == {"unreadable rating": "2 rows, first at rows.parquet line 1"}


def test_row_44_numbers_in_text_columns_are_read(tmp_path: Path) -> None:
    assert Read(tmp_path, as_parquet(FRAME.cast(pl.String)), "rows.parquet").rows == ROWS


# 45 and 46: encodings, line ends


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.removesuffix(b"\n"),
        lambda text: b"\n\n" + text.replace(b"\n", b"\n\n\n"),
        lambda text: text.replace(b"mug", b'"mug"'),
    ],
    ids=["bom", "crlf", "no-final-newline", "blank-lines", "quotes"],
)
def test_row_46_marks_and_line_ends_change_no_row_and_no_count(tmp_path: Path, change: Any) -> None:
    plain, changed = (Read(tmp_path, text) for text in ((HEADER + GOOD).encode(), change((HEADER + GOOD).encode())))
    assert changed.rows == plain.rows == ROWS
    assert changed.told == plain.told
    assert changed.bytes == plain.bytes


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_row_45_latin_1_is_refused(tmp_path: Path, pack: Any) -> None:
    data = pack((HEADER + GOOD + f"{USER},café,3,{NOW}\n").encode("latin-1"))
    error = refusal(tmp_path, data, "rows.csv.gz" if pack is gzip.compress else "rows.csv")
    assert_cannot_be_read(error, "it is not UTF-8", "convert it by `iconv -f LATIN1 -t UTF-8`")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_row_46_utf_16_is_refused(tmp_path: Path, encoding: str, pack: Any) -> None:
    error = refusal(tmp_path, pack((HEADER + GOOD).encode(encoding)), "rows.csv.gz" if pack is gzip.compress else "rows.csv")
    assert "looks like UTF-16, or holds NUL bytes" in error.fact
    assert error.hint.startswith("convert it by `iconv -f UTF-16 -t UTF-8`")


def test_row_46_a_nul_byte_is_refused_and_counted(tmp_path: Path) -> None:
    data = (HEADER + GOOD).replace("cup", "c\0up")
    assert refusal(tmp_path, data).fact == f"`rows.csv` looks like UTF-16, or holds NUL bytes: 1 in its first {len(data)} bytes"


@pytest.mark.parametrize("data", ["", "\n", "\n\r\n"])
def test_row_46_an_empty_file_is_named(tmp_path: Path, data: str) -> None:
    assert refusal(tmp_path, data).fact.endswith("rows.csv` is empty: 0 rows")
    assert refusal(tmp_path, "", "rows.ndjson").fact.endswith("rows.ndjson` is empty: 0 rows")


def test_row_46_a_header_without_rows_holds_nothing(tmp_path: Path) -> None:
    assert refusal(tmp_path, HEADER).fact == "the dataset holds 0 interactions"


# 47 and 48: duplicates, ties


def test_row_47_exact_duplicates_are_dropped_and_conflicts_are_counted(tmp_path: Path) -> None:
    told = Read(tmp_path, HEADER + GOOD + f"anna,mug,5,{NOW}\nben,cup,3,{NOW + 1}\nben,cup,2,{NOW + 9}\n").told
    # anna's row again is exact, ben's 3 beside his 2 is a conflict, and his 2 at another moment is a row of its own.
    assert (told["read"], told["kept"], told["repeated"], told["conflicting"]) == (5, 3, 2, 1)


def test_row_48_ties_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [f"u{user},i{item},{1 + (user + item) % 5},{NOW}\n" for user in range(9) for item in range(9)]
    one = Read(tmp_path, HEADER + "".join(rows))
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        assert Read(tmp_path, HEADER + "".join(rows)).bytes == one.bytes
    assert [row[:2] for row in one.rows] == sorted(row[:2] for row in one.rows)


# 49 to 51: values


def put_aside(place: Path, row: str, rule: str, raw: tuple[str | None, ...], **settings: Any) -> None:
    """One bad row late among good ones is put aside as it stood, and with the usual threshold the run stops, without the user."""
    data = HEADER + GOOD + row
    read = Read(place, data, **settings)
    assert (read.rows, read.told["quarantined"]) == (ROWS, {rule: 1})
    assert read.aside == [(rule, "rows.csv", 4, *raw)]
    error = refusal(place, data, rule=IngestRule(), **settings)
    assert error.fact == "1 of 3 rows (33.3 %) break a rule; at most 0.1 % may"
    assert list(error.facts) == [rule]
    assert error.facts[rule].startswith("1 rows, first at rows.csv line 4")


@pytest.mark.parametrize("time", ["-1", f"-{NOW}", f"{NOW}000", f"{NOW}000000", f"{NOW}000000000", "4102444801", "1e12"])
def test_row_49_a_moment_out_of_the_window_is_put_aside(tmp_path: Path, time: str) -> None:
    put_aside(tmp_path, f"{USER},mug,5,{time}\n", "time outside 1970 to 2100", (USER, "mug", "5", time))


@pytest.mark.parametrize("time", ["soon", "NaN", "inf", "9" * 30, "12:00", "2000-13-01", "1 000"])
def test_row_49_a_moment_that_is_none_is_put_aside(tmp_path: Path, time: str) -> None:
    put_aside(tmp_path, f"{USER},mug,5,{time}\n", "unreadable time", (USER, "mug", "5", time))


def test_row_49_the_first_and_the_last_moment_of_the_window_are_kept(tmp_path: Path) -> None:
    assert [row[3] for row in Read(tmp_path, f"{HEADER}a,i,5,0\na,i,5,4102444800\n").rows] == [0, 4102444800]


def test_row_49_rows_in_another_unit_than_most_are_put_aside_and_not_converted(tmp_path: Path) -> None:
    read = Read(tmp_path, HEADER + GOOD + f"anna,jug,5,{NOW + 5}000\n" + f"anna,jug,5,{NOW + 6}\n")
    assert read.told["quarantined"] == {"time outside 1970 to 2100": 1}
    error = refusal(tmp_path, HEADER + GOOD + f"{USER},jug,5,{NOW}000\n", rule=IngestRule())
    assert error.hint == "times were read as s since 1970: set `--dataset.time-unit`, or take these rows out"


def test_row_49_milliseconds_that_are_taken_for_seconds_are_put_aside(tmp_path: Path) -> None:
    error = refusal(tmp_path, HEADER + GOOD.replace("97830", "97830000", 2), time_unit="s", rule=IngestRule())
    assert error.facts == {"time outside 1970 to 2100": f"2 rows, first at rows.csv line 2: '{NOW}'".replace("97830", "97830000")}


@pytest.mark.parametrize("rating", ["0", "6", "NaN", "inf", "-1", "1e300"])
def test_row_50_a_rating_off_the_scale_is_put_aside(tmp_path: Path, rating: str) -> None:
    row = f"{USER},mug,{rating},{NOW}\n"
    put_aside(tmp_path, row, "rating outside the scale", (USER, "mug", rating, str(NOW)), lowest_rating=1, highest_rating=5)
    error = refusal(tmp_path, HEADER + GOOD + row, rule=IngestRule(), lowest_rating=1, highest_rating=5)
    assert error.facts == {"rating outside the scale": f"1 rows, first at rows.csv line 4: {rating!r}"}
    assert error.hint == "the scale is 1 to 5: set `--dataset.lowest-rating` and `--dataset.highest-rating`"


@pytest.mark.parametrize("rating", ["good", "", "5 5", "*****", "4.5.6"])
def test_row_50_a_rating_that_is_no_number_is_put_aside(tmp_path: Path, rating: str) -> None:
    put_aside(tmp_path, f"{USER},mug,{rating},{NOW}\n", "unreadable rating", (USER, "mug", rating or None, str(NOW)))


def test_row_50_half_a_star_is_a_rating(tmp_path: Path) -> None:
    assert Read(tmp_path, f"{HEADER}a,i,4.5,{NOW}\n").rows == [("a", "i", 4.5, NOW)]


def test_row_50_a_control_sequence_in_a_value_does_not_reach_the_terminal(tmp_path: Path) -> None:
    assert "\x1b" not in str(refusal(tmp_path, f"{HEADER}{USER},mug,\x1b[2J,{NOW}\n", rule=IngestRule()))


def test_row_50_a_long_value_is_cut(tmp_path: Path) -> None:
    error = refusal(tmp_path, f"{HEADER}{USER},mug,{'x' * 10_000},{NOW}\n", rule=IngestRule())
    assert len(str(error)) < 300


@pytest.mark.parametrize(("user", "raw"), [("", None), ("   ", "   "), ('""', "")])
def test_row_51_a_row_without_a_user_is_put_aside(tmp_path: Path, user: str, raw: str | None) -> None:
    put_aside(tmp_path, f"{user},mug,5,{NOW}\n", "missing user", (raw, "mug", "5", str(NOW)))


def test_row_51_a_row_without_an_item_is_put_aside(tmp_path: Path) -> None:
    put_aside(tmp_path, f"{USER},,5,{NOW}\n", "missing item", (USER, None, "5", str(NOW)))


def test_row_51_ids_stay_apart_that_a_number_would_make_one(tmp_path: Path) -> None:
    ids = ["007", "7", "7.0", "-7", "+7", "7e0", str(2**31), str(2**63), "٧"]
    read = Read(tmp_path, HEADER + "".join(f"{name},mug,5,{NOW}\n" for name in ids))
    assert sorted(row[0] for row in read.rows) == sorted(ids)


# 52 to 54: late rows, titles, the threshold


@pytest.mark.parametrize("name", ["rows.csv", "rows.ndjson"])
def test_row_52_a_bad_row_late_in_a_long_file_is_put_aside_and_nothing_becomes_null(tmp_path: Path, name: str) -> None:
    rows = [(f"u{at}", "mug", "5", str(NOW + at)) for at in range(20_000)]
    rows[19_990] = (USER, "mug", "five", str(NOW))
    fields = ("user_id", "item_id", "rating", "timestamp")
    lines = [",".join(row) if name == "rows.csv" else json.dumps(dict(zip(fields, row, strict=True))) for row in rows]
    read = Read(tmp_path, (HEADER if name == "rows.csv" else "") + "\n".join(lines), name, rule=IngestRule())
    assert (read.told["kept"], read.told["quarantined"]) == (19_999, {"unreadable rating": 1})
    # The header of the CSV file is its line 1.
    assert read.aside == [("unreadable rating", name, 19_992 if name == "rows.csv" else 19_991, USER, "mug", "five", str(NOW))]


def test_row_52_a_line_with_too_few_fields_is_put_aside(tmp_path: Path) -> None:
    put_aside(tmp_path, f"{USER},mug\n", "unreadable time", (USER, "mug", None, None))


def test_row_53_rows_of_an_item_without_a_title_are_put_aside(tmp_path: Path) -> None:
    data = f"user_id,item_id,rating,timestamp,title\nanna,mug,5,{NOW},Mug\nben,cup,2,{NOW},\n"
    read = Read(tmp_path, data, title_column="title")
    assert (read.titles, read.told["quarantined"]) == ({"mug": "Mug"}, {"item without a title": 1})
    error = refusal(tmp_path, data, title_column="title", rule=IngestRule())
    assert error.facts == {"item without a title": "1 rows, first at rows.csv line 3: 'cup'"}
    assert error.hint == "give these items a title, or take their rows out"


def test_row_54_above_the_threshold_the_run_stops_with_the_table_of_rules(tmp_path: Path) -> None:
    bad = [f"{USER},mug,11,{NOW}\n"] * 3 + [f"{USER},mug,5,later\n"] * 2
    data = HEADER + "".join(f"u{at},mug,5,{NOW + at}\n" for at in range(395)) + "".join(bad)
    error = refusal(tmp_path, data, rule=IngestRule(max_quarantined=0.01))
    assert error.fact == "5 of 400 rows (1.25 %) break a rule; at most 1 % may"
    assert list(error.facts.items()) == [
        ("rating outside the scale", "3 rows, first at rows.csv line 397: '11'"),
        ("unreadable time", "2 rows, first at rows.csv line 400: 'later'"),
    ]
    assert Read(tmp_path, data, rule=IngestRule(max_quarantined=0.0125)).told["kept"] == 395


# 55 and 57: titles


@pytest.mark.parametrize(
    ("title", "clean"),
    [
        ("Caf\u0065\u0301", "Caf\u00e9"),
        ("Caf\u00e9", "Caf\u00e9"),
        ("Mug\u202etxt.exe", "Mugtxt.exe"),
        ("M\u200bu\u200dg\ufeff", "Mug"),
        ("Mug \U0001f600", "Mug \U0001f600"),
        ("Big\nMug\r\n\tNew", "Big Mug New"),
        ("\x1b[31mMug\x07", "[31mMug"),
        ("  Big\u00a0 \u3000Mug ", "Big Mug"),
        ("Mug\ue000", "Mug"),
        ("M" * 10_000, "M" * 10_000),
    ],
    ids=["nfd", "nfc", "bidi", "zero-width", "emoji", "newline", "control", "spaces", "private", "long"],
)
def test_row_55_and_57_titles_are_composed_and_lose_what_a_reader_does_not_see(tmp_path: Path, title: str, clean: str) -> None:
    row = {"user_id": "anna", "item_id": "mug", "rating": 5, "timestamp": NOW, "title": title}
    assert Read(tmp_path, json.dumps(row), "rows.ndjson", title_column="title").titles == {"mug": clean}


def test_row_55_a_title_of_nothing_but_what_a_reader_does_not_see_is_none(tmp_path: Path) -> None:
    rows = [
        {"user_id": "anna", "item_id": item, "rating": 5, "timestamp": NOW, "title": title}
        for item, title in (("a", "A"), ("b", "\u200b\u202e"))
    ]
    read = Read(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "rows.ndjson", title_column="title")
    assert read.told["quarantined"] == {"item without a title": 1}


def test_row_55_an_id_that_stands_for_the_title_is_cleaned_in_the_title_alone(tmp_path: Path) -> None:
    assert Read(tmp_path, f"{HEADER}anna,m\u200bug,5,{NOW}\n").titles == {"m\u200bug": "mug"}


# files that are no table


def test_a_line_with_more_fields_than_the_header_is_counted_and_placed(tmp_path: Path) -> None:
    for separator in (",", ";", "\t"):
        data = (HEADER + GOOD + f"{USER},mug,big,5,{NOW}\nanna,mug,5,{NOW}\n{USER},a,b,c,d,e\n").replace(",", separator)
        error = refusal(tmp_path, data, "rows.tsv" if separator == "\t" else "rows.csv", separator=separator)
        assert_cannot_be_read(error, "a line has more fields than the header", "quote fields that hold the separator")
        name = "rows.tsv" if separator == "\t" else "rows.csv"
        assert error.facts == {"file": name, "lines": "2", "first line": 4, "its fields": 5, "the header's fields": 4}


def test_a_quote_that_never_ends_is_refused_and_swallows_no_rows(tmp_path: Path) -> None:
    for data in (f'{USER},"mug,5,{NOW}\n{GOOD}', GOOD * 50 + f'{USER},"mug,5,{NOW}\n' + GOOD * 50):
        error = refusal(tmp_path, HEADER + data)
        assert_cannot_be_read(error, "a quoted field never ends", "close the quotes, or double those that belong to the text")


def test_a_quote_inside_a_field_without_quotes_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, f'{HEADER}{USER},a 5" mug,5,{NOW}\n{GOOD}')
    hint = "put fields that hold quotes into quotes, and double those inside"
    assert_cannot_be_read(error, "a quote stands inside a field", hint)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_or_damaged_parquet_file_is_refused(tmp_path: Path, share: float) -> None:
    whole = as_parquet(FRAME)
    error = refusal(tmp_path, whole[: int(share * len(whole))], "rows.parquet")
    assert_cannot_be_read(error, "its bytes are not those of the format", "copy the file again")


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.ndjson.gz"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_gzip_is_refused_and_not_read_in_part(tmp_path: Path, name: str, share: float) -> None:
    draw = random.Random(1)
    rows = [(f"u{draw.randrange(10**6)}", f"i{at}", 5, NOW + at) for at in range(20_000)]
    frame = pl.DataFrame(rows, schema=FRAME.schema, orient="row", strict=False)
    whole = gzip.compress((frame.write_csv() if "csv" in name else frame.write_ndjson()).encode())
    error = refusal(tmp_path, whole[: int(share * len(whole))], name)
    assert error.hint == "copy the file again"


@pytest.mark.parametrize("data", ["hello\n", "[1, 2]\n", "5\n", '{"user_id": "secret7"\n', '{"user_id": secret7}\n', "{}{}\n"])
def test_text_that_is_no_json_is_refused(tmp_path: Path, data: str) -> None:
    good = json.dumps(FRAME.to_dicts()[0]) + "\n"
    for text in (data, good * 3 + data, good * 2000 + data):
        refusal(tmp_path, text, "rows.ndjson")


def test_a_json_array_is_refused_with_what_to_write(tmp_path: Path) -> None:
    error = refusal(tmp_path, json.dumps(FRAME.to_dicts()), "rows.json")
    assert_cannot_be_read(error, "a line is no JSON object", "write one object in each line, as UTF-8 without a byte order mark")


def test_a_fault_in_the_table_of_items_or_users_names_that_table(tmp_path: Path) -> None:
    for setting, header in (("items_path", b"item_id,title\n"), ("users_path", b"user_id,age\n")):
        other = tmp_path / f"{setting}.csv"
        other.write_bytes(header + "mug,café\ncup,x\n".encode("latin-1"))
        error = refusal(tmp_path, HEADER + GOOD, **{setting: str(other)}, profile_columns="age" if setting == "users_path" else "")
        assert error.fact == f"`{other}` cannot be read as a table: it is not UTF-8"


def test_files_whose_types_do_not_go_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, user in (("a", [1, 2]), ("b", [["x"], ["y"]])):
        FRAME.with_columns(user_id=pl.Series(user)).write_parquet(tmp_path / "in" / f"{name}.parquet")
    with pytest.raises(BadInput, match="its files give one column types that do not go together"):
        ingest(Interactions(path=str(tmp_path / "in")), ALL, tmp_path)


@pytest.mark.parametrize("path", ["nowhere.csv", "nowhere/", "no*.csv", "x" * 5000 + ".csv", "nul\0.csv"])
def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path, path: str) -> None:
    for ask in (Interactions(path=f"{tmp_path}/{path}").scan, Interactions(path=f"{tmp_path}/{path}").fingerprint):
        with pytest.raises(BadInput) as refused:
            ask()
        assert refused.value.fact.startswith("0 files found: there is no `")


def test_a_full_disk_is_not_taken_for_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        Read(tmp_path, f"{HEADER}{GOOD}anna,mug,eleven,{NOW}\n")


def test_an_error_of_the_disk_while_reading_is_not_taken_for_a_bad_file() -> None:
    with pytest.raises(PermissionError), reading("rows.csv"):
        raise PermissionError(13, "Permission denied")


pieces = st.sampled_from(
    [
        "user_id",
        "item_id",
        "rating",
        "timestamp",
        ",",
        ",",
        "\n",
        "\n",
        "\r",
        '"',
        "'",
        "{",
        "}",
        "[",
        ":",
        "\0",
        "\ufeff",
        "é",
        "1",
        str(NOW),
    ]
)
almost = st.lists(pieces | st.text(max_size=3), max_size=20).map(lambda parts: "".join(parts).encode(errors="surrogatepass"))
garbage = st.binary(max_size=80) | almost
names = st.sampled_from(["rows.csv", "rows.csv.gz", "rows.tsv", "rows.ndjson", "rows.parquet"])
GOOD_FILES = {
    "rows.csv": (HEADER + GOOD).encode(),
    "rows.csv.gz": gzip.compress((HEADER + GOOD).encode(), mtime=0),
    "rows.tsv": (HEADER + GOOD).replace(",", "\t").encode(),
    "rows.ndjson": FRAME.write_ndjson().encode(),
    "rows.parquet": as_parquet(FRAME),
}
FUZZ = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        try:
            read = Read(Path(place), data, name)
        except UserError:
            return
        told = read.told
        assert told["read"] == told["kept"] + sum(told["quarantined"].values()) + told["repeated"]
        assert all(user and item and 0 <= rating <= 10 and second >= 0 for user, item, rating, second in read.rows)


@FUZZ
@given(name=names, data=garbage)
def test_a_file_of_garbage_is_read_or_refused(name: str, data: bytes) -> None:
    read_or_refuse(name, data)


@FUZZ
@given(name=names, place=st.floats(0, 1), cut=st.integers(0, 4), data=garbage)
def test_garbage_inside_a_good_file_is_read_or_refused(name: str, place: float, cut: int, data: bytes) -> None:
    good = GOOD_FILES[name]
    start = int(place * len(good))
    read_or_refuse(name, good[:start] + data + good[start + cut :])
