"""Says of the rows of stored tables which stay when a request is carried out, and takes the changed ones as it tells them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e2urec_core.data.places import EXAMPLES, GONE

if TYPE_CHECKING:
    from numpy import ndarray

WORDS_AT_A_TIME = 200


class Forgotten:
    """Tells which rows of the tables of stored interactions stay."""

    def __init__(self, users: Collection[str], pairs: Collection[tuple[str, str]]) -> None:
        self._users, self._pairs = sorted(set(users)), sorted(set(pairs))
        self._whole = pa.array(self._users, pa.string())
        self._names = [pa.array(sorted({pair[place] for pair in self._pairs}), pa.string()) for place in range(2)]
        self._keys = self._keyed(*(pa.array([pair[place] for pair in self._pairs], pa.string()) for place in range(2)))

    def left_of(self, table: pa.Table) -> pa.Table:
        """The interactions that stay."""
        gone = pc.is_in(table["user_id"], value_set=self._whole).to_numpy()
        if len(self._keys):
            gone = gone | numpy.isin(self._keyed(table["user_id"], table["item_id"]), self._keys)
        return table.filter(pa.array(~gone))

    def users_left(self, table: pa.Table) -> pa.Table:
        """The users who stay."""
        return table.filter(pc.invert(pc.is_in(table["user_id"], value_set=self._whole)))

    def unmentioned(self, table: pa.Table) -> pa.Table:
        """The quarantined rows that stay."""
        columns = [table[name].cast(pa.string()) for name in table.column_names if name not in ("rule", "line")]
        texts = pc.binary_join_element_wise(*columns, "\n", null_handling="replace", null_replacement="")
        told = _mentioned(texts, self._users)
        suspected = numpy.flatnonzero(_mentioned(texts, self._names[0].to_pylist()))
        some = texts.take(pa.array(suspected))
        for pair in self._pairs if len(suspected) else ():
            told[suspected] |= _mentioned(some, pair[:1]) & _mentioned(some, pair[1:])
        return table.filter(pa.array(~told))

    def _keyed(self, users: pa.Array, items: pa.Array) -> ndarray:
        """One number for each pair of names, (row,); -1 where no pair holds one of them."""
        places = [pc.fill_null(pc.index_in(each, value_set=names), -1) for each, names in zip((users, items), self._names, strict=True)]
        one, other = (each.to_numpy().astype(numpy.int64) for each in places)
        return numpy.where((one < 0) | (other < 0), -1, one * len(self._names[1]) + other)


@dataclass
class Carrying:
    """Carries a request out on tables of examples or of their tokens.

    Args:
        gone: Numbers of the examples that go, ascending.
        anew: Rows that take the place of those with the same number, in the order of their numbers.
        numbers: Their numbers.
        met: How many rows went and how many were told anew so far.
    """

    gone: ndarray
    anew: pa.Table | None
    numbers: ndarray
    met: dict[str, int] = field(default_factory=lambda: {"gone": 0, "anew": 0})

    @classmethod
    def out(cls, request: Path, anew: Path | None) -> Carrying:
        """Of the request in a folder; `anew` is the file with the rows that are told anew, which must be those of the request."""
        gone = numpy.sort(pq.read_table(request / GONE)["example_id"].to_numpy())
        wanted = pq.read_table(request / EXAMPLES, columns=["example_id"]) if (request / EXAMPLES).is_file() else None
        numbers = numpy.sort(wanted["example_id"].to_numpy()) if wanted is not None else gone[:0]
        told = None
        if anew is not None and len(numbers):
            told = pq.read_table(anew).sort_by("example_id").combine_chunks()
        there = told["example_id"].to_numpy() if told is not None else gone[:0]
        assert numpy.array_equal(there, numbers), "the rows that are told anew are not those of the request"
        return cls(gone, told, numbers)

    def on(self, table: pa.Table) -> pa.Table:
        """The rows that stay, as they are told now."""
        goes = _places(self.gone, table["example_id"].to_numpy()) >= 0
        left = table.filter(pa.array(~goes))
        at = _places(self.numbers, left["example_id"].to_numpy())
        changed = numpy.flatnonzero(at >= 0)
        self.met["gone"] += int(goes.sum())
        self.met["anew"] += len(changed)
        if self.anew is None or not len(changed):
            return left
        order = numpy.arange(left.num_rows)
        order[changed] = left.num_rows + numpy.arange(len(changed))
        both = pa.concat_tables([left, self.anew.take(pa.array(at[changed]))])
        return both.combine_chunks().take(pa.array(order))

    def check_all_were_there(self) -> None:
        """Make sure that the request was about these rows."""
        assert self.met == {"gone": len(self.gone), "anew": len(self.numbers)}, "the request is about other examples"


def _mentioned(texts: pa.ChunkedArray, words: Collection[str]) -> ndarray:
    """Whether one of the words stands in each text as a whole word, (row,)."""
    found, listed = numpy.zeros(len(texts), bool), list(words)
    for start in range(0, len(listed), WORDS_AT_A_TIME):
        either = "|".join(re.escape(word) for word in listed[start : start + WORDS_AT_A_TIME])
        found |= pc.match_substring_regex(texts, rf"(?:^|[^\pL\pN_])(?:{either})(?:$|[^\pL\pN_])").to_numpy()
    return found


def _places(ascending: ndarray, numbers: ndarray) -> ndarray:
    """Of each of the numbers its place among those that stand in ascending order; -1 where it is not among them."""
    if not len(ascending):
        return numpy.full(len(numbers), -1)
    at = numpy.minimum(numpy.searchsorted(ascending, numbers), len(ascending) - 1)
    return numpy.where(ascending[at] == numbers, at, -1)
