"""Goodreads: both forms as they are published, worked by hand on rows written here."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as some
import polars as pl
import pytest
from hypothesis import given

from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.datasets.goodreads import Goodreads
from e2urec_core.errors import BadInput, BadSetting
from flows.presets import PRESETS

ADDED = "Fri Apr 19 08:15:15 -0700 2013"
ADDED_S = 1_366_384_515
"""2013-04-19 15:15:15 UTC: 15,814 days since 1970 of 86,400 s, and 54,915 s."""
BOOKS = [{"book_id": "11", "title": "Salt"}, {"book_id": 12, "title": "  Fen\tand\u200b Field "}, {"book_id": "13", "title": "Ash"}]


def row(user: str = "ann", book: object = "11", rating: object = 5, **more: object) -> dict[str, object]:
    dates = {"date_added": ADDED, "date_updated": "Sat Apr 20 00:00:01 -0700 2013", "read_at": "", "started_at": ""}
    return {
        "user_id": user,
        "book_id": book,
        "review_id": "r",
        "is_read": True,
        "rating": rating,
        "review_text_incomplete": "",
        **dates,
        **more,
    }


def write_lines(path: Path, rows: Sequence[object]) -> None:
    text = "".join(json.dumps(each) + "\n" for each in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def write_json(
    folder: Path, rows: Sequence[object], part: str = "poetry", ending: str = ".json.gz", books: Sequence[object] = BOOKS
) -> Goodreads:
    folder.mkdir(exist_ok=True)
    behind = f"_{part}" if part else ""
    write_lines(folder / f"goodreads_interactions{behind}{ending}", rows)
    write_lines(folder / f"goodreads_books{behind}{ending}", books)
    return Goodreads(path=folder)


def write_csv(folder: Path, rows: Sequence[str], users: Sequence[str] = ("0,ann", "1,ben"), packed: str = "") -> Goodreads:
    """Numbers 0, 1 and 2 stand for the books 11, 12 and 13."""
    folder.mkdir(exist_ok=True)
    tables = {
        "goodreads_interactions.csv": ["user_id,book_id,is_read,rating,is_reviewed", *rows],
        "user_id_map.csv": ["user_id_csv,user_id", *users],
        "book_id_map.csv": ["book_id_csv,book_id", "0,11", "1,12", "2,13"],
    }
    for name, lines in tables.items():
        text = "".join(f"{line}\n" for line in lines).encode()
        (folder / f"{name}{packed}").write_bytes(gzip.compress(text) if packed else text)
    write_lines(folder / "goodreads_books.json", BOOKS)
    return Goodreads(path=folder)


def stored(dataset: Goodreads, most: float = 1.0) -> tuple[pl.DataFrame, Mapping[str, Any]]:
    """What is kept of it, and what was counted."""
    assert dataset.path is not None
    folder = dataset.path / "stored"
    folder.mkdir()
    ingest(dataset, IngestRule(max_quarantined=most), folder)
    return pl.read_parquet(folder / "interactions"), read_counts(folder)["this_reading"]


def test_json_lines_become_interactions_under_their_published_ids(tmp_path: Path) -> None:
    dataset = write_json(
        tmp_path, [row("ann", 12, 4), row(" ben ", "11", "3"), row("ann", "13", 1, date_added="Thu Jan 01 00:00:07 +0000 1970")]
    )
    rows, told = stored(dataset)
    assert rows.select("user_id", "item_id", "rating", "timestamp_s", "label").rows() == [
        ("ann", "13", 1.0, 7, 0),
        ("ann", "12", 4.0, ADDED_S, 1),
        ("ben", "11", 3.0, ADDED_S, 0),
    ]
    assert told["read"] == told["kept"] == 3


def test_titles_are_cleaned_and_ids_may_be_numbers(tmp_path: Path) -> None:
    dataset = write_json(tmp_path, [row()])
    stored(dataset)
    assert pl.read_parquet(tmp_path / "stored" / "items.parquet").rows() == [("11", "Salt"), ("12", "Fen and Field"), ("13", "Ash")]


def test_a_rating_of_the_threshold_is_a_no_and_the_threshold_is_a_setting(tmp_path: Path) -> None:
    rows = [row(book=book, rating=rating) for book, rating in ((11, 3), (12, 4), (13, 2))]
    write_json(tmp_path, rows)
    for threshold, labels in ((3.0, [0, 1, 0]), (2.0, [1, 1, 0]), (4.0, [0, 0, 0])):
        source = Goodreads(path=tmp_path, like_above=threshold).scan()
        assert source.rows.collect()["label"].to_list() == labels


def test_unrated_books_are_left_out_and_counted_and_are_no_fault(tmp_path: Path) -> None:
    dataset = write_json(tmp_path, [row(), row(book=12, rating=0), row(book=13, rating=0, date_added=""), row("ben", 99, 0)])
    rows, told = stored(dataset, most=0.0)
    assert rows.height == 1
    assert told["left_out"] == {"not rated": 3}
    assert told["quarantined"] == {}
    assert pl.read_parquet(tmp_path / "stored" / "quarantine.parquet").height == 0


def test_another_date_may_be_the_moment(tmp_path: Path) -> None:
    rows = [row(read_at="Fri Apr 19 08:15:16 -0700 2013"), row(book=12, read_at=""), row(book=13, read_at=None)]
    write_json(tmp_path, rows)
    by = {moment: Goodreads(path=tmp_path, moment=moment).scan().rows.collect() for moment in ("date_added", "date_updated", "read_at")}
    # 2013-04-20 07:00:01 UTC is 15 h 44 min 46 s = 56,686 s after the row was added.
    assert {moment: frame["timestamp_s"].to_list() for moment, frame in by.items()} == {
        "date_added": [ADDED_S] * 3,
        "date_updated": [ADDED_S + 56_686] * 3,
        "read_at": [ADDED_S + 1, None, None],
    }
    kept, told = stored(Goodreads(path=tmp_path, moment="read_at"), most=0.0)
    assert kept["item_id"].to_list() == ["11"]
    assert told["left_out"] == {"not rated": 0, "never read": 2}


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"user": ""}, "missing user"),
        ({"book": "  "}, "missing item"),
        ({"book": None}, "missing item"),
        ({"rating": 6}, "rating outside the scale"),
        ({"rating": 3.5}, "rating outside the scale"),
        ({"rating": -1}, "rating outside the scale"),
        ({"rating": None}, "rating outside the scale"),
        ({"rating": True}, "rating outside the scale"),
        ({"date_added": ""}, "no date"),
        ({"date_added": None}, "no date"),
        ({"date_added": "2013-04-19"}, "unreadable date"),
        ({"date_added": "Fri Apr 31 08:15:15 -0700 2013"}, "unreadable date"),
        ({"date_added": "Wed Dec 31 15:59:59 -0800 1969"}, None),
        ({"date_added": "Wed Dec 31 23:59:59 +0000 1969"}, "date outside 1970 to 2100"),
        ({"book": "99"}, "unknown item"),
        ({"book": "14"}, "item without a title"),
        ({"rating": 4.0}, None),
    ],
)
def test_a_row_that_breaks_a_rule_is_put_aside_under_its_name_and_its_line(wrong: dict[str, Any], rule: str | None, tmp_path: Path) -> None:
    if wrong.get("date_added") == "Wed Dec 31 15:59:59 -0800 1969":
        # One second before midnight eight hours west of Greenwich is 23:59:59 UTC of the same day.
        rule = "date outside 1970 to 2100"
    dataset = write_json(tmp_path, [row("ben"), row(**wrong)], books=[*BOOKS, {"book_id": "14", "title": "  "}])
    kept, told = stored(dataset)
    if rule is None:
        assert kept.height == 2
        return
    assert told["quarantined"] == {rule: 1}
    aside = pl.read_parquet(tmp_path / "stored" / "quarantine.parquet")
    assert aside.select("rule", "file", "line").rows() == [(rule, "goodreads_interactions_poetry.json.gz", 2)]
    with pytest.raises(BadInput, match=r"1 of 2 rows \(50 %\) break a rule") as refused:
        ingest(dataset, IngestRule(), tmp_path / "stored")
    assert refused.value.hint != "mend the rows, or raise `--ingest.max-quarantined`"
    assert "ann" not in str(refused.value)


def test_rows_of_one_second_are_all_kept_and_a_repeated_row_is_kept_once(tmp_path: Path) -> None:
    rows, told = stored(write_json(tmp_path, [row(book=12), row(book=11), row(book=11), row("ben", 11, 2), row("ben", 11, 1)]))
    assert rows.select("user_id", "item_id", "rating").rows() == [("ann", "11", 5.0), ("ann", "12", 5.0), ("ben", "11", 1.0)]
    assert (told["repeated"], told["conflicting"]) == (2, 1)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_the_csv_form_gives_the_published_ids_and_a_users_nth_row_stands_at_second_n(packed: str, tmp_path: Path) -> None:
    dataset = write_csv(tmp_path, ["0,2,1,5,0", "0,0,0,0,0", "0,1,1,3,1", "1,2,1,4,0"], packed=packed)
    rows, told = stored(dataset, most=0.0)
    assert rows.select("user_id", "item_id", "rating", "timestamp_s", "label").rows() == [
        ("ann", "13", 5.0, 1, 1),
        ("ben", "13", 4.0, 1, 1),
        ("ann", "12", 3.0, 3, 0),
    ]
    assert told["left_out"] == {"not rated": 1}
    assert any("no dates" in remark for remark in dataset.scan().remarks)


def test_places_on_a_shelf_are_counted_also_where_the_rows_of_users_are_mixed(tmp_path: Path) -> None:
    rows, _ = stored(write_csv(tmp_path, ["0,2,1,5,0", "1,0,1,5,0", "0,1,1,3,1", "1,2,1,4,0", "0,0,1,1,1"]))
    assert rows.select("timestamp_s", "user_id", "item_id").rows() == [
        (1, "ann", "13"),
        (1, "ben", "11"),
        (2, "ann", "12"),
        (2, "ben", "13"),
        (3, "ann", "11"),
    ]


def test_numbers_that_the_maps_do_not_hold_are_put_aside_as_they_stood(tmp_path: Path) -> None:
    dataset = write_csv(tmp_path, ["0,2,1,5,0", "7,2,1,5,0", "0,8,1,5,0", ",2,1,5,0", "0,,1,5,0"])
    rows, told = stored(dataset)
    assert rows.height == 1
    assert told["quarantined"] == {"missing item": 1, "missing user": 1, "unknown item": 1, "unknown user": 1}
    aside = pl.read_parquet(tmp_path / "stored" / "quarantine.parquet")
    assert aside.select("rule", "line", "user_id", "item_id").rows() == [
        ("unknown user", 3, "7", "2"),
        ("unknown item", 4, "0", "8"),
        ("missing user", 5, None, "2"),
        ("missing item", 6, "0", None),
    ]


def test_a_map_that_gives_a_number_twice_is_refused(tmp_path: Path) -> None:
    dataset = write_csv(tmp_path, ["0,2,1,5,0"], users=["0,ann", "0,ben", "1,cat"])
    with pytest.raises(BadInput, match=r"1 of 3 ids stand twice in user_id_map\.csv") as refused:
        dataset.scan()
    assert "ann" not in str(refused.value)


@pytest.mark.parametrize("name", ["goodreads_interactions.csv", "user_id_map.csv", "book_id_map.csv"])
def test_a_csv_file_without_its_columns_is_refused(name: str, tmp_path: Path) -> None:
    dataset = write_csv(tmp_path, ["0,2,1,5,0"])
    (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match=rf"columns are missing in {name}") as refused:
        dataset.scan()
    assert refused.value.hint


def test_json_wins_where_both_forms_lie_unless_csv_is_asked_for(tmp_path: Path) -> None:
    write_csv(tmp_path, ["0,2,1,5,0"])
    dataset = write_json(tmp_path, [row(), row(book=12)], part="")
    assert dataset.scan().rows.collect().height == 2
    csv = Goodreads(path=tmp_path, form="csv")
    assert csv.scan().rows.collect().height == 1
    assert csv.fingerprint() != dataset.fingerprint()


@pytest.mark.parametrize(("part", "asked"), [("", None), ("dedup", None), ("poetry", None), ("", "complete"), ("dedup", "complete")])
@pytest.mark.parametrize("ending", [".json", ".json.gz"])
def test_a_single_file_of_interactions_is_found_whatever_its_part(part: str, asked: str | None, ending: str, tmp_path: Path) -> None:
    write_json(tmp_path, [row()], part=part, ending=ending)
    assert stored(Goodreads(path=tmp_path, part=asked))[0].height == 1


def test_titles_come_from_the_parts_own_file_or_else_from_the_complete_one(tmp_path: Path) -> None:
    write_json(tmp_path, [row()])
    (tmp_path / "goodreads_books_poetry.json.gz").rename(tmp_path / "goodreads_books.json.gz")
    assert stored(Goodreads(path=tmp_path))[0].height == 1


def test_of_several_parts_one_must_be_named(tmp_path: Path) -> None:
    write_json(tmp_path, [row()], part="poetry")
    write_json(tmp_path, [row(), row(book=12)], part="dedup")
    (tmp_path / "goodreads_books_dedup.json.gz").rename(tmp_path / "goodreads_books.json.gz")
    with pytest.raises(BadInput, match="2 files of interactions could be meant") as refused:
        Goodreads(path=tmp_path).scan()
    assert refused.value.facts == {"its parts": "dedup, poetry"}
    assert "--dataset.part poetry" in refused.value.hint
    heights = {part: Goodreads(path=tmp_path, part=part).scan().rows.collect().height for part in ("poetry", "dedup", "complete")}
    assert heights == {"poetry": 1, "dedup": 2, "complete": 2}
    with pytest.raises(BadInput, match="0 files of part `romance`") as refused:
        Goodreads(path=tmp_path, part="romance").scan()
    assert refused.value.facts == {"its parts": "dedup, poetry"}


def test_what_is_not_there_is_refused_with_a_hint(tmp_path: Path) -> None:
    csv, books, maps = tmp_path / "csv", tmp_path / "books", tmp_path / "maps"
    write_csv(csv, ["0,2,1,5,0"])
    write_json(books, [row()])
    (books / "goodreads_books_poetry.json.gz").unlink()
    write_csv(maps, ["0,2,1,5,0"])
    (maps / "user_id_map.csv").unlink()
    bare = tmp_path / "bare"
    write_csv(bare, ["0,2,1,5,0"])
    (bare / "goodreads_books.json").unlink()
    refusals: list[tuple[Goodreads, type[Exception], str]] = [
        (Goodreads(), BadSetting, "0 folders"),
        (Goodreads(path=tmp_path / "nowhere"), BadInput, "there is no folder"),
        (Goodreads(path=tmp_path), BadInput, r"there is no `goodreads_interactions\*.json.gz`"),
        (Goodreads(path=tmp_path, form="csv"), BadInput, "there is no `goodreads_interactions.csv`"),
        (Goodreads(path=books), BadInput, "0 files of books found"),
        (Goodreads(path=bare), BadInput, "0 files of books found"),
        (Goodreads(path=maps), BadInput, "1 of 2 maps of the CSV form's ids are missing .* user_id_map.csv"),
        (Goodreads(path=csv, part="poetry"), BadSetting, "the CSV form has no part `poetry`"),
        (Goodreads(path=csv, moment="read_at"), BadSetting, "the CSV form has no dates"),
    ]
    for dataset, kind, said in refusals:
        for act in (dataset.scan, dataset.fingerprint):
            with pytest.raises(kind, match=said) as refused:
                act()
            assert refused.value.hint  # type: ignore[attr-defined]


def lines(count: int) -> bytes:
    return "".join(json.dumps(row(f"reader{number:05}", 11 + number % 3)) + "\n" for number in range(count)).encode()


@pytest.mark.parametrize("broken", ["goodreads_interactions_poetry.json.gz", "goodreads_books_poetry.json.gz"])
@pytest.mark.parametrize(
    ("damage", "said", "facts"),
    [
        (lambda text: gzip.compress(text)[:-2000], "it ends in the middle", {"whole up to"}),
        (lambda text: gzip.compress(text)[:-8] + bytes(8), "its packed bytes are damaged", {"whole up to"}),
        (lambda text: gzip.compress(text + b"reader00007 liked it\n"), "a line is no JSON", {"first line"}),
        (lambda text: gzip.compress(text + text[:100]), "a line is no JSON", {"first line"}),
        (lambda text: gzip.compress(text + b'["reader00007"]\n'), "a line is no JSON object", {"first line"}),
        (lambda text: gzip.compress(text + b'{"user_id": "reader\xe9"}\n'), "it is not UTF-8", {"first line"}),
    ],
)
def test_a_damaged_file_is_named_with_its_place_and_without_its_text(
    damage: Any, said: str, facts: set[str], broken: str, tmp_path: Path
) -> None:
    write_json(tmp_path, [row()])
    text = lines(3000)
    (tmp_path / broken).write_bytes(damage(text))
    with pytest.raises(BadInput, match=said) as refused:
        stored(Goodreads(path=tmp_path))
    assert refused.value.facts["file"] == broken
    assert set(refused.value.facts) == {"file", *facts}
    assert refused.value.facts.get("first line", 3001) == 3001
    assert refused.value.hint
    assert "reader0" not in str(refused.value)


def test_the_fingerprint_follows_the_bytes_of_what_is_read_and_of_nothing_else(tmp_path: Path) -> None:
    dataset = write_json(tmp_path, [row()])
    first = dataset.fingerprint()
    (tmp_path / "goodreads_reviews_poetry.json.gz").write_bytes(b"x")
    assert dataset.fingerprint() == first
    write_json(tmp_path, [row(rating=4)])
    assert dataset.fingerprint() != first


def test_prompts_of_books_speak_of_reading() -> None:
    for name, preset in PRESETS.items():
        assert preset("goodreads", "tiny_t5", "e2urec")["prompt"] == {"template": "book"}, name
        assert preset("ml_1m", "tiny_t5", "e2urec").get("prompt", {}).get("template", "reference") == "reference", name


A_ROW = some.builds(
    row,
    user=some.sampled_from(["ann", "ben", "cat", "", " "]),
    book=some.sampled_from(["11", 12, "13", "14", None]),
    rating=some.sampled_from([0, 1, 2, 3, 4, 5, 6, 2.5, None, "4", "x"]),
    date_added=some.sampled_from([ADDED, "Sat Apr 20 00:00:01 -0700 2013", "", None, "yesterday"]),
)


@given(some.lists(A_ROW, min_size=1, max_size=25), some.sampled_from([".json", ".json.gz"]))
def test_no_row_is_lost_whatever_the_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], ending: str) -> None:
    dataset = write_json(tmp_path_factory.mktemp("shelf"), [row("zoe"), *rows], ending=ending)
    kept, told = stored(dataset)
    aside = sum(told["quarantined"].values()) + sum(told["left_out"].values())
    assert told["read"] == 1 + len(rows) == told["kept"] + aside + told["repeated"]
    assert kept.height == told["kept"]
    good = {
        (each["user_id"], str(each["book_id"]), each["date_added"])
        for each in [row("zoe"), *rows]
        if str(each["user_id"]).strip()
        and str(each["book_id"]) in ("11", "12", "13")
        and str(each["rating"]) in ("1", "2", "3", "4", "5")
        and each["date_added"] in (ADDED, "Sat Apr 20 00:00:01 -0700 2013")
    }
    assert kept.height == len(good)


@given(
    some.lists(
        some.tuples(some.sampled_from(["0", "1", "7", ""]), some.sampled_from(["0", "1", "2", "9", ""]), some.integers(0, 6)), max_size=25
    )
)
def test_no_row_of_the_csv_form_is_lost_and_places_follow_the_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]]
) -> None:
    every = [("0", "0", 5), *rows]
    dataset = write_csv(tmp_path_factory.mktemp("shelf"), [f"{user},{book},1,{rating},0" for user, book, rating in every])
    kept, told = stored(dataset)
    aside = sum(told["quarantined"].values()) + sum(told["left_out"].values())
    assert told["read"] == len(every) == told["kept"] + aside
    names = {"0": "ann", "1": "ben"}
    expected = [
        (sum(other == user for other, _, _ in every[: place + 1]), names[user], str(11 + int(book)), float(rating))
        for place, (user, book, rating) in enumerate(every)
        if user in names and book in ("0", "1", "2") and 1 <= rating <= 5
    ]
    assert kept.select("timestamp_s", "user_id", "item_id", "rating").rows() == sorted(expected)
