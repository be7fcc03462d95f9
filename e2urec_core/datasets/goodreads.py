"""Goodreads as the UCSD Book Graph hands it out: shelves of readers in JSON lines, or in a smaller CSV file with maps of its ids.

Both forms end in the published ids. A book that somebody put on a shelf without rating it is no interaction: such rows are counted and
left out. The CSV form has no dates: there a user's n-th row stands at second n, so a cut by time is one by place on each user's own
shelf, and users cannot be compared in time. Nobody has published whether shelves are listed oldest first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.data.files import FILE, LINE, Files, find, unglobbed
from e2urec_core.data.moments import NEWEST_S
from e2urec_core.data.unreadable import reading
from e2urec_core.datasets.base import Dataset, Source, canonical_id, clean_title, first_broken
from e2urec_core.errors import BadInput, BadSetting

if TYPE_CHECKING:
    import polars

Form = Literal["json", "csv"]
DATED = "%a %b %d %H:%M:%S %z %Y"
"""As in `Fri Apr 19 08:15:15 -0700 2013`."""
WHOLE = ("", "dedup")
"""What stands behind `goodreads_interactions` in the name of the complete file: nothing, or that repeated rows were taken out."""
UNRATED, UNREAD = "not rated", "never read"
MAPS = {"user": "user_id_map.csv", "book": "book_id_map.csv"}
NO_DATES = "the CSV form has no dates: a user's n-th row stands at second n, so cuts by time are cuts by place on each user's shelf"


class Goodreads(Dataset):
    """Read ratings and titles of the UCSD Book Graph from the folder with its files of interactions and of books.

    Ids are text, trimmed. Rows with rating 0 were never rated and are left out. Reviews, authors and genres are not used.

    Source: Mengting Wan and Julian McAuley, Item Recommendation on Monotonic Behavior Chains, RecSys 2018; Mengting Wan, Rishabh Misra,
    Ndapa Nakashole and Julian McAuley, Fine-Grained Spoiler Detection from Large-Scale Review Corpora, ACL 2019. Licence: in `licence`.
    """

    licence: ClassVar[str] = "UCSD Book Graph: for academic use only, no redistribution, no commercial use"
    source: ClassVar[str] = "UCSD Book Graph: Wan and McAuley, RecSys 2018; Wan, Misra, Nakashole and McAuley, ACL 2019"
    expected: ClassVar[Mapping[str, int]] = {"rows": 228_648_342, "users": 876_145, "items": 2_360_655}

    kind: Literal["goodreads"] = "goodreads"
    """Name of the dataset."""
    path: Path | None = None
    """Folder that holds the files of interactions and of books; it must be given, and nothing is downloaded."""
    part: str | None = Field(None, pattern=r"^\w+$")
    """What stands behind `goodreads_interactions_` in a file's name, such as `poetry`, or `complete`; needed where several files lie."""
    form: Form | None = None
    """`json` or `csv`, where both lie in the folder (otherwise JSON); in the CSV form a user's n-th row stands at second n."""
    moment: Literal["date_added", "date_updated", "read_at"] = "date_added"
    """Which date of a row is its moment; by `read_at`, rows without one are left out as never read; the CSV form has no dates."""

    def scan(self) -> Source:
        """See `Dataset.scan`.

        Raises:
            BadSetting: No folder was given, or a setting asks of the CSV form what it does not hold.
            BadInput: A file is missing, several could be meant, or the CSV form's maps give an id twice.
        """
        import polars as pl

        shelf = self._shelf()
        read, rules = _from_csv(shelf) if shelf.form == "csv" else _from_json(shelf, self.moment)
        said = pl.col("raw_rating").str.strip_chars()
        rating = said.cast(pl.Float32, strict=False)
        rules |= {"rating outside the scale": ~said.str.contains(r"^[0-5](\.0*)?$").fill_null(value=False), UNRATED: rating == 0}
        rules |= _about_dates(self.moment) if shelf.form == "json" else {}
        titles = pl.scan_ndjson(unglobbed(str(shelf.books)), schema={"book_id": pl.String, "title": pl.String})
        raw = pl.col("raw_user", "raw_item", "raw_rating", "raw_time")
        judged = {"rating": rating, "label": (rating > self.like_above).cast(pl.Int8)}
        return Source(
            rows=read.select(first_broken(rules), FILE, LINE, "user_id", "item_id", "timestamp_s", raw, **judged),
            items=titles.select(item_id=_id("book_id"), title=clean_title("title")),
            users=None,
            hints=_hints(shelf, self.moment),
            left_out=(UNRATED, UNREAD) if self.moment == "read_at" else (UNRATED,),
            remarks=(NO_DATES,) if shelf.form == "csv" else (f"a row's moment is its `{self.moment}`",),
            files=shelf.paths(),
        )

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of the files that are read."""
        return Files(self._shelf().paths(), "ndjson", str(self.path)).fingerprint()

    def _shelf(self) -> _Shelf:
        if self.path is None:
            raise BadSetting("`goodreads` was given 0 folders and reads its files from one", hint="add `--dataset.path FOLDER`")
        if not self.path.is_dir():
            raise BadInput(f"there is no folder `{self.path}`", hint="let `--dataset.path FOLDER` name the folder with the files")
        names = sorted(each.name for each in self.path.iterdir() if each.is_file())
        shelves = _parts(names, "goodreads_interactions")
        table = _plain_or_packed(names, "goodreads_interactions.csv")
        form: Form = self.form or ("json" if shelves or table is None else "csv")
        if form == "csv":
            return self._csv(names, table)
        part = self._chosen(shelves)
        return _Shelf("json", self.path / shelves[part], self._titles(names, part))

    def _csv(self, names: list[str], table: str | None) -> _Shelf:
        assert self.path is not None
        if self.part not in (None, "complete") or self.moment != "date_added":
            wrong = f"part `{self.part}`" if self.part not in (None, "complete") else f"dates for `{self.moment}`"
            raise BadSetting(
                f"the CSV form has no {wrong}: it is one complete file without dates",
                hint="read the JSON form, or leave `--dataset.part` and `--dataset.moment` out",
            )
        if table is None:
            raise self._no_interactions("goodreads_interactions.csv")
        maps = {what: _plain_or_packed(names, name) for what, name in MAPS.items()}
        missing = [MAPS[what] for what, name in maps.items() if name is None]
        if missing:
            raise BadInput(
                f"{len(missing)} of {len(MAPS)} maps of the CSV form's ids are missing in `{self.path}`: {', '.join(missing)}",
                hint="copy user_id_map.csv and book_id_map.csv into the folder: they give the published ids",
            )
        return _Shelf("csv", self.path / table, self._titles(names), {what: self.path / str(name) for what, name in maps.items()})

    def _chosen(self, shelves: dict[str, str]) -> str:
        """Which of the files of JSON lines is read: the part that was named, or the only one."""
        if not shelves:
            raise self._no_interactions("goodreads_interactions*.json.gz")
        found = [part for part in shelves if self.part in (None, part) or (self.part == "complete" and part in WHOLE)]
        if len(found) == 1:
            return found[0]
        facts = {"its parts": ", ".join(part or "complete" for part in shelves)}
        if not found:
            raise BadInput(f"0 files of part `{self.part}` found in `{self.path}`", facts=facts, hint="name one of its parts")
        # Genres overlap and lie inside of the complete file, so reading several would repeat rows.
        fact = f"{len(found)} files of interactions could be meant in `{self.path}`"
        raise BadInput(fact, facts=facts, hint=f"say which one by `--dataset.part {found[-1]}`")

    def _no_interactions(self, pattern: str) -> BadInput:
        return BadInput(
            f"0 files of interactions found: there is no `{pattern}` in `{self.path}`",
            hint="let `--dataset.path FOLDER` name the folder with goodreads_interactions*.json.gz or goodreads_interactions.csv",
        )

    def _titles(self, names: list[str], part: str = "") -> Path:
        """The file of books: that of the part, or the complete one."""
        assert self.path is not None
        books = _parts(names, "goodreads_books")
        found = [books[each] for each in (part, *WHOLE) if each in books]
        if not found:
            wanted = [f"goodreads_books_{part}.json.gz"] if part not in WHOLE else []
            raise BadInput(
                f"0 files of books found: there is no `goodreads_books.json.gz` in `{self.path}`",
                hint=f"copy {' or '.join([*wanted, 'goodreads_books.json.gz'])} into the folder: prompts need the titles",
            )
        return self.path / found[0]


@dataclass(frozen=True)
class _Shelf:
    """The files that are read."""

    form: Form
    interactions: Path
    books: Path
    maps: dict[str, Path] | None = None

    def paths(self) -> tuple[str, ...]:
        return tuple(map(str, (self.interactions, self.books, *(self.maps or {}).values())))


def _parts(names: list[str], stem: str) -> dict[str, str]:
    """The files of JSON lines by what stands behind the stem; of a part that lies there twice the packed file, as it was published."""
    found = ((re.fullmatch(rf"{stem}(?:_(\w+))?\.json(?:\.gz)?", name), name) for name in names)
    return {match[1] or "": name for match, name in found if match}


def _plain_or_packed(names: list[str], name: str) -> str | None:
    return next((each for each in (f"{name}.gz", name) if each in names), None)


def _id(column: str) -> polars.Expr:
    import polars as pl

    return canonical_id(column, pl.String())


def _from_json(shelf: _Shelf, moment: str) -> tuple[polars.LazyFrame, dict[str, polars.Expr]]:
    """Rows of the JSON form, and the rules about their ids. Numbers in the place of text are read as text."""
    import polars as pl

    schema = dict.fromkeys(("user_id", "book_id", "rating", moment), pl.String)
    lines = pl.scan_ndjson(unglobbed(str(shelf.interactions)), schema=schema, row_index_name=LINE, row_index_offset=1)
    dated = pl.col(moment).str.strip_chars().str.to_datetime(DATED, time_unit="us", strict=False)
    rows = lines.select(
        LINE,
        user_id=_id("user_id"),
        item_id=_id("book_id"),
        timestamp_s=dated.dt.timestamp("us").floordiv(10**6),
        raw_user="user_id",
        raw_item="book_id",
        raw_rating="rating",
        raw_time=moment,
        **{FILE: pl.lit(shelf.interactions.name)},
    )
    return rows, {"missing user": pl.col("user_id").is_null(), "missing item": pl.col("item_id").is_null()}


def _about_dates(moment: str) -> dict[str, polars.Expr]:
    import polars as pl

    empty = ~(pl.col("raw_time").str.strip_chars().str.len_bytes() > 0).fill_null(value=False)
    return {
        UNREAD if moment == "read_at" else "no date": empty,
        "unreadable date": pl.col("timestamp_s").is_null(),
        "date outside 1970 to 2100": ~pl.col("timestamp_s").is_between(0, NEWEST_S),
    }


def _from_csv(shelf: _Shelf) -> tuple[polars.LazyFrame, dict[str, polars.Expr]]:
    """Rows of the CSV form under the published ids, and the rules about their ids; a user's n-th row stands at second n."""
    import polars as pl

    assert shelf.maps is not None
    rows = _columns(shelf.interactions, ("user_id", "book_id", "rating")).select(
        FILE,
        pl.col(LINE).cast(pl.Int64),
        user=_id("user_id"),
        book=_id("book_id"),
        raw_user="user_id",
        raw_item="book_id",
        raw_rating="rating",
        raw_time=pl.lit(None, pl.String),
    )
    rows = _with_place_on_shelf(rows, str(shelf.interactions))
    for what, name in (("user", "user_id"), ("book", "item_id")):
        rows = rows.join(_map(shelf.maps[what], what, name), on=what, how="left")
    return rows, {
        "missing user": pl.col("user").is_null(),
        "missing item": pl.col("book").is_null(),
        "unknown user": pl.col("user_id").is_null(),
        "unknown item": pl.col("item_id").is_null(),
    }


def _with_place_on_shelf(rows: polars.LazyFrame, path: str) -> polars.LazyFrame:
    """Adds `timestamp_s`: how many rows of the same user there are up to this one."""
    import polars as pl

    line = pl.col(LINE)
    with reading(path):
        shelves = rows.group_by("user").agg(first=line.min(), others=line.max() - line.min() + 1 - pl.len()).collect(engine="streaming")
    if shelves.filter(pl.col("user").is_not_null() & (pl.col("others") > 0)).height:
        return rows.with_columns(timestamp_s=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("user"))
    # As published, a user's rows stand together, so that it is enough to know each one's first.
    return rows.join(shelves.lazy().select("user", "first"), on="user", how="left").with_columns(timestamp_s=line - pl.col("first") + 1)


def _map(path: Path, what: str, name: str) -> polars.LazyFrame:
    """The CSV form's numbers (column `what`) with the published ids (column `name`), each number once."""
    import polars as pl

    pairs = _columns(path, (f"{what}_id_csv", f"{what}_id")).select(_id(f"{what}_id_csv").alias(what), _id(f"{what}_id").alias(name))
    with reading(str(path)):
        known = pairs.filter(pl.col(what).is_not_null()).collect(engine="streaming")
    repeated = known.height - known[what].n_unique()
    if repeated:
        raise BadInput(f"{repeated:,} of {known.height:,} ids stand twice in {path.name}", hint=f"copy {path.name} again")
    return known.lazy()


def _columns(path: Path, names: tuple[str, ...]) -> polars.LazyFrame:
    rows = find(str(path), "csv").scan()
    with reading(str(path)):
        found = rows.collect_schema().names()
    missing = [name for name in names if name not in found]
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(names)} columns are missing in {path.name}: {', '.join(missing)}",
            hint=f"its first line must name {', '.join(names)}; copy the file again",
        )
    return rows


def _hints(shelf: _Shelf, moment: str) -> dict[str, str]:
    mapped = " and to book_id_map.csv" if shelf.maps else ""
    written = "write it as in `Fri Apr 19 08:15:15 -0700 2013`"
    return {
        "missing user": "every row needs `user_id`; check that this is a file of interactions",
        "missing item": "every row needs `book_id`; check that this is a file of interactions",
        "unknown user": "add the user's number to user_id_map.csv",
        "unknown item": f"add the books to {shelf.books.name}{mapped}, or copy the files of one release",
        "item without a title": f"give these books a title in {shelf.books.name}",
        "rating outside the scale": "the scale is whole stars from 1 to 5, and 0 where there is no rating",
        "no date": f"fill `{moment}`, or choose another date by `--dataset.moment`",
        "unreadable date": written,
        "date outside 1970 to 2100": written,
    }
