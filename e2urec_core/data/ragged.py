"""Rows of token ids of many lengths as one array, and how texts become such rows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from numpy import ndarray
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Ragged:
    """Rows of token ids.

    Args:
        flat: int32, all rows one after the other.
        starts: int64, (row + 1,).
    """

    flat: ndarray
    starts: ndarray

    @property
    def lengths(self) -> ndarray:
        """Tokens of each row."""
        return numpy.diff(self.starts)

    def joined(self, rows: ndarray, groups: ndarray) -> Ragged:
        """The rows at `rows` put together: the first `groups[0]` of them become row 0, and so on."""
        lengths = self.lengths[rows]
        ends = lengths.cumsum()
        steps = numpy.arange(int(ends[-1]) if len(ends) else 0) - numpy.repeat(ends - lengths, lengths)
        flat = self.flat[numpy.repeat(self.starts[:-1][rows], lengths) + steps]
        borders = numpy.concatenate([[0], groups.cumsum()])
        return Ragged(flat, numpy.concatenate([[0], ends])[borders])


def encode(tokenizer: Tokenizer, texts: list[str], *, framed: bool) -> Ragged:
    """Token ids of texts; `framed` adds the special tokens of a whole prompt."""
    ids = [row.ids for row in tokenizer.encode_batch_fast(texts, add_special_tokens=framed)]
    starts = numpy.zeros(len(ids) + 1, numpy.int64)
    numpy.cumsum([len(row) for row in ids], out=starts[1:])
    flat = numpy.empty(int(starts[-1]), numpy.int32)
    for row, (start, stop) in zip(ids, itertools.pairwise(starts), strict=True):
        flat[start:stop] = row
    return Ragged(flat, starts)
