"""Counts the words of prompts: of the whole prompt, and of its last tokens, which ask about one item.

Which words are counted is learned from some rows: the commonest ones, but for those that stand in nearly every prompt.
"""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from e2urec_core.data.batches import Prompts

# A word of the template stands in nearly every prompt; a word of fewer rows than this tells nothing about others.
COMMONEST, RAREST = 0.98, 5


class Bags:
    """The words that are counted, learned from `rows`."""

    def __init__(self, rows: Prompts, num_tokens: int, num_words: int, question_tokens: int) -> None:
        """Choose the words.

        Args:
            rows: Prompts to learn from.
            num_tokens: Entries of the tokenizer.
            num_words: Most words that are counted, of the prompts and of the questions each.
            question_tokens: Tokens at the end of a prompt that are its question.
        """
        self._num_tokens, self._question_tokens = num_tokens, question_tokens
        self._places = [self._chosen(of, tokens, len(rows), num_words) for of, tokens in self._told(rows)]

    def of(self, rows: Prompts) -> list[Tensor]:
        """Counts of the words of the prompts and of their questions, (row, word) each, 32-bit floats."""
        counted = []
        for places, (of, tokens) in zip(self._places, self._told(rows), strict=True):
            width, columns = int(places.max()) + 1, places[tokens]
            counts = numpy.bincount(of[columns >= 0] * width + columns[columns >= 0], minlength=len(rows) * width)
            counted.append(torch.from_numpy(counts.reshape(len(rows), width).astype(numpy.float32)))
        return counted

    def _told(self, rows: Prompts) -> list[tuple[numpy.ndarray, numpy.ndarray]]:
        """The row and the token of every word of the prompts, and of their questions."""
        lengths = rows.lengths
        of = numpy.repeat(numpy.arange(len(rows)), lengths)
        to_the_end = numpy.repeat(rows.starts[1:], lengths) - numpy.arange(len(rows.flat))
        asked = to_the_end <= self._question_tokens
        return [(of, rows.flat), (of[asked], rows.flat[asked])]

    def _chosen(self, of: numpy.ndarray, tokens: numpy.ndarray, num_rows: int, num_words: int) -> numpy.ndarray:
        """The column of every token, -1 for those that are not counted, (token,)."""
        in_rows = numpy.bincount(numpy.unique(of * self._num_tokens + tokens) % self._num_tokens, minlength=self._num_tokens)
        in_rows[in_rows > COMMONEST * num_rows] = 0
        commonest = numpy.argsort(-in_rows, kind="stable")[:num_words]
        words = commonest[in_rows[commonest] >= min(RAREST, num_rows)]
        places = numpy.full(self._num_tokens, -1)
        places[words] = numpy.arange(len(words))
        return places
