"""MovieLens-1M: what a good folder gives. All rows here are invented; the real ones are only counted, and only where they lie."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.places import part_files
from e2urec_core.datasets.base import Dataset
from e2urec_core.datasets.ml_1m import CODES, Ml1m

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared" / "data" / "ml-1m-tail"

RATINGS = b"901::41::5::978300019\n901::42::1::978300020\n902::41::3::978300021\n"
MOVIES = 'Café "Noir", The (1991)'.encode("latin-1").join((b"41::", b"::Drama|Comedy\n")) + b"42::Plain: A Tale (1990)::Western\n"
USERS = b"901::F::25::9::00000\n902::M::1::0::11111-2222\n"


def folder(place: Path, *, ratings: bytes = RATINGS, movies: bytes = MOVIES, users: bytes = USERS) -> Ml1m:
    for name, data in (("ratings.dat", ratings), ("movies.dat", movies), ("users.dat", users)):
        (place / name).write_bytes(data)
    return Ml1m(path=place)


class Tables(NamedTuple):
    """What the gate has stored."""

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame


def stored(dataset: Ml1m, rule: IngestRule | None = None) -> Tables:
    """Read the folder through the gate."""
    assert dataset.path is not None
    place = Path(tempfile.mkdtemp(dir=dataset.path.parent))
    ingest(dataset, rule or IngestRule(), place)
    return Tables(pl.read_parquet(part_files(place)), pl.read_parquet(place / "items.parquet"), pl.read_parquet(place / "users.parquet"))


def test_ratings_become_interactions_with_the_values_of_the_file(tmp_path: Path) -> None:
    rows = stored(folder(tmp_path)).interactions.drop("interaction_id")
    assert rows.columns == ["user_id", "item_id", "rating", "timestamp_s", "label"]
    assert [str(kind) for kind in rows.dtypes] == ["String", "String", "Float32", "Int64", "Int8"]
    assert rows.rows() == [("901", "41", 5.0, 978300019, 1), ("901", "42", 1.0, 978300020, 0), ("902", "41", 3.0, 978300021, 0)]


def test_a_rating_above_the_threshold_is_a_yes(tmp_path: Path) -> None:
    # Ratings 5, 1, 3.
    for threshold, labels in ((3, [1, 0, 0]), (2.5, [1, 0, 1]), (0, [1, 1, 1]), (5, [0, 0, 0])):
        assert stored(folder(tmp_path).model_copy(update={"like_above": threshold})).interactions["label"].to_list() == labels


def test_one_bad_line_among_2_000_is_put_aside_and_the_run_goes_on(tmp_path: Path) -> None:
    lines = [f"{901 + at % 2}::41::5::{978300019 + at}\n".encode() for at in range(1999)]
    dataset = folder(tmp_path, ratings=b"".join([*lines[:1500], b"901::41::9::978300000\n", *lines[1500:]]))
    place = Path(tempfile.mkdtemp(dir=tmp_path))
    assert ingest(dataset, IngestRule(), place) == 1999
    told = read_counts(place)["this_reading"]
    assert (told["read"], told["kept"], told["quarantined"]) == (2000, 1999, {"rating outside the scale": 1})
    assert pl.read_parquet(place / "quarantine.parquet").rows() == [
        ("rating outside the scale", "ratings.dat", 1501, "901", "41", "9", "978300000")
    ]


def test_users_without_a_rating_are_kept(tmp_path: Path) -> None:
    assert stored(folder(tmp_path, ratings=RATINGS[: RATINGS.index(b"902")])).users["user_id"].to_list() == ["901", "902"]


def test_titles_keep_commas_quotes_colons_and_accents(tmp_path: Path) -> None:
    assert stored(folder(tmp_path)).items.rows() == [("41", 'Café "Noir", The (1991)'), ("42", "Plain: A Tale (1990)")]


def test_titles_lose_control_characters_and_needless_spaces(tmp_path: Path) -> None:
    movies = b"41:: A\x07 Title\x1f\x1b (1991) ::Drama\n42::\x7fB  C::Drama\n"
    assert stored(folder(tmp_path, movies=movies)).items["title"].to_list() == ["A Title (1991)", "B C"]


def test_a_profile_is_one_sentence_about_gender_age_and_work(tmp_path: Path) -> None:
    users = stored(folder(tmp_path)).users
    assert users.rows() == [
        ("901", "The user is a female, aged 25-34, who works as a homemaker.", None),
        ("902", "The user is a male, aged under 18, who has an unstated occupation.", None),
    ]


def test_every_code_of_the_format_has_its_own_words() -> None:
    assert [len(set(words.values())) for words in CODES.values()] == [2, 7, 21]
    assert CODES["Occupation"]["12"] == "works as a programmer"
    assert CODES["Occupation"]["20"] == "works as a writer"
    assert list(CODES["Age"]) == ["1", "18", "25", "35", "45", "50", "56"]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.removesuffix(b"\n"),
        lambda data: b"\n  \n" + data.replace(b"\n", b"\n\n"),
    ],
    ids=["crlf", "no-final-newline", "blank-lines"],
)
def test_line_ends_and_blank_lines_do_not_change_the_tables(tmp_path: Path, change) -> None:
    plain = stored(folder(tmp_path))
    changed = stored(folder(tmp_path, ratings=change(RATINGS), movies=change(MOVIES), users=change(USERS)))
    assert changed.interactions.equals(plain.interactions)
    assert changed.items.equals(plain.items)
    assert changed.users.equals(plain.users)


def test_a_byte_order_mark_of_utf_8_before_latin_1_text_is_passed_over(tmp_path: Path) -> None:
    plain = stored(folder(tmp_path))
    marked = stored(folder(tmp_path, ratings=b"\xef\xbb\xbf" + RATINGS, movies=b"\xef\xbb\xbf" + MOVIES, users=b"\xef\xbb\xbf" + USERS))
    assert marked.interactions.equals(plain.interactions)
    assert marked.items.equals(plain.items)
    assert marked.users.equals(plain.users)


def test_ids_lose_spaces_and_leading_zeros_alike_in_all_files(tmp_path: Path) -> None:
    ratings, movies, users = b" 007 ::042::4::978300019\n", b"0042::A::Drama\n00::B::Drama\n", b"07::F::25::9::0\n"
    tables = stored(folder(tmp_path, ratings=ratings, movies=movies, users=users))
    assert tables.interactions.drop("interaction_id").rows() == [("7", "42", 4.0, 978300019, 1)]
    assert tables.items["item_id"].to_list() == ["0", "42"]
    assert tables.users["user_id"].to_list() == ["7"]


def test_an_id_longer_than_any_integer_type_stays_whole(tmp_path: Path) -> None:
    long = b"9" * 40
    tables = stored(folder(tmp_path, ratings=b"901::" + long + b"::4::978300019\n", movies=long + b"::A::Drama\n"))
    assert tables.interactions["item_id"].to_list() == [long.decode()]


def test_the_order_of_lines_does_not_change_the_tables(tmp_path: Path) -> None:
    one = stored(folder(tmp_path))
    backwards = [b"\n".join(reversed(data.splitlines())) for data in (RATINGS, MOVIES, USERS)]
    other = stored(folder(tmp_path, ratings=backwards[0], movies=backwards[1], users=backwards[2]))
    assert other.interactions.equals(one.interactions)
    assert other.items.equals(one.items)
    assert other.users.equals(one.users)


def test_fingerprint_follows_the_bytes_and_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, same = folder(tmp_path / "a"), folder(tmp_path / "b")
    assert one.fingerprint() == same.fingerprint()
    assert len(one.fingerprint()) == 64
    for name in ("ratings", "movies", "users"):
        assert folder(tmp_path / "b", **{name: b"\n"}).fingerprint() != one.fingerprint()
    assert folder(tmp_path / "b", ratings=RATINGS + MOVIES[:9], movies=MOVIES[9:]).fingerprint() != one.fingerprint()


def test_settings_make_a_round_trip_through_json(tmp_path: Path) -> None:
    dataset = Ml1m(path=tmp_path)
    assert Dataset.model_validate(json.loads(json.dumps(dataset.canonical()))) == dataset
    assert Ml1m().canonical() == {"kind": "ml_1m", "path": None, "like_above": 3.0}


def test_importing_the_dataset_imports_no_polars() -> None:
    code = "import sys, e2urec_core.datasets.ml_1m; assert 'polars' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real MovieLens rows do not lie beside the project")
def test_the_real_folder_is_read_whole(tmp_path: Path) -> None:
    ingest(Ml1m(path=REAL), IngestRule(max_quarantined=0), tmp_path)
    told = read_counts(tmp_path)["this_reading"]
    assert (told["read"], told["kept"], told["repeated"]) == (200_042, 200_042, 0)
    tables = Tables(*(pl.read_parquet(path) for path in (part_files(tmp_path), tmp_path / "items.parquet", tmp_path / "users.parquet")))
    assert (tables.interactions.height, tables.items.height, tables.users.height) == (200_042, 3_883, 6_040)
    assert tables.interactions["rating"].unique().sort().to_list() == [1.0, 2.0, 3.0, 4.0, 5.0]
    lines = (REAL / "movies.dat").read_bytes().splitlines()
    accented = sorted(line.split(b"::")[1].decode("latin-1") for line in lines if not line.isascii())
    assert accented
    assert sorted(title for title in tables.items["title"] if not title.isascii()) == accented
    assert all(profile.startswith("The user is a ") and profile.endswith(".") for profile in tables.users["profile"])


def test_a_deleted_user_is_found_whatever_zeros_the_list_writes(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("41::Film (1990)::Drama\n")
    (tmp_path / "users.dat").write_text("7::F::25::9::0\n8::M::25::9::0\n")
    (tmp_path / "ratings.dat").write_text("7::41::5::978300019\n8::41::5::978300019\n")
    (tmp_path / "deleted.csv").write_text("user_id,deleted_at\n007,978300019\n")
    place = tmp_path / "stored"
    place.mkdir()
    assert ingest(Ml1m(path=tmp_path), IngestRule(deleted=tmp_path / "deleted.csv"), place) == 1
    assert read_counts(place)["this_reading"]["deleted"] == 1
