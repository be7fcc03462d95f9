"""Any table of interactions: CSV, NDJSON or Parquet, a file, a folder, a glob or an address in an object store; columns by setting.

A row says who met what and when, and how they liked it: a rating against a threshold, or a click column. Titles and user columns may
stand in the same rows or in tables of their own. Ids are text, trimmed and otherwise as they stand: `007` is not `7`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.data.files import FILE, LINE, Files, find
from e2urec_core.data.moments import NEWEST_S, seconds_of_dates, seconds_of_numbers, unit_of
from e2urec_core.data.unreadable import reading
from e2urec_core.datasets.base import RULE, Dataset, Source, as_text, canonical_id, clean_title, first_broken, newest_text
from e2urec_core.errors import BadInput, BadSetting

if TYPE_CHECKING:
    import polars

YES = ("1", "1.0", "true", "t", "yes", "y", "click", "clicked", "like", "liked")
NO = ("0", "0.0", "false", "f", "no", "n", "skip", "skipped", "dislike", "disliked", "-1")


class Interactions(Dataset):
    """Read a table of interactions whose columns settings name.

    Source: the user's own data. Licence: the user's own.
    """

    licence: ClassVar[str] = "that of your data"
    source: ClassVar[str] = "your own table"

    kind: Literal["interactions"] = "interactions"
    """Name of the dataset."""
    path: str | None = None
    """File, folder, glob or address (`s3://`, `gs://`, `abfss://`) of the table; must be given. Credentials come from the environment."""
    format: Literal["csv", "ndjson", "parquet"] | None = None
    """What the files are written in; without a word, their ending tells."""
    separator: str = Field(",", min_length=1, max_length=1)
    """Between the fields of a CSV file; files named `.tsv` have tabs."""
    user_column: str = "user_id"
    """Column of the user's id."""
    item_column: str = "item_id"
    """Column of the item's id."""
    time_column: str = "timestamp"
    """Column of the moment."""
    time_unit: Literal["auto", "s", "ms", "us", "ns", "iso"] = "auto"
    """Unit of the moments since 1970 UTC, or `iso` for dates in text; `auto` takes one unit for the whole table, from its median."""
    rating_column: str | None = "rating"
    """Column of the rating; `none` where there is a click column instead."""
    lowest_rating: float = 0.0
    """Lowest rating of the scale."""
    highest_rating: float = 10.0
    """Highest rating of the scale."""
    click_column: str | None = None
    """Column that says 1 or 0, true or false, yes or no; it replaces the rating's threshold."""
    title_column: str | None = None
    """Column of the item's title, in the rows or in the table of items; without one, the id stands for the title."""
    items_path: str | None = None
    """Table of items with the item column and the title column; rows of items that it does not list are put aside."""
    users_path: str | None = None
    """Table of users with the user column and the profile columns."""
    profile_columns: str = ""
    """Columns that describe the user, separated by commas; they become a sentence, as in `The user: age 25, job nurse`."""

    def scan(self) -> Source:
        """See `Dataset.scan`.

        Raises:
            BadSetting: No path was given, or neither a rating nor a click column.
            BadInput: The files are not there, are no table, or lack a column.
        """
        import polars as pl

        files, columns = self._own()
        rows = self._table("the table", files, columns)
        schema = rows.collect_schema()
        user, item, time = self.user_column, self.item_column, self.time_column
        self._refuse_types(schema)
        seconds, unit = self._seconds(rows, schema[time], files)
        told, answer_rules = self._answers(schema)
        rules = {
            "missing user": pl.col("user_id").is_null(),
            "missing item": pl.col("item_id").is_null(),
            "unreadable time": pl.col("timestamp_s").is_null(),
            "time outside 1970 to 2100": ~pl.col("timestamp_s").is_between(0, NEWEST_S),
            **answer_rules,
        }
        titled = self.title_column if self.items_path is None else None
        described = self._profile_names() if self.users_path is None else []
        read = rows.select(
            pl.col(FILE, LINE),
            user_id=canonical_id(user, schema[user]),
            item_id=canonical_id(item, schema[item]),
            timestamp_s=seconds,
            raw_user=as_text(user),
            raw_item=as_text(item),
            raw_time=as_text(time),
            **told,
            **({"title": as_text(titled)} if titled else {}),
            **{f"profile {name}": as_text(name) for name in described},
        ).with_columns(first_broken(rules), rating=pl.col("rating").cast(pl.Float32))
        kept = read.filter(pl.col(RULE).is_null())
        return Source(
            rows=read.drop("title", *(f"profile {name}" for name in described), strict=False),
            items=self._items(kept),
            users=self._users(kept),
            hints=self._hints(unit),
            remarks=(f"times are read as {unit}",) if self.time_unit == "auto" else (),
            files=files.paths,
        )

    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of all its tables; see `Files.fingerprint`."""
        digest = hashlib.sha256()
        for path in (self.path, self.items_path, self.users_path):
            if path:
                digest.update(self._files(path).fingerprint().encode())
        return digest.hexdigest() if self.path else self._own()[0].fingerprint()

    def _own(self) -> tuple[Files, tuple[str, ...]]:
        if not self.path:
            raise BadSetting("`interactions` was given 0 tables and reads one", hint="add `--dataset.path FILE`")
        liked = self.click_column or self.rating_column
        if liked is None:
            raise BadSetting(
                "neither `--dataset.rating-column` nor `--dataset.click-column` names a column, so no row says who liked what",
                hint="name one of them",
            )
        titled = (self.title_column,) if self.title_column and self.items_path is None else ()
        described = tuple(self._profile_names()) if self.users_path is None else ()
        return self._files(self.path), (self.user_column, self.item_column, self.time_column, liked, *titled, *described)

    def _files(self, path: str) -> Files:
        return find(path, self.format if path == self.path else None)

    def _table(self, what: str, files: Files, columns: tuple[str, ...]) -> polars.LazyFrame:
        """The rows of a table that has these columns; what is neither a number, a moment nor a truth value is text."""
        import polars as pl

        reserved = [name for name in columns if name in (FILE, LINE)]
        if reserved:
            raise BadSetting(
                f"{len(reserved)} of {len(columns)} columns of {what} are called `{reserved[0]}`, which is the name of a row's place",
                hint=f"rename the column `{reserved[0]}` of {what}",
            )
        rows = files.scan(self.separator, columns)
        with reading(files.root, files.paths):
            schema = rows.collect_schema()
        found = [name for name in schema.names() if name not in (FILE, LINE)]
        missing = [name for name in columns if name not in found]
        if missing:
            # A first row in the place of a header would name a user.
            headless = files.format == "csv" and any(re.match(r"\s*[-+]?\d", name) for name in found)
            near = [] if headless else difflib.get_close_matches(missing[0], found, n=1)
            offer = f"did you mean `{near[0]}`? " if near else ""
            offer = "write the names of the columns into the first line; " if headless else offer
            raise BadInput(
                f"{len(missing)} of {len(columns)} columns are missing in {what}: {', '.join(missing)}",
                facts={"its columns": f"{len(found)}; the first line looks like a row" if headless else ", ".join(found)[:400]},
                hint=f"{offer}name the columns by settings such as `--dataset.user-column`, `--dataset.time-column`",
            )
        nested = [name for name in columns if schema[name].is_nested() or schema[name].is_object()]
        if nested:
            raise BadInput(
                f"{len(nested)} of {len(columns)} columns of {what} hold lists or records: {', '.join(nested)}",
                hint="write one value into each field",
            )
        kept = (pl.Boolean, pl.String)
        odd = [name for name in columns if not (schema[name].is_numeric() or schema[name].is_temporal() or schema[name] in kept)]
        return rows.with_columns(pl.col(odd).cast(pl.String)) if odd else rows

    def _refuse_types(self, schema: polars.Schema) -> None:
        import polars as pl

        time = schema[self.time_column]
        if not (time.is_numeric() or time in (pl.String, pl.Date, pl.Datetime)):
            raise BadInput(
                f"the column `{self.time_column}` holds {time}, not moments", hint="name another by `--dataset.time-column`, or write dates"
            )
        answer = schema[self.rating_column] if self.click_column is None and self.rating_column else pl.String()
        if not (answer.is_numeric() or answer == pl.String):
            raise BadInput(
                f"the column `{self.rating_column}` holds {answer}, not numbers",
                hint="name another by `--dataset.rating-column`, or say `--dataset.click-column` where it holds yes and no",
            )

    def _seconds(self, rows: polars.LazyFrame, kind: polars.DataType, files: Files) -> tuple[polars.Expr, str]:
        """The moments in whole seconds, and how they were read; a text that is no moment becomes missing."""
        import polars as pl

        column = pl.col(self.time_column)
        if kind.is_temporal():
            return column.cast(pl.Datetime("us")).dt.timestamp("us").floordiv(10**6), "the table's own dates"
        unit: str = self.time_unit
        if unit == "auto":
            with reading(files.root, files.paths):
                unit = unit_of(rows, column, kind)
        if unit != "iso":
            return seconds_of_numbers(column, kind, unit), f"{unit} since 1970"
        if kind.is_numeric():
            raise BadInput(
                f"the column `{self.time_column}` holds numbers, not dates in text", hint="set `--dataset.time-unit` to s, ms, us or ns"
            )
        return seconds_of_dates(column), "dates in text"

    def _answers(self, schema: polars.Schema) -> tuple[dict[str, polars.Expr], dict[str, polars.Expr]]:
        """Rating, label and raw rating of each row, and the rules about them."""
        import polars as pl

        nothing = pl.lit(None, pl.Float32)
        if self.click_column is not None:
            said = pl.col(self.click_column).cast(pl.String).str.strip_chars().str.to_lowercase()
            label = pl.when(said.is_in(YES)).then(1).when(said.is_in(NO)).then(0).cast(pl.Int8)
            rule = {"click is neither yes nor no": pl.col("label").is_null()}
            return {"rating": nothing, "label": label, "raw_rating": as_text(self.click_column)}, rule
        assert self.rating_column is not None
        column = pl.col(self.rating_column)
        number = (
            column.cast(pl.Float64) if schema[self.rating_column].is_numeric() else column.str.strip_chars().cast(pl.Float64, strict=False)
        )
        outside = ~pl.col("rating").is_between(self.lowest_rating, self.highest_rating) | pl.col("rating").is_nan()
        rules = {"unreadable rating": pl.col("rating").is_null(), "rating outside the scale": outside}
        label = (number.cast(pl.Float32) > pl.lit(self.like_above, pl.Float32)).cast(pl.Int8)
        return {"rating": number, "label": label, "raw_rating": as_text(self.rating_column)}, rules

    def _items(self, kept: polars.LazyFrame) -> polars.LazyFrame | None:
        import polars as pl

        if self.items_path is not None:
            columns = (self.item_column, self.title_column or "title")
            table = self._table("the table of items", self._files(self.items_path), columns)
            kinds = table.collect_schema()
            return table.select(item_id=canonical_id(columns[0], kinds[columns[0]]), title=pl.col(columns[1]).cast(pl.String)).with_columns(
                title=clean_title("title")
            )
        if self.title_column is None:
            return None
        # An item may be spelled in several ways over the years.
        return kept.with_columns(title=clean_title("title")).group_by("item_id").agg(newest_text("title"))

    def _users(self, kept: polars.LazyFrame) -> polars.LazyFrame | None:
        import polars as pl

        names = self._profile_names()
        if not names:
            return None
        if self.users_path is not None:
            table = self._table("the table of users", self._files(self.users_path), (self.user_column, *names))
            kinds = table.collect_schema()
            users = table.select(
                user_id=canonical_id(self.user_column, kinds[self.user_column]), **{f"profile {name}": as_text(name) for name in names}
            ).filter(pl.col("user_id").is_not_null())
        else:
            users = kept.group_by("user_id").agg(newest_text(f"profile {name}") for name in names)
        clean = users.with_columns(clean_title(f"profile {name}").alias(f"profile {name}") for name in names)
        filled = [
            pl.when(pl.col(f"profile {name}").str.len_bytes() > 0).then(pl.lit(f"{name} ") + pl.col(f"profile {name}")) for name in names
        ]
        words = pl.concat_str(filled, separator=", ", ignore_nulls=True)
        sentence = pl.when(words.str.len_bytes() > 0).then(pl.format("The user: {}.", words))
        return clean.select("user_id", profile=sentence, cohort=pl.lit(None, pl.String))

    def _profile_names(self) -> list[str]:
        return [name.strip() for name in self.profile_columns.split(",") if name.strip()]

    def _hints(self, unit: str) -> dict[str, str]:
        scale = (
            f"the scale is {self.lowest_rating:g} to {self.highest_rating:g}: set `--dataset.lowest-rating` and `--dataset.highest-rating`"
        )
        times = f"times were read as {unit}: set `--dataset.time-unit`, or take these rows out"
        return {
            "missing user": f"fill the column `{self.user_column}`; an id is text or a whole number",
            "missing item": f"fill the column `{self.item_column}`; an id is text or a whole number",
            "unreadable time": times,
            "time outside 1970 to 2100": times,
            "unreadable rating": f"write numbers into the column `{self.rating_column}`",
            "rating outside the scale": scale,
            "click is neither yes nor no": "write 1 or 0, true or false, yes or no",
            "item without a title": "give these items a title, or take their rows out",
            "unknown item": "add the items to the table of items, with a title",
            "unknown user": "add the users to the table of users",
        }
