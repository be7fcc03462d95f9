"""Who was deleted, and when: what the gate must not let in again.

An upstream file may carry a deleted user's rows for months. Rows up to the moment of deletion are dropped whenever they come; rows
after it belong to somebody new, who shares nothing with the deleted user but the id: `anna` deleted once comes back as `anna#2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import digest_of
from e2urec_core.data.files import find
from e2urec_core.data.moments import NEWEST_S, seconds_of_dates, seconds_of_numbers
from e2urec_core.data.unreadable import reading
from e2urec_core.datasets.base import canonical_id
from e2urec_core.errors import BadInput

if TYPE_CHECKING:
    import polars

USER, MOMENT = "user_id", "deleted_at"


@dataclass(frozen=True)
class Deletions:
    """Deleted users.

    Args:
        moments: Of each user the moments of deletion, seconds since 1970, UTC, ascending.
    """

    moments: Mapping[str, tuple[int, ...]]

    def __bool__(self) -> bool:
        return bool(self.moments)

    @property
    def digest(self) -> str:
        """Digest of the whole list; the empty text of an empty one."""
        return digest_of({user: list(moments) for user, moments in sorted(self.moments.items())}) if self.moments else ""

    @classmethod
    def read(cls, path: Path | None, spelled: Callable[[polars.Expr], polars.Expr] = lambda user: user) -> Deletions:
        """The list in a CSV, NDJSON or Parquet file with columns user_id and deleted_at (seconds since 1970 or a date in text, UTC).

        Args:
            path: The file; None gives an empty list.
            spelled: How the source spells a user's id: `Dataset.spelled`.

        Raises:
            BadInput: The file is not there, lacks a column, or a row of it cannot be read: a deletion is never passed over.
        """
        if path is None:
            return cls({})
        import polars as pl

        with reading(str(path)):
            rows = find(str(path)).scan().collect()
        missing = [name for name in (USER, MOMENT) if name not in rows.columns]
        if missing:
            raise BadInput(f"`{path.name}` lacks {len(missing)} of 2 columns: {', '.join(missing)}", hint="it needs user_id and deleted_at")
        text = pl.col(MOMENT).cast(pl.String)
        if rows.schema[MOMENT].is_temporal():
            moment = pl.col(MOMENT).cast(pl.Datetime("us")).dt.timestamp("us").floordiv(10**6)
        else:
            moment = pl.coalesce(seconds_of_numbers(text, pl.String(), "s"), seconds_of_dates(text))
        told = rows.select(spelled(canonical_id(USER, rows.schema[USER])).alias(USER), moment.alias(MOMENT))
        bad = told.filter(pl.col(USER).is_null() | ~pl.col(MOMENT).is_between(0, NEWEST_S).fill_null(value=False))
        if bad.height:
            raise BadInput(
                f"{bad.height:,} of {told.height:,} rows of `{path.name}` have no user or no moment between 1970 and 2100",
                hint="write user_id, and deleted_at in seconds since 1970 or as a date such as 2026-01-31T12:00:00Z",
            )
        grouped = told.unique().group_by(USER).agg(pl.col(MOMENT).sort())
        return cls({user: tuple(moments) for user, moments in grouped.iter_rows()})

    def of(self, users: Sequence[str]) -> dict[int, tuple[int, int, str]]:
        """For the places of `users` who were deleted: the last moment, how often, and the name of whoever comes after."""
        found = {place: (user, self.moments[user]) for place, user in enumerate(users) if user in self.moments}
        return {place: (moments[-1], len(moments), successor(user, len(moments))) for place, (user, moments) in found.items()}

    def lives(self, user: str) -> tuple[str, ...]:
        """All names that rows of the person whom a source or stored rows call `user` may bear: the id, and those of who comes back."""
        first, number = parted(user)
        if first not in self.moments or number > len(self.moments[first]) + 1:
            first = user
        return (first, *(successor(first, number) for number in range(1, len(self.moments.get(first, ())) + 1)))

    def frame(self) -> polars.DataFrame:
        """Of everybody who was deleted and of those who came back: user_id, deleted_at_s (the last moment), name.

        `name` is that of whoever comes after the last deletion, whose own row is there, too: their stored rows may be older than a
        moment that was told later.
        """
        import polars as pl

        rows = [(life, moments[-1], successor(user, len(moments))) for user, moments in self.moments.items() for life in self.lives(user)]
        return pl.DataFrame(rows, schema={"user_id": pl.String, "deleted_at_s": pl.Int64, "name": pl.String}, orient="row")

    def refuse_names_in_use(self, users: Iterable[str]) -> None:
        """Refuse a source some of whose users bear names of users who come back.

        Raises:
            BadInput: There are such users.
        """
        reserved = {successor(user, number) for user, moments in self.moments.items() for number in range(1, len(moments) + 1)}
        taken = reserved.intersection(users) if reserved else ()
        if taken:
            raise BadInput(
                f"{len(taken):,} users of the source bear names that users who come back after deletion are given",
                hint="rename these users; names that end in `#` and a number are kept for users who come back",
            )

    def renamed(self, users: polars.DataFrame) -> polars.DataFrame:
        """A table of users in which whoever was deleted bears the successor's name."""
        import polars as pl

        names = {user: successor(user, len(moments)) for user, moments in self.moments.items()}
        return users.with_columns(pl.col("user_id").replace(names)) if names else users

    def without(self, users: polars.DataFrame) -> polars.DataFrame:
        """A table of users without those who were deleted; whoever came back after the last deletion stays."""
        import polars as pl

        return users.join(self.frame().filter(pl.col("user_id") != pl.col("name")), on="user_id", how="anti") if self.moments else users


def parted(name: str) -> tuple[str, int]:
    """A name as `successor` gives it, taken apart: the id, and which life of it this is; any other name is its own first life.

    >>> parted("anna#2"), parted("anna"), parted("anna#1")
    (('anna', 2), ('anna', 1), ('anna#1', 1))
    """
    first, _, number = name.rpartition("#")
    return (first, int(number)) if first and number.isascii() and number.isdigit() and int(number) > 1 else (name, 1)


def successor(user: str, num_deletions: int) -> str:
    """Name of whoever comes back under a user's id after so many deletions."""
    return f"{user}#{num_deletions + 1}"
