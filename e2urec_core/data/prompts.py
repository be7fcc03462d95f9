"""Writes an example as text: who the user is, what they met and how they liked it, and the item in question.

A template is a text with named fields. It is cut into pieces at its spaces, so that a tokenizer that splits at spaces can be asked
about each distinct piece once (`pieces.py`), in the place of every prompt anew.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from e2urec_core.data.places import EXAMPLES, ITEMS, USERS
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    from numpy import ndarray

COLUMNS = ["example_id", "user_id", "item", "split", "label", "history", "history_ratings"]
ROWS_AT_A_TIME = 8192
PROFILE, HISTORY, CANDIDATE = "profile", "history", "candidate"
FIELDS = (PROFILE, HISTORY, CANDIDATE)
NOTHING = "nothing"
"""What a history without items says."""


class Wording(NamedTuple):
    """How a prompt is put: the whole, and one item of the history."""

    text: str
    event: str


WORDINGS = {
    "reference": Wording(
        "{profile} Watched so far, oldest first: {history}. Will the user like {candidate}? Answer Yes or No:", "{title} ({rating}*)"
    ),
    "paper": Wording("The user watched, oldest first: {history}. Will the user like {candidate}?", "{title}"),
    "book": Wording(
        "{profile} Read so far, oldest first: {history}. Will the user like the book {candidate}? Answer Yes or No:",
        "{title} ({rating}*)",
    ),
}


class PromptRule(Settings):
    """How an example becomes text."""

    template: Literal["reference", "paper", "book"] = "reference"
    """`reference`: profile, titles with stars, candidate; `paper`: titles alone; `book`: as the reference, of books."""
    text: str | None = None
    """Own wording with the fields {profile}, {history} and {candidate}; replaces the template's."""
    event: str | None = None
    """Own wording of one item of the history, with {title} and, if wanted, {rating}; replaces the template's."""
    longest_title: int = Field(120, ge=8, le=10_000)
    """Most letters of a title; longer ones end in three points."""

    @model_validator(mode="after")
    def _names_its_fields(self) -> PromptRule:
        _refuse_fields("text", self.text, needed=(HISTORY, CANDIDATE), allowed=FIELDS)
        if self.text is not None:
            parts_of(self.text)
        _refuse_fields("event", self.event, needed=("title",), allowed=("title", "rating"))
        return self

    def wording(self) -> Wording:
        """The wording that is used."""
        shipped = WORDINGS[self.template]
        return Wording(self.text or shipped.text, self.event or shipped.event)


def _refuse_fields(name: str, text: str | None, *, needed: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    if text is None:
        return
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{name} is no template: {error}") from None
    fields = [field for _, field, _, _ in parsed if field is not None]
    if any(spec or conversion for _, _, spec, conversion in parsed) or not set(fields) <= set(allowed):
        raise ValueError(f"{name} may hold the fields {', '.join(f'{{{field}}}' for field in allowed)} and nothing else in braces")
    for field in allowed:
        if fields.count(field) > 1 or (field in needed and field not in fields):
            raise ValueError(
                f"{name} must hold {{{field}}} {'once' if field in needed else 'at most once'}, not {fields.count(field)} times"
            )


@dataclass(frozen=True)
class Part:
    """A stretch of a template: a field with what stands right before and after it, or words of the template.

    Args:
        field: Name of the field; the empty text for words.
        before: Text up to the field that no space divides from it; of words the words.
        after: Text after the field that no space divides from it.
    """

    field: str
    before: str
    after: str = ""


def parts_of(text: str) -> list[Part]:
    """A template as fields and words, each of which stands between spaces.

    >>> parts_of("{profile} So far: ({history}). Is {candidate} liked?")[1:3]
    [Part(field='', before='So far:', after=''), Part(field='history', before='(', after=').')]
    """
    marked = "".join(literal + (f"\0{field}\0" if field is not None else "") for literal, field, _, _ in string.Formatter().parse(text))
    parts: list[Part] = []
    words: list[str] = []
    for word in marked.split():
        pieces = word.split("\0")
        if len(pieces) == 1:
            words.append(word)
            continue
        if len(pieces) > 3:
            raise ValueError(f"the fields {pieces[1]} and {pieces[3]} touch each other; write a space between them")
        if words:
            parts.append(Part("", " ".join(words)))
            words = []
        parts.append(Part(pieces[1], pieces[0], pieces[2]))
    return [*parts, Part("", " ".join(words))] if words else parts


class Catalogue:
    """Titles and profiles, as prompts say them.

    Args:
        interactions: Folder of stored interactions.
        rule: How titles are cut.
    """

    def __init__(self, interactions: Path, rule: PromptRule) -> None:
        titles = pq.read_table(interactions / ITEMS, columns=["title"])["title"].combine_chunks().cast(pa.string())
        long = pc.greater(pc.utf8_length(titles), rule.longest_title)
        cut = pc.binary_join_element_wise(pc.utf8_slice_codeunits(titles, 0, rule.longest_title - 3), "...", "")
        self.titles: pa.Array = pc.if_else(long, cut, titles)
        users = pq.read_table(interactions / USERS, columns=["user_id", "profile"])
        self._users = users["user_id"].combine_chunks().cast(pa.string())
        told = users["profile"].combine_chunks().cast(pa.string()).dictionary_encode()
        self.profiles: pa.Array = told.dictionary
        self._profile_of: ndarray = pc.fill_null(told.indices, -1).to_numpy(zero_copy_only=False)

    def profiles_of(self, user_ids: pa.Array) -> ndarray:
        """Of each user the place of their profile in `profiles`, or -1."""
        if not len(self.profiles):
            return numpy.full(len(user_ids), -1)
        places = pc.index_in(user_ids.cast(pa.string()), value_set=self._users)
        assert places.null_count == 0, "an example names a user whom the table of users does not list"
        return self._profile_of[places.to_numpy()]


def texts(batch: pa.RecordBatch | pa.Table, catalogue: Catalogue, rule: PromptRule, left_out: ndarray | None = None) -> pa.Array:
    """The prompts of some examples.

    Args:
        batch: Columns user_id, item, history and history_ratings of examples.
        catalogue: Titles and profiles.
        rule: The wording.
        left_out: How many of the oldest items of each history are not shown, (row,).
    """
    wording = rule.wording()
    values = {
        HISTORY: _histories(batch, catalogue, wording.event, left_out),
        CANDIDATE: catalogue.titles.take(_whole(batch["item"])),
    }
    there: dict[str, pa.Array | bool] = {HISTORY: True, CANDIDATE: True}
    parts = parts_of(wording.text)
    if any(part.field == PROFILE for part in parts):
        places = catalogue.profiles_of(_whole(batch["user_id"]))
        known = pa.array(places >= 0)
        chosen = pc.if_else(known, pa.array(places), None)
        values[PROFILE] = catalogue.profiles.take(chosen) if len(catalogue.profiles) else pa.nulls(len(places), pa.string())
        there[PROFILE] = known
    pieces = []
    for part in parts:
        if not part.field:
            pieces.append(pa.array([part.before]).take(pa.array(numpy.zeros(len(batch["item"]), numpy.int32))))
        else:
            pieces.append(pc.binary_join_element_wise(part.before, values[part.field], part.after, ""))
    return pc.binary_join_element_wise(*pieces, " ", null_handling="skip")


def _histories(batch: pa.RecordBatch | pa.Table, catalogue: Catalogue, event: str, left_out: ndarray | None) -> pa.Array:
    items, ratings, counts = shown(batch, left_out)
    told = events(items, ratings, catalogue, event)
    offsets = pa.array(numpy.concatenate([[0], counts.cumsum()]).astype(numpy.int32))
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, told), ", ")
    return pc.if_else(pa.array(counts == 0), NOTHING, joined)


def shown(batch: pa.RecordBatch | pa.Table, left_out: ndarray | None = None) -> tuple[ndarray, ndarray, ndarray]:
    """The items that histories show, one history after the other, their ratings (NaN where missing), and how many each row has."""
    history, ratings = _whole(batch["history"]), _whole(batch["history_ratings"])
    counts = pc.list_value_length(history).to_numpy(zero_copy_only=False).astype(numpy.int64)
    items = history.flatten().to_numpy()
    stars = pc.fill_null(ratings.flatten(), float("nan")).to_numpy(zero_copy_only=False)
    if left_out is not None and left_out.any():
        starts = counts.cumsum() - counts
        rank = numpy.arange(len(items)) - numpy.repeat(starts, counts)
        kept = rank >= numpy.repeat(left_out, counts)
        items, stars, counts = items[kept], stars[kept], counts - left_out
    return items, stars, counts


def events(items: ndarray, ratings: ndarray, catalogue: Catalogue, event: str) -> pa.Array:
    """One item of a history each, in words; where the rating is missing the title alone."""
    titles = catalogue.titles.take(pa.array(items))
    if "{rating}" not in event:
        start, end = event.split("{title}")
        return pc.binary_join_element_wise(start, titles, end, "") if start or end else titles
    told = event.replace("{title}", "\0title\0").replace("{rating}", "\0rating\0").split("\0")
    values = {"title": titles, "rating": rating_texts(ratings)}
    whole = pc.binary_join_element_wise(*(values.get(piece, piece) for piece in told), "")
    missing = numpy.isnan(ratings)
    return pc.if_else(pa.array(missing), titles, whole) if missing.any() else whole


def rating_texts(ratings: ndarray) -> pa.Array:
    """Ratings as people write them: 4, 3.5; one digit after the point at most."""
    # Adding nothing takes the sign off a zero: which of both zeros stands for equal ones would hang on the other rows.
    values, places = numpy.unique(numpy.nan_to_num(ratings, nan=0.0) + 0.0, return_inverse=True)
    return pa.array([f"{float(value):.1f}".removesuffix(".0") for value in values], pa.string()).take(pa.array(places))


def rendered(examples: Path, interactions: Path, rule: PromptRule) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """The examples in time order, some thousand at a time, each with its prompt; this is the only place where whole texts are in memory.

    Args:
        examples: Folder of an Examples artifact.
        interactions: Folder of the interactions that it was made of.
        rule: The wording.
    """
    catalogue = Catalogue(interactions, rule)
    for batch in pq.ParquetFile(examples / EXAMPLES).iter_batches(ROWS_AT_A_TIME, columns=COLUMNS):
        yield batch, texts(batch, catalogue, rule)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
