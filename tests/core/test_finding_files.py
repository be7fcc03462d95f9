"""Which files stand behind a path, what they are called, and what is said of one that cannot be read."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from e2urec_core.data.files import find
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.datasets.interactions import Interactions
from e2urec_core.errors import BadInput

CSV = b"user_id,item_id,rating,timestamp\nann,x,5,1300000000\nben,y,2,1300000001\n"
FRAME = pl.read_csv(CSV, infer_schema=False)


def put(path: Path, content: bytes = CSV) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def parquet(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    FRAME.write_parquet(path)
    return path


@pytest.mark.parametrize(
    "name", ["t.csv", "t.csv.gz", "t.tsv", "t.tsv.gz", "T.TSV", "t.ndjson", "t.jsonl.gz", "t.json", "t.parquet", "t.pq"]
)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    plain = name.lower().removesuffix(".gz")
    if plain.endswith(("parquet", "pq")):
        parquet(file)
    else:
        text = FRAME.write_csv(separator="\t" if "tsv" in plain else ",") if plain.endswith("sv") else FRAME.write_ndjson()
        put(file, gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    found = find(str(file))
    assert found.names() == [name]
    rows = found.scan().collect()
    assert rows.select(FRAME.columns).equals(FRAME)
    # The header of a CSV file is its line 1.
    first = 2 if "sv" in plain else 1
    assert rows.select("file", "line").rows() == [(name, first), (name, first + 1)]


def test_folders_of_key_and_value_are_columns_in_every_format(tmp_path: Path) -> None:
    for month in ("01", "02"):
        parquet(tmp_path / "p" / "year=2026" / f"month={month}" / "part.parquet")
        put(tmp_path / "c" / "year=2026" / f"city=St.%20Ives%2F{month}" / "part.csv")
    put(tmp_path / "c" / "year=__HIVE_DEFAULT_PARTITION__" / "part.csv.gz", gzip.compress(CSV))
    typed = find(str(tmp_path / "p")).scan().select("year", "month").unique().sort("month").collect()
    assert typed.rows() == [("2026", "01"), ("2026", "02")]
    text = find(str(tmp_path / "c")).scan().select("year", "city").unique().sort("city", nulls_last=True).collect()
    assert text.rows() == [("2026", "St. Ives/01"), ("2026", "St. Ives/02"), (None, None)]


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/.", "{}/**/*.parquet", "{}/*/*.parquet"])
def test_files_of_equal_names_in_two_folders_are_told_apart_however_the_folder_is_spelled(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("1", "2"):
        parquet(tmp_path / "rows" / f"day={day}" / "part.parquet")
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "rows", "rows", "./rows", "../" + tmp_path.name + "/rows", f"{tmp_path}//rows"):
        found = find(form.format(root))
        assert found.names() == ["day=1/part.parquet", "day=2/part.parquet"]
        assert found.fingerprint() == find(str(tmp_path / "rows")).fingerprint()


def test_what_programs_leave_for_themselves_is_passed_over_unless_it_is_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "part.csv")
    for name in ("_SUCCESS", ".part.csv.crc", "_temporary/0/half.csv", ".cache/half.csv"):
        put(tmp_path / name, b"")
    assert find(str(tmp_path)).names() == find(f"{tmp_path}/**/*.csv").names() == ["part.csv"]
    assert find(str(tmp_path), "csv").names() == ["part.csv"]
    hidden = put(tmp_path / ".kept" / "part.csv").parent
    assert find(str(hidden)).names() == find(f"{hidden}/*.csv").names() == ["part.csv"]


@pytest.mark.parametrize("name", ["rows[1].csv", "rows*.csv", "rows[1].jsonl", "rows[1].parquet"])
def test_a_file_may_have_the_marks_of_a_glob_in_its_name(name: str, tmp_path: Path) -> None:
    put(tmp_path / "rows1.csv", b"user_id\nother\n")
    file = tmp_path / name
    if name.endswith("parquet"):
        parquet(file)
    else:
        put(file, CSV if name.endswith("csv") else FRAME.write_ndjson().encode())
    assert find(str(file)).scan().select(FRAME.columns).collect().equals(FRAME)


def test_an_empty_file_among_others_adds_nothing_and_alone_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "rows" / "full.csv")
    empty = put(tmp_path / "rows" / "empty.csv", b"")
    assert find(str(tmp_path / "rows")).scan().collect().height == 2
    with pytest.raises(BadInput, match="is empty: 0 rows"):
        find(str(empty)).scan()


def test_a_folder_of_several_formats_is_refused_until_one_is_chosen(tmp_path: Path) -> None:
    put(tmp_path / "a.csv")
    put(tmp_path / "b.jsonl", FRAME.write_ndjson().encode())
    put(tmp_path / "README.md", b"what this is")
    with pytest.raises(BadInput, match="3 files of 2 known formats: 1 csv, 1 ndjson"):
        find(str(tmp_path))
    assert find(str(tmp_path), "csv").names() == ["a.csv"]
    assert find(str(tmp_path), "ndjson").names() == ["b.jsonl"]


def test_files_without_an_ending_are_read_in_the_format_that_is_named(tmp_path: Path) -> None:
    put(tmp_path / "part-0")
    put(tmp_path / "_SUCCESS", b"")
    with pytest.raises(BadInput, match="none of a known format"):
        find(str(tmp_path))
    assert find(str(tmp_path), "csv").scan().collect().height == 2


@pytest.mark.parametrize(
    ("path", "said"), [("nothing", "there is no"), ("nothing/*.csv", "there is no"), ("empty", "holds none"), ("empty/*", "there is no")]
)
def test_what_is_not_there_is_refused_with_a_hint(path: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=f"0 files found: .*{said}") as refused:
        find(str(tmp_path / path))
    assert refused.value.hint


@pytest.mark.parametrize(
    ("name", "content", "said", "place"),
    [
        ("t.csv", CSV + b"cat,z,1,2,3,4\n", "more fields than the header", {"lines": "1", "first line": 4, "its fields": 6}),
        ("t.tsv", CSV.replace(b",", b"\t") + b"cat\tz\t1\t2\t3\n", "more fields than the header", {"first line": 4, "its fields": 5}),
        ("t.csv.gz", gzip.compress(CSV * 5000)[:-300], "ends in the middle", {}),
        ("t.jsonl", FRAME.write_ndjson().encode() + b"cat says no\n", "a line is no JSON", {"first line": 3}),
        ("t.jsonl", FRAME.write_ndjson().encode() + b'"cat"\n', "a line is no JSON object", {"first line": 3}),
        ("t.jsonl", FRAME.write_ndjson().encode() + b'{"user_id": "cat\xe9"}\n', "it is not UTF-8", {"first line": 3}),
        ("t.parquet", b"PAR1 cat PAR1", "its bytes are not those of the format", {}),
        ("t.csv", "user_id\ncat\n".encode("utf-16"), "looks like UTF-16", {}),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_file_that_cannot_be_read_is_refused_with_its_place_and_without_its_text(
    name: str, content: bytes, said: str, place: dict[str, object], beside: bool, tmp_path: Path
) -> None:
    file = put(tmp_path / "rows" / name, content)
    stored = tmp_path / "stored"
    stored.mkdir()
    if beside:
        # Among others the file is named.
        first = file.with_name("a." + name.removeprefix("t."))
        if name.endswith("parquet"):
            parquet(first)
        else:
            text = FRAME.write_ndjson().encode() if "json" in name else CSV.replace(b",", b"\t") if "tsv" in name else CSV
            put(first, gzip.compress(text) if name.endswith("gz") else text)
    with pytest.raises(BadInput, match=said) as refused:
        ingest(Interactions(path=str(file.parent if beside else file)), IngestRule(), stored)
    assert place.items() <= refused.value.facts.items()
    if beside and place:
        assert refused.value.facts["file"] == name
    assert "cat" not in str(refused.value)
    assert refused.value.hint
