"""MovieLens-1M: every bad folder ends in a refusal that counts the fault, names its line and its mend, and names no user.

The folders here are so small that one bad line is more than may be put aside; rows 44 to 55 of FAULTS.
"""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.places import part_files
from e2urec_core.datasets.ml_1m import Ml1m
from e2urec_core.errors import BadInput, BadSetting

USER = b"90417"
RATINGS = [b"90417::41::5::978300019", b"90417::42::1::978300020", b"902::41::3::978300021"]
MOVIES = [b"41::Invented, The (1991)::Drama", b"42::Plain (1990)::Western"]
USERS = [b"90417::F::25::9::00000", b"902::M::1::0::11111"]


def folder(
    place: Path, *, ratings: bytes | list[bytes] = RATINGS, movies: bytes | list[bytes] = MOVIES, users: bytes | list[bytes] = USERS
) -> Ml1m:
    for name, data in (("ratings.dat", ratings), ("movies.dat", movies), ("users.dat", users)):
        (place / name).write_bytes(data if isinstance(data, bytes) else b"\n".join([*data, b""]))
    return Ml1m(path=place)


def refusal(dataset: Ml1m) -> BadInput:
    with tempfile.TemporaryDirectory() as place, pytest.raises(BadInput) as caught:
        ingest(dataset, IngestRule(), Path(place))
    assert USER.decode() not in str(caught.value)
    assert caught.value.hint
    assert "\n" not in caught.value.fact
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value


def assert_put_aside(error: BadInput, rule: str, where: str, *, count: int = 1, of: int = 3) -> None:
    """The run stopped at the table of rules, and this is its only one."""
    share = {(1, 3): "33.3", (1, 1): "100", (1, 2): "50", (1, 4): "25", (2, 3): "66.7"}[count, of]
    assert error.fact == f"{count} of {of} rows ({share} %) break a rule; at most 0.1 % may"
    assert error.facts == {rule: f"{count} rows, first at ratings.dat line {where}"}


def with_line(lines: list[bytes], line: bytes) -> list[bytes]:
    """The line in second place."""
    return [lines[0], line, *lines[2:]]


def test_a_run_without_a_folder_asks_for_it() -> None:
    for ask in (Ml1m().scan, Ml1m().fingerprint):
        with pytest.raises(BadSetting) as caught:
            ask()
        assert caught.value.hint == "add `--dataset.path FOLDER`"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    error = refusal(Ml1m(path=tmp_path / "nowhere"))
    assert error.fact == f"0 of 3 files found: there is no folder `{tmp_path / 'nowhere'}`"
    assert "--dataset.path" in error.hint
    with pytest.raises(BadInput):
        Ml1m(path=tmp_path / "nowhere").fingerprint()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_bytes(b"")
    assert "there is no folder" in refusal(Ml1m(path=tmp_path / "ratings.dat")).fact


@pytest.mark.parametrize("missing", [["ratings.dat"], ["movies.dat", "users.dat"], ["ratings.dat", "movies.dat", "users.dat"]])
def test_missing_files_are_listed(tmp_path: Path, missing: list[str]) -> None:
    dataset = folder(tmp_path)
    for name in missing:
        (tmp_path / name).unlink()
    error = refusal(dataset)
    assert error.fact == f"{len(missing)} of 3 files are missing in `{tmp_path}`"
    assert error.facts == {"missing": ", ".join(missing)}


def test_a_folder_whose_name_no_file_system_allows_is_refused() -> None:
    assert "File name too long" in refusal(Ml1m(path=Path("x" * 5000))).fact


@pytest.mark.parametrize("name", ["ratings", "movies", "users"])
@pytest.mark.parametrize("data", [b"", b"\n\r\n  \n", b"\xef\xbb\xbf"], ids=["no-bytes", "blank-lines", "only-a-mark"])
def test_an_empty_file_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    error = refusal(folder(tmp_path, **{name: data}))
    assert error.fact == f"{name}.dat is empty: 0 rows in {len(data):,} bytes"


@pytest.mark.parametrize("name", ["ratings", "movies", "users"])
@pytest.mark.parametrize(
    ("separator", "words"),
    [
        (b"\t", "tab"),
        (b",", "comma"),
        (b":", "single colon"),
        (b";", "semicolon"),
        (b"|", "vertical bar"),
        (b" ", "space"),
        (b"~", "not recognised"),
    ],
)
def test_a_wrong_separator_is_recognised(tmp_path: Path, name: str, separator: bytes, words: str) -> None:
    lines = {"ratings": RATINGS, "movies": MOVIES, "users": USERS}[name]
    error = refusal(folder(tmp_path, **{name: [line.replace(b"::", separator) for line in lines]}))
    assert error.fact.startswith(f"{len(lines)} of {len(lines)} lines of {name}.dat do not have")
    assert error.facts["separator"] == words
    assert error.facts["first line"] == 1
    assert "by `::`" in error.hint


@pytest.mark.parametrize("name", ["ratings", "movies", "users"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_refused(tmp_path: Path, name: str, encoding: str) -> None:
    lines = {"ratings": RATINGS, "movies": MOVIES, "users": USERS}[name]
    error = refusal(folder(tmp_path, **{name: b"\n".join(lines).decode().encode(encoding)}))
    assert error.fact.startswith(f"{name}.dat looks like UTF-16 instead of Latin-1, as ")
    assert error.hint.startswith("convert it by `iconv -f UTF-16 -t ISO-8859-1")


def test_a_nul_byte_late_in_a_file_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path, ratings=with_line(RATINGS, b"902::42::1::9783\x0000020")))
    assert "as 1 of its" in error.fact
    assert error.facts["first line"] == 2


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_utf_8_with_accents_is_refused(tmp_path: Path, mark: bytes) -> None:
    movies = mark + "41::Plain (1990)::Drama\n42::Café (1991)::Drama\n".encode()
    error = refusal(folder(tmp_path, movies=movies))
    # An accented letter is two bytes of UTF-8.
    assert error.fact == f"movies.dat looks like UTF-8 instead of Latin-1, as 2 of its {len(movies) - len(mark)} bytes show"
    assert error.facts["first line"] == 2
    assert error.hint.startswith("convert it by `iconv -f UTF-8 -t ISO-8859-1")


def test_windows_1252_is_refused_because_latin_1_would_lose_its_quotes(tmp_path: Path) -> None:
    movies = "41::L’été (1990)::Drama\n42::Plain::Drama\n".encode("cp1252")
    error = refusal(folder(tmp_path, movies=movies))
    assert error.fact == f"movies.dat looks like WINDOWS-1252 instead of Latin-1, as 1 of its {len(movies)} bytes show"
    assert "iconv -f WINDOWS-1252" in error.hint


@pytest.mark.parametrize("line", [b"90417::42::1", b"90417::42::1::978300020::9", b"90417"])
def test_a_rating_with_too_few_or_too_many_fields_is_put_aside(tmp_path: Path, line: bytes) -> None:
    error = refusal(folder(tmp_path, ratings=with_line(RATINGS, line)))
    assert_put_aside(error, "wrong number of fields", "2")
    assert error.hint == "write `UserID::MovieID::Rating::Timestamp` in every line"


@pytest.mark.parametrize(("line", "num_fields"), [(b"42::Plain", 2), (b"42::Plain::Drama::9", 4), (b"42", 1)])
def test_a_movie_with_too_few_or_too_many_fields_is_counted(tmp_path: Path, line: bytes, num_fields: int) -> None:
    error = refusal(folder(tmp_path, movies=with_line(MOVIES, line)))
    assert error.fact == "1 of 2 lines of movies.dat do not have 3 fields between `::`"
    assert error.facts == {"first line": 2, "its fields": num_fields, "expected": "MovieID::Title::Genres"}


def test_blank_lines_count_in_line_numbers_and_not_in_rows(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path, ratings=[b"", RATINGS[0], b"", b"90417::42::1"]))
    assert_put_aside(error, "wrong number of fields", "4", of=2)
    error = refusal(folder(tmp_path, movies=[b"", MOVIES[0], b"", b"42::Plain"]))
    assert error.fact.startswith("1 of 2 lines")
    assert error.facts["first line"] == 4


@pytest.mark.parametrize("name", ["ratings", "movies", "users"])
def test_a_missing_column_counts_every_line(tmp_path: Path, name: str) -> None:
    lines = {"ratings": RATINGS, "movies": MOVIES, "users": USERS}[name]
    error = refusal(folder(tmp_path, **{name: [line.rsplit(b"::", 1)[0] for line in lines]}))
    assert error.fact.startswith(f"{len(lines)} of {len(lines)} lines of {name}.dat do not have")
    assert error.facts["its fields"] == lines[0].count(b"::")
    assert "columns in every line" in error.hint


@pytest.mark.parametrize("value", [b"0", b"6", b"4.5", b"5.0", b"-1", b"good", b"NaN", b"", b"5 5", b"\xb3"])
def test_a_rating_outside_the_scale_is_shown(tmp_path: Path, value: bytes) -> None:
    error = refusal(folder(tmp_path, ratings=with_line(RATINGS, b"90417::42::" + value + b"::978300020")))
    assert_put_aside(error, "rating outside the scale", f"2: {value.decode('latin-1')!r}")
    assert error.hint == "the scale is whole stars: write 1, 2, 3, 4 or 5"


def test_a_control_sequence_in_a_value_does_not_reach_the_terminal(tmp_path: Path) -> None:
    assert "\x1b" not in str(refusal(folder(tmp_path, ratings=with_line(RATINGS, b"90417::42::\x1b[2J::978300020"))))


@pytest.mark.parametrize("size", [10**3, 10**6, 10**9], ids=["milliseconds", "microseconds", "nanoseconds"])
@pytest.mark.parametrize("second", [978300020, 1046454590])
def test_timestamps_in_smaller_units_are_recognised(tmp_path: Path, size: int, second: int) -> None:
    error = refusal(folder(tmp_path, ratings=with_line(RATINGS, f"90417::42::1::{second * size}".encode())))
    assert_put_aside(error, "time after 2096", f"2: '{second * size}'")
    assert error.hint.endswith(
        "larger numbers look like milliseconds, microseconds or nanoseconds: divide them by 1000, 1000000 or 1000000000"
    )


@pytest.mark.parametrize("value", [b"2000-12-31", b"2000-12-31 22:00:20", b"978300020.0", b"9.7e8", b"", b"NaN", b"+1", b"9" * 20])
def test_a_timestamp_that_is_no_whole_number_is_shown(tmp_path: Path, value: bytes) -> None:
    error = refusal(folder(tmp_path, ratings=with_line(RATINGS, b"90417::42::1::" + value)))
    assert_put_aside(error, "time is not a whole number of seconds", f"2: {value.decode()!r}")
    assert "seconds since 1970" in error.hint


def test_a_negative_timestamp_is_shown(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path, ratings=with_line(RATINGS, b"90417::42::1::-978300020")))
    assert_put_aside(error, "time is negative", "2: '-978300020'")


@pytest.mark.parametrize("value", [b"", b"-90417", b"90417.0", b"+90417", b"UserID", b"9 0417", b"1e3", b"\xb2"])
def test_a_user_id_that_is_no_number_is_counted_and_not_shown(tmp_path: Path, value: bytes) -> None:
    error = refusal(folder(tmp_path, ratings=with_line(RATINGS, value + b"::42::1::978300020")))
    assert_put_aside(error, "user is not a number", "2")
    error = refusal(folder(tmp_path, users=with_line(USERS, value + b"::M::25::9::0")))
    assert error.fact == "1 of 2 lines of users.dat have a UserID that is not a number"
    assert error.facts == {"first line": 2}


def test_a_header_line_is_refused_with_a_word_about_it(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path, ratings=[b"UserID::MovieID::Rating::Timestamp", *RATINGS]))
    assert_put_aside(error, "user is not a number", "1", of=4)
    assert "no header line" in error.hint


def test_a_movie_id_that_is_no_number_is_shown(tmp_path: Path) -> None:
    assert_put_aside(refusal(folder(tmp_path, ratings=[b"90417::41.0::3::978300021"])), "item is not a number", "1: '41.0'", of=1)
    error = refusal(folder(tmp_path, movies=[b"41.0::Title::Drama"]))
    assert error.fact == "1 of 1 lines of movies.dat have a MovieID that is not a number"
    assert error.facts["its value"] == "'41.0'"


@pytest.mark.parametrize("title", [b"", b"  ", b"\x07"])
def test_a_movie_without_a_title_is_refused(tmp_path: Path, title: bytes) -> None:
    assert (
        refusal(folder(tmp_path, movies=with_line(MOVIES, b"42::" + title + b"::Drama"))).fact
        == "1 of 2 lines of movies.dat have a Title that is empty"
    )


@pytest.mark.parametrize(
    ("column", "line", "value"), [("Gender", b"X::25::9", "X"), ("Age", b"M::26::9", "26"), ("Occupation", b"M::25::21", "21")]
)
def test_an_unknown_code_of_a_user_is_shown(tmp_path: Path, column: str, line: bytes, value: str) -> None:
    error = refusal(folder(tmp_path, users=[USERS[0], b"902::" + line + b"::0", b"903::" + line + b"::0"]))
    assert error.fact == f"2 of 3 lines of users.dat have a {column} that is an unknown code"
    assert error.facts == {"first line": 2, "its value": repr(value)}
    assert error.hint.startswith("the codes are ")


def counts(dataset: Ml1m) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as place:
        ingest(dataset, IngestRule(), Path(place))
        return read_counts(Path(place))["this_reading"]


def test_a_rating_given_twice_is_dropped_and_counted_and_one_of_another_time_stays(tmp_path: Path) -> None:
    told = counts(folder(tmp_path, ratings=[*RATINGS, RATINGS[0], b"90417::041::2::978300019", b"90417::041::2::978300099"]))
    # Three lines share user, item and moment: the lowest rating, 2, stays, and both 5s differ from it.
    assert (told["read"], told["kept"], told["repeated"], told["conflicting"]) == (6, 4, 2, 2)


def test_a_rating_of_an_unknown_movie_or_user_is_counted(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path, movies=MOVIES[:1]))
    assert_put_aside(error, "unknown item", "2: '42'")
    assert error.hint == "add the missing movies to movies.dat"
    error = refusal(folder(tmp_path, users=USERS[1:]))
    assert_put_aside(error, "unknown user", "1", count=2)
    assert error.hint == "add the missing users to users.dat"


def test_several_rules_are_told_in_the_order_of_their_counts_with_the_hint_of_the_worst(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path, ratings=[*RATINGS, b"90417::41::9::1", b"x::41::9::1", b"90417::41::0::1", b"90417::99::1::1"]))
    assert error.fact == "4 of 7 rows (57.1 %) break a rule; at most 0.1 % may"
    assert list(error.facts.items()) == [
        ("rating outside the scale", "2 rows, first at ratings.dat line 4: '9'"),
        ("unknown item", "1 rows, first at ratings.dat line 7: '99'"),
        ("user is not a number", "1 rows, first at ratings.dat line 5"),
    ]
    assert error.hint == "the scale is whole stars: write 1, 2, 3, 4 or 5"


def test_a_movie_or_user_listed_twice_is_counted(tmp_path: Path) -> None:
    error = refusal(folder(tmp_path, movies=[*MOVIES, b"041::Other::Drama"]))
    assert error.fact == "1 of 3 items are listed twice with different titles"
    assert refusal(folder(tmp_path, users=[*USERS, USERS[0]])).fact == "1 of 3 users are listed twice"


garbage = st.binary(max_size=60)
pieces = st.sampled_from(
    [b"::", b":", b"\n", b"\r", b",", b"\0", b"\xef\xbb\xbf", b"\xe9", b"\x1f", b'"', b"-", b"1", b"41", b"978300019", b"9" * 19, b"M"]
)
almost = st.lists(pieces | st.binary(max_size=3), max_size=14).map(b"".join)


def read_or_refuse(dataset: Ml1m) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            ingest(dataset, IngestRule(max_quarantined=1), place)
        except BadInput:
            return
        rows = pl.read_parquet(part_files(place))
        assert sum(rows.null_count().row(0)) == 0
        assert set(rows["rating"]) <= {1.0, 2.0, 3.0, 4.0, 5.0}
        assert sum(pl.read_parquet(place / "items.parquet").null_count().row(0)) == 0
        assert pl.read_parquet(place / "users.parquet")["profile"].null_count() == 0


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["ratings", "movies", "users"]), data=garbage | almost)
def test_a_file_of_garbage_is_read_or_refused(tmp_path: Path, name: str, data: bytes) -> None:
    read_or_refuse(folder(tmp_path, **{name: data}))


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["ratings", "movies", "users"]), place=st.floats(0, 1), cut=st.integers(0, 3), data=garbage | almost)
def test_garbage_inside_a_good_file_is_read_or_refused(tmp_path: Path, name: str, place: float, cut: int, data: bytes) -> None:
    good = b"\n".join({"ratings": RATINGS, "movies": MOVIES, "users": USERS}[name])
    start = int(place * len(good))
    read_or_refuse(folder(tmp_path, **{name: good[:start] + data + good[start + cut :]}))
