"""MovieLens-1M as GroupLens hands it out: three Latin-1 text files whose fields stand between double colons.

The files are split into text columns first and turned into numbers only where a line keeps every rule, so a fault late in a file is
put aside under its name and line instead of becoming a null. User ids never appear in a message.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from e2urec_core.datasets.base import Dataset, Source, clean_title, first_broken
from e2urec_core.errors import BadInput, BadSetting

if TYPE_CHECKING:
    import polars

COLUMNS = {
    "ratings.dat": ("UserID", "MovieID", "Rating", "Timestamp"),
    "movies.dat": ("MovieID", "Title", "Genres"),
    "users.dat": ("UserID", "Gender", "Age", "Occupation", "Zip-code"),
}
SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "vertical bar", ":": "single colon", " ": "space"}
AGES = {"1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56 or more"}
# Occupations stand in the order of their codes, 0 to 20.
OCCUPATIONS = (
    "has an unstated occupation, works as an academic or educator, works as an artist, works as a clerk or administrator, "
    "is a college or graduate student, works in customer service, works as a doctor or in health care, "
    "works as an executive or manager, works as a farmer, works as a homemaker, is a school pupil, works as a lawyer, "
    "works as a programmer, is retired, works in sales or marketing, works as a scientist, is self-employed, "
    "works as a technician or engineer, works as a tradesman or craftsman, is unemployed, works as a writer"
)
WORK = {str(code): words for code, words in enumerate(OCCUPATIONS.split(", "))}
CODES = {"Gender": {"F": "female", "M": "male"}, "Age": AGES, "Occupation": WORK}
NEWEST_S = 4_000_000_000
"""The year 2096. Counted in milliseconds, every time since 16 February 1970 is above it."""
NUMBER = "^[0-9]+$"


class Ml1m(Dataset):
    """Read ratings, titles and user sentences of MovieLens-1M from the folder with ratings.dat, movies.dat and users.dat.

    Ids are decimal digits and lose leading zeros (`007` is `7`). Genres and zip codes are not used.

    Source: F. Maxwell Harper and Joseph A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015,
    DOI 10.1145/2827872. Licence: that of GroupLens, in `licence`.
    """

    expected: ClassVar[Mapping[str, int]] = {"rows": 1_000_209, "users": 6040, "items": 3883}
    checksums: ClassVar[Mapping[str, str]] = {"ml-1m.zip": "MD5 c4d9eecfca2ab87c1945afe126590906"}
    licence: ClassVar[str] = "GroupLens: research use with citation; no redistribution and no commercial use without permission"
    source: ClassVar[str] = "Harper and Konstan 2015, The MovieLens Datasets: History and Context, DOI 10.1145/2827872"

    kind: Literal["ml_1m"] = "ml_1m"
    """Name of the dataset."""
    path: Path | None = None
    """Folder that holds ratings.dat, movies.dat and users.dat; it must be given, and nothing is downloaded."""

    def scan(self) -> Source:
        """Read the three files. Lines of ratings that break a rule are marked; a fault in the tables of movies or users stops at once.

        Raises:
            BadSetting: No folder was given.
            BadInput: A file is missing, is no such table at all, or a line of movies or users is not what the format says.
        """
        import polars as pl

        ratings, movies, users = (_lines(name, data) for name, data in self._files().items())
        for lines, column in ((movies, "MovieID"), (users, "UserID")):
            lines.demand(column, NUMBER, "is not a number", "write ids in decimal digits without a sign, and no header line")
        movies.demand("Title", r"[^\s\p{C}\p{Z}]", "is empty", "give these movies a title, or take them and their ratings out")
        for column, words in CODES.items():
            users.demand(column, f"^({'|'.join(words)})$", "is an unknown code", f"the codes are {', '.join(words)}")
        profile = pl.format(
            "The user is a {}, aged {}, who {}.", *(pl.col(column).replace_strict(words) for column, words in CODES.items())
        )
        rules, rating = _rules(), pl.col("Rating").cast(pl.Float32, strict=False)
        return Source(
            rows=ratings.rows.lazy().select(
                first_broken({name: broken for name, (broken, _) in rules.items()}),
                "line",
                file=pl.lit("ratings.dat"),
                user_id=_canonical("UserID"),
                item_id=_canonical("MovieID"),
                rating=rating,
                timestamp_s=pl.col("Timestamp").cast(pl.Int64, strict=False),
                label=(rating > self.like_above).cast(pl.Int8),
                raw_user="UserID",
                raw_item="MovieID",
                raw_rating="Rating",
                raw_time="Timestamp",
            ),
            items=movies.rows.lazy().select(item_id=_canonical("MovieID"), title=clean_title("Title")),
            users=users.rows.lazy().select(user_id=_canonical("UserID"), profile=profile, cohort=pl.lit(None, pl.String)),
            hints={name: hint for name, (_, hint) in rules.items()}
            | {"unknown item": "add the missing movies to movies.dat", "unknown user": "add the missing users to users.dat"},
            users_are_all=True,
        )

    def spelled(self, user: polars.Expr) -> polars.Expr:
        """See `Dataset.spelled`: without leading zeros."""
        return _canonical(user)

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of the three files."""
        digest = hashlib.sha256()
        for name, data in self._files().items():
            digest.update(f"{name} {len(data)}\n".encode() + data)
        return digest.hexdigest()

    def _files(self) -> dict[str, bytes]:
        if self.path is None:
            raise BadSetting("`ml-1m` was given 0 folders and reads its 3 files from one", hint="add `--dataset.path FOLDER`")
        hint = f"let `--dataset.path FOLDER` name the folder that holds {', '.join(COLUMNS)}"
        try:
            if not self.path.is_dir():
                raise BadInput(f"0 of 3 files found: there is no folder `{self.path}`", hint=hint)
            missing = [name for name in COLUMNS if not (self.path / name).is_file()]
            if missing:
                raise BadInput(f"{len(missing)} of 3 files are missing in `{self.path}`", facts={"missing": ", ".join(missing)}, hint=hint)
            return {name: (self.path / name).read_bytes() for name in COLUMNS}
        except OSError as error:
            raise BadInput(f"the 3 files in `{self.path}` cannot be read: {error.strerror}", hint=hint) from error


@dataclass(frozen=True)
class _Lines:
    """One file as text columns, and `line`, which counts from 1."""

    name: str
    rows: polars.DataFrame

    def demand(self, column: str, pattern: str, fault: str, hint: str) -> None:
        """Refuse the file unless every value of the column matches the pattern."""
        import polars as pl

        wrong = self.rows.filter(~pl.col(column).str.contains(pattern))
        if wrong.height:
            shown = {} if column == "UserID" else {"its value": repr(wrong[column][0][:40])}
            fact = f"{wrong.height:,} of {self.rows.height:,} lines of {self.name} have a {column} that {fault}"
            raise BadInput(fact, facts={"first line": wrong["line"][0], **shown}, hint=hint)


def _lines(name: str, data: bytes) -> _Lines:
    """Split a file at line ends and double colons; blank lines are passed over."""
    import polars as pl

    names, text = COLUMNS[name], pl.col("text")
    rows = pl.DataFrame({"text": _decoded(name, data).split("\n")}).with_row_index("line", 1).filter(text.str.contains(r"\S"))
    if rows.is_empty():
        raise BadInput(f"{name} is empty: 0 rows in {len(data):,} bytes", hint=f"copy {name} from the ML-1M archive again")
    rows = rows.with_columns(num_fields=text.str.count_matches("::", literal=True) + 1)
    wrong = rows.filter(pl.col("num_fields") != len(names))
    # Ratings are put aside line by line; a file that is wrong throughout, or a wrong table of movies or users, is refused.
    if wrong.height and (name != "ratings.dat" or wrong.height == rows.height):
        fact = f"{wrong.height:,} of {rows.height:,} lines of {name} do not have {len(names)} fields between `::`"
        facts = {"first line": wrong["line"][0], "its fields": wrong["num_fields"][0], "expected": "::".join(names)}
        hint = f"write {name} with these {len(names)} columns in every line, and `::` nowhere but between them"
        seen = re.match(r"\s*\w+(\W)", wrong["text"][0])
        if rows["num_fields"].max() == 1 and seen:
            facts["separator"] = SEPARATORS.get(seen[1], "not recognised")
            hint = f"separate the {len(names)} fields of {name} by `::`"
        raise BadInput(fact, facts=facts, hint=hint)
    fields = text.str.split_exact("::", len(names) - 1).struct.rename_fields(list(names)).alias("fields")
    strip = pl.exclude("line", "num_fields", "Title").str.strip_chars()
    return _Lines(name, rows.select("line", "num_fields", fields).unnest("fields").with_columns(strip))


def _decoded(name: str, data: bytes) -> str:
    """The file read as Latin-1. That admits any bytes, so the marks of other encodings are refused first."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    encoding, marks = "WINDOWS-1252", rb"[\x80-\x9f]"
    if b"\0" in data or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding, marks = "UTF-16", rb"\x00|\A\xff\xfe|\A\xfe\xff"
    elif _is_utf_8(data):
        encoding, marks = "UTF-8", rb"[\x80-\xff]"
    first = re.search(marks, data)
    if first:
        fact = f"{name} looks like {encoding} instead of Latin-1, as {len(re.findall(marks, data)):,} of its {len(data):,} bytes show"
        hint = f"convert it by `iconv -f {encoding} -t ISO-8859-1//TRANSLIT {name}`, or copy it again if it was damaged"
        raise BadInput(fact, facts={"first line": data.count(b"\n", 0, first.start()) + 1}, hint=hint)
    return data.decode("latin-1")


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _rules() -> dict[str, tuple[polars.Expr, str]]:
    """Of each rule about a line of ratings: whether the line breaks it, and what to do."""
    import polars as pl

    number = "write ids in decimal digits without a sign, and no header line"
    seconds = "write whole seconds since 1970 in UTC, as `date -u -d '2001-02-03 04:05:06' +%s` prints them"
    late = f"{seconds}; larger numbers look like milliseconds, microseconds or nanoseconds: divide them by 1000, 1000000 or 1000000000"
    time = pl.col("Timestamp")
    return {
        "wrong number of fields": (pl.col("num_fields") != 4, "write `UserID::MovieID::Rating::Timestamp` in every line"),
        "user is not a number": (~pl.col("UserID").str.contains(NUMBER), number),
        "item is not a number": (~pl.col("MovieID").str.contains(NUMBER), number),
        "rating outside the scale": (~pl.col("Rating").str.contains("^[1-5]$"), "the scale is whole stars: write 1, 2, 3, 4 or 5"),
        "time is not a whole number of seconds": (~time.str.contains("^-?[0-9]{1,19}$"), seconds),
        "time is negative": (time.str.starts_with("-"), seconds),
        "time after 2096": (time.cast(pl.UInt64, strict=False).fill_null(0) > NEWEST_S, late),
    }


def _canonical(column: str | polars.Expr) -> polars.Expr:
    import polars as pl

    return (pl.col(column) if isinstance(column, str) else column).str.replace(r"^0+([0-9])", "${1}")
