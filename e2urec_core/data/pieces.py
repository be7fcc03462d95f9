"""Tokenises prompts by their pieces: every distinct item, profile and stretch of words is tokenised once, and prompts are put together.

A tokenizer that first splits at spaces gives a text the tokens of its words, one after the other, so the tokens of a prompt are those
of its pieces. Not every tokenizer keeps to that. So rows of every batch are also tokenised whole and compared, and with the first
difference the caller is told to tokenise whole texts instead.

Cost: one tokenizer call for each distinct (item, rating) that histories show, in the place of one for each prompt; the rest is
whole-column arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa

from e2urec_core.data.prompts import CANDIDATE, HISTORY, NOTHING, PROFILE, Catalogue, Part, PromptRule, events, parts_of, shown
from e2urec_core.data.ragged import Ragged, encode

if TYPE_CHECKING:
    from numpy import ndarray
    from tokenizers import Tokenizer

MOST_RATINGS = 256
"""Distinct ratings above which pieces no longer pay."""


class _Bank:
    """Pieces by key, tokenised when they are first asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._place: dict[str, int] = {}
        self._chunks: list[ndarray] = []
        self._lengths: list[int] = []

    def add(self, texts: list[str]) -> ndarray:
        """Places of these pieces."""
        new = [text for text in dict.fromkeys(texts) if text not in self._place]
        if new:
            made = encode(self._tokenizer, new, framed=False)
            self._place.update((text, len(self._lengths) + number) for number, text in enumerate(new))
            self._lengths += made.lengths.tolist()
            self._chunks.append(made.flat)
        return numpy.array([self._place[text] for text in texts], numpy.int64)

    def add_ids(self, rows: list[ndarray]) -> ndarray:
        """Places of pieces that are given as token ids."""
        first = len(self._lengths)
        self._lengths += [len(row) for row in rows]
        self._chunks += rows
        return numpy.arange(first, first + len(rows))

    def ragged(self) -> Ragged:
        """All pieces so far."""
        if len(self._chunks) > 1:
            self._chunks = [numpy.concatenate(self._chunks)]
        flat = self._chunks[0] if self._chunks else numpy.empty(0, numpy.int32)
        return Ragged(flat, numpy.concatenate([[0], numpy.cumsum(self._lengths)]).astype(numpy.int64))


class PieceTokenizer:
    """Tokenises examples by their pieces.

    Args:
        tokenizer: Without truncation.
        catalogue: Titles and profiles.
        rule: The wording.
    """

    def __init__(self, tokenizer: Tokenizer, catalogue: Catalogue, rule: PromptRule) -> None:
        self._tokenizer, self._catalogue, self._wording = tokenizer, catalogue, rule.wording()
        self._parts = parts_of(self._wording.text)
        self._bank = _Bank(tokenizer)
        self._known: dict[str, ndarray] = {}
        self._ratings: dict[float | str, int] = {}
        frame = tokenizer.encode("a").ids
        bare = tokenizer.encode("a", add_special_tokens=False).ids
        at = next((place for place in range(len(frame)) if frame[place : place + len(bare)] == bare), 0)
        self._frame = [numpy.array(frame[:at], numpy.int32), numpy.array(frame[at + len(bare) :], numpy.int32)]

    @staticmethod
    def can(rule: PromptRule) -> bool:
        """Whether the wording lets its history be cut anywhere: it stands between spaces and is not the first thing said."""
        parts = parts_of(rule.wording().text)
        at = next(place for place, part in enumerate(parts) if part.field == HISTORY)
        return not parts[at].before and any(part.field != PROFILE for part in parts[:at])

    @property
    def pays(self) -> bool:
        """Whether ratings repeat."""
        return len(self._ratings) < MOST_RATINGS

    def encode(self, batch: pa.RecordBatch, limit: int | None) -> tuple[Ragged, ndarray]:
        """Token ids of the prompts of `batch`, framed, and how many of the oldest items were left out of each history to keep to `limit`.

        A row that is too long without any history keeps its length.
        """
        items, ratings, counts = shown(batch)
        columns: list[ndarray] = []
        opens = numpy.ones(batch.num_rows, bool)
        for part in self._parts:
            if part.field == HISTORY:
                history, empty = self._history(items, ratings, counts, part.after)
                columns.append(empty)
                at = len(columns) - 1
                continue
            place, there = self._one(part, batch, opens)
            columns.append(place)
            opens &= ~there
        frame = self._frame_places()
        return _put_together(self._bank.ragged(), columns, at, history, counts, frame, limit)

    def _one(self, part: Part, batch: pa.RecordBatch, opens: ndarray) -> tuple[ndarray, ndarray]:
        """Place of the piece of each row, -1 where there is none, and where there is one."""
        if part.field == PROFILE:
            keys, told = self._catalogue.profiles_of(batch["user_id"]), self._catalogue.profiles
        elif part.field == CANDIDATE:
            keys, told = batch["item"].to_numpy().astype(numpy.int64), self._catalogue.titles
        else:
            keys, told = numpy.zeros(batch.num_rows, numpy.int64), pa.array([""])
        places = numpy.full(batch.num_rows, -1)
        for lead, opening in (("", True), (" ", False)):
            chosen = (opens == opening) & (keys >= 0)
            if not chosen.any():
                continue

            def texts(wanted: ndarray, lead: str = lead) -> list[str]:
                return [f"{lead}{part.before}{text}{part.after}" for text in told.take(pa.array(wanted)).to_pylist()]

            places[chosen] = self._look_up(f"{part.field}/{part.before}/{lead}", keys[chosen], len(told), texts)
        return places, keys >= 0

    def _history(self, items: ndarray, ratings: ndarray, counts: ndarray, after: str) -> tuple[ndarray, ndarray]:
        """Places of the pieces of all histories, and the place of what stands for an empty one, (row,)."""
        is_last = numpy.zeros(len(items), bool)
        is_last[counts.cumsum()[counts > 0] - 1] = True
        codes = self._rating_codes(ratings)
        names = numpy.array([numpy.nan if value == "missing" else value for value in self._ratings], numpy.float32)
        keys = items.astype(numpy.int64) * MOST_RATINGS + codes
        places = numpy.empty(len(items), numpy.int64)
        for stop, chosen in ((",", ~is_last), (after, is_last)):

            def texts(wanted: ndarray, stop: str = stop) -> list[str]:
                told = events(wanted // MOST_RATINGS, names[wanted % MOST_RATINGS], self._catalogue, self._wording.event)
                return [f" {text}{stop}" for text in told.to_pylist()]

            if chosen.any():
                places[chosen] = self._look_up(f"history/{stop}", keys[chosen], len(self._catalogue.titles) * MOST_RATINGS, texts)
        return places, numpy.full(len(counts), self._bank.add([f" {NOTHING}{after}"])[0])

    def _rating_codes(self, ratings: ndarray) -> ndarray:
        """A small number for each rating; a missing one is a rating like any other."""
        values, places = numpy.unique(ratings, return_inverse=True, equal_nan=True)
        names = ["missing" if math.isnan(value) else value for value in values.tolist()]
        for name in names:
            self._ratings.setdefault(name, len(self._ratings))
        codes = [self._ratings[name] for name in names]
        return numpy.minimum(numpy.array(codes, numpy.int64), MOST_RATINGS - 1)[places] if codes else numpy.empty(0, numpy.int64)

    def _look_up(self, name: str, keys: ndarray, space: int, texts: Callable[[ndarray], list[str]]) -> ndarray:
        """Places of the pieces with these keys (below `space`); new ones are worded by `texts` and tokenised."""
        known = self._known.setdefault(name, numpy.full(space, -1, numpy.int32))
        places = known[keys]
        if (places < 0).any():
            wanted = numpy.unique(keys[places < 0])
            known[wanted] = self._bank.add(texts(wanted))
            places = known[keys]
        return places.astype(numpy.int64)

    def _frame_places(self) -> ndarray:
        """Places of the special tokens before and after a prompt, which have no text of their own."""
        if "frame" not in self._known:
            self._known["frame"] = self._bank.add_ids(self._frame)
        return self._known["frame"]


def _put_together(
    bank: Ragged, columns: list[ndarray], at: int, history: ndarray, counts: ndarray, frame: ndarray, limit: int | None
) -> tuple[Ragged, ndarray]:
    """Prompts out of pieces.

    Args:
        bank: All pieces.
        columns: For each part of the wording the place of each row's piece, -1 for none; at `at` what stands for an empty history.
        at: Which column is the history's.
        history: Places of the pieces of all histories, one after the other.
        counts: Pieces of each row's history, (row,).
        frame: Places of the special tokens before and after a prompt.
        limit: Most tokens; None for no limit.
    """
    num_rows, lengths = len(counts), bank.lengths
    left_out = numpy.zeros(num_rows, numpy.int64)
    if limit is not None:
        fixed = numpy.full(num_rows, lengths[frame].sum())
        for number, column in enumerate(columns):
            if number != at:
                fixed += numpy.where(column >= 0, lengths[column], 0)
        # Tokens of each piece and of all that come after it in its history.
        own, upto = numpy.repeat(numpy.arange(num_rows), counts), numpy.concatenate([[0], lengths[history].cumsum()])
        kept = upto[counts.cumsum()][own] - upto[:-1] <= (limit - fixed)[own]
        left_out = counts - numpy.bincount(own[kept], minlength=num_rows)
        history, counts = history[kept], counts - left_out
    sizes = [numpy.maximum(counts, 1) if number == at else (column >= 0).astype(numpy.int64) for number, column in enumerate(columns)]
    groups = 2 + numpy.sum(sizes, axis=0)
    rows, place = numpy.empty(int(groups.sum()), numpy.int64), groups.cumsum() - groups
    rows[place] = frame[0]
    place = place + 1
    for number, (column, size) in enumerate(zip(columns, sizes, strict=True)):
        if number == at:
            steps = numpy.arange(len(history)) - numpy.repeat(counts.cumsum() - counts, counts)
            rows[numpy.repeat(place, counts) + steps] = history
            rows[place[counts == 0]] = column[counts == 0]
        else:
            rows[place[size > 0]] = column[size > 0]
        place = place + size
    rows[place] = frame[1]
    return bank.joined(rows, groups), left_out
