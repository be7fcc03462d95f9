"""Turns examples into token ids: by their pieces where that gives what whole texts give, otherwise text by text.

Text is materialised here and nowhere else: one batch of whole prompts at a time on the slow way, and on the quick way the distinct
pieces and the few whole prompts of each batch that both ways are compared on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa

from e2urec_core.data.pieces import PieceTokenizer
from e2urec_core.data.prompts import Catalogue, PromptRule, shown, texts
from e2urec_core.data.ragged import Ragged, encode
from e2urec_core.errors import BadInput

if TYPE_CHECKING:
    from numpy import ndarray
    from tokenizers import Tokenizer

COMPARED = 16
"""Rows of each batch that are tokenised both ways, spread over it; the longest one is among them."""


@dataclass(frozen=True)
class Encoded:
    """What tokenising gave, in numbers.

    Args:
        rows: Prompts.
        tokens: Tokens of all prompts.
        shortened: Prompts that lost a part of their history to the limit.
        items_left_out: Items of histories that they lost.
    """

    rows: int = 0
    tokens: int = 0
    shortened: int = 0
    items_left_out: int = 0

    def plus(self, made: Ragged, left_out: ndarray) -> Encoded:
        """With one more batch."""
        return Encoded(
            self.rows + len(made.lengths),
            self.tokens + len(made.flat),
            self.shortened + int((left_out > 0).sum()),
            self.items_left_out + int(left_out.sum()),
        )


class PromptEncoder:
    """Tokenises batches of examples.

    Args:
        tokenizer: Its truncation, if any, is the limit; it is not changed.
        catalogue: Titles and profiles.
        rule: The wording.
        by_pieces: False tokenises whole texts throughout.
    """

    def __init__(self, tokenizer: Tokenizer, catalogue: Catalogue, rule: PromptRule, *, by_pieces: bool = True) -> None:
        from tokenizers import Tokenizer

        self._catalogue, self._rule = catalogue, rule
        self.limit: int | None = tokenizer.truncation["max_length"] if tokenizer.truncation else None
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._pieces = PieceTokenizer(self._tokenizer, catalogue, rule) if by_pieces and PieceTokenizer.can(rule) else None

    @property
    def is_quick(self) -> bool:
        """Whether pieces still give what whole texts give."""
        return self._pieces is not None

    def encode(self, batch: pa.RecordBatch) -> tuple[Ragged, ndarray]:
        """Token ids of each prompt, and how many of the oldest items its history lost to the limit, (row,).

        Raises:
            BadInput: A prompt is too long without any history.
        """
        made = self._by_pieces(batch) if self._pieces is not None else None
        if made is None:
            self._pieces = None
            made = self._whole(batch)
        ids, left_out = made
        if self.limit is not None and (ids.lengths > self.limit).any():
            raise BadInput(
                f"{int((ids.lengths > self.limit).sum()):,} of {batch.num_rows:,} prompts have more than {self.limit} tokens without any "
                f"history; the longest has {int(ids.lengths.max()):,}",
                hint="raise `--backbone.max-tokens`, or lower `--prompt.longest-title`",
            )
        return ids, left_out

    def _by_pieces(self, batch: pa.RecordBatch) -> tuple[Ragged, ndarray] | None:
        """Both, or None where some prompt tokenised whole gives other tokens."""
        assert self._pieces is not None
        made, left_out = self._pieces.encode(batch, self.limit)
        if not self._pieces.pays:
            return None
        chosen = numpy.unique(numpy.append(numpy.linspace(0, batch.num_rows - 1, COMPARED).astype(int), made.lengths.argmax()))
        some = batch.take(pa.array(chosen))
        whole = encode(self._tokenizer, texts(some, self._catalogue, self._rule, left_out[chosen]).to_pylist(), framed=True)
        same = made.joined(chosen, numpy.ones(len(chosen), numpy.int64))
        return (made, left_out) if numpy.array_equal(same.flat, whole.flat) and numpy.array_equal(same.starts, whole.starts) else None

    def _whole(self, batch: pa.RecordBatch) -> tuple[Ragged, ndarray]:
        left_out = numpy.zeros(batch.num_rows, numpy.int64)
        made = self._texts(batch, left_out)
        if self.limit is None or not (made.lengths > self.limit).any():
            return made, left_out
        long = numpy.flatnonzero(made.lengths > self.limit)
        some = batch.take(pa.array(long))
        _, _, most = shown(some)
        # Halving the range: the fewest items left out with which a prompt fits.
        low, high = numpy.zeros(len(long), numpy.int64), most
        while (low < high).any():
            middle = (low + high) // 2
            fits = self._texts(some, middle).lengths <= self.limit
            low, high = numpy.where(fits, low, numpy.minimum(middle + 1, high)), numpy.where(fits, middle, high)
        left_out[long] = high
        return self._texts(batch, left_out), left_out

    def _texts(self, batch: pa.RecordBatch, left_out: ndarray) -> Ragged:
        return encode(self._tokenizer, texts(batch, self._catalogue, self._rule, left_out).to_pylist(), framed=True)
