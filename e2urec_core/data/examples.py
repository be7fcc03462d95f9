"""Turns stored interactions into examples: which item is asked about, what came before it, what the answer was, and what the row is for.

A history is kept as places in the table of items, not as text: ten numbers a row in the place of some 300 letters. The prompt is
written where it is tokenised (`prompts.rendered`), some thousand rows at a time. Users and items are numbers throughout, so that the
rows of 25 million ratings fit into little memory, and every step is a whole-column operation.

The history of a row is what the user met before it, in time order. Interactions of one second are ordered by item id: many sources
stamp a whole session with one second, so without a rule "the last ten" would depend on the order of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from data_contracts.examples import EXAMPLES as CONTRACT
from e2urec_core.data.places import EXAMPLES, FACTS, ITEMS, USERS, part_files
from e2urec_core.data.split import SPLITS, TEST, VALIDATION, SplitRule, split_by_time
from e2urec_core.errors import BadInput
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    from numpy import ndarray

ROWS_AT_A_TIME = 250_000


class HistoryRule(Settings):
    """What of a user's past a row shows."""

    length: int = Field(10, ge=1, le=200)
    """Latest earlier interactions shown. Reference: K = 10."""
    at_least: int = Field(5, ge=1, le=200)
    """Earlier interactions a row must have to become an example. Reference: 5."""


@dataclass(frozen=True)
class Events:
    """Interactions as columns, in the order of time, then user, then item.

    Args:
        ids: int64, (row,).
        users: Places in `user_ids`, uint32, (row,).
        items: Places in `item_ids`, uint32, (row,).
        times: Seconds since 1970, UTC, int64, (row,).
        ratings: float32, NaN where there is none, (row,).
        labels: int8, (row,).
        user_ids: Names, sorted.
        cohorts: A name or None for each user.
        item_ids: Names, sorted.
    """

    ids: ndarray
    users: ndarray
    items: ndarray
    times: ndarray
    ratings: ndarray
    labels: ndarray
    user_ids: pa.Array
    cohorts: pa.Array
    item_ids: pa.Array


@dataclass(frozen=True)
class Histories:
    """Where each row's history lies.

    Args:
        by_user: Rows in the order of user, then time: places of `Events`, int64, (row,).
        place: Of each row its place in `by_user`, int64, (row,).
        num_earlier: Of each row how many rows of its user come before it, int64, (row,).
    """

    by_user: ndarray
    place: ndarray
    num_earlier: ndarray

    def before(self, rows: ndarray, length: int) -> tuple[ndarray, ndarray]:
        """The latest `length` earlier rows of each of `rows`, oldest first.

        Returns:
            How many there are for each, (row,), and their places in `Events`, one history after the other.
        """
        counts = numpy.minimum(self.num_earlier[rows], length)
        ends = counts.cumsum()
        steps = numpy.arange(int(ends[-1]) if len(ends) else 0) - numpy.repeat(ends - counts, counts)
        return counts, self.by_user[numpy.repeat(self.place[rows] - counts, counts) + steps]


def write_examples(interactions: Path, history: HistoryRule, rule: SplitRule, seed: int, place: Path) -> int:
    """Write `examples.parquet` into `place`, in time order; returns the number of rows.

    Args:
        interactions: Folder of stored interactions.
        history: What of the past a row shows.
        rule: Where the rows are cut by time.
        seed: The run's seed.
        place: Where the file goes.

    Raises:
        BadInput: No user has enough interactions, or a part of the split is empty.
    """
    events = read_events(interactions)
    histories = order_by_user(events)
    rows = numpy.flatnonzero(histories.num_earlier >= history.at_least)
    if not len(rows):
        raise BadInput(
            f"none of {len(events.user_ids):,} users has more than {history.at_least} interactions, so there is nothing to predict",
            hint="lower `--history.at-least` or bring more interactions",
        )
    rows = rows[-rule.last_examples :] if rule.last_examples else rows
    parts = split_by_time(events.times[rows], events.users[rows], events.user_ids, events.cohorts, rule, seed)
    with pq.ParquetWriter(
        place / EXAMPLES, CONTRACT.schema(), compression="zstd", write_page_checksum=True, write_statistics=False
    ) as writer:
        for table in example_tables(events, histories, rows, parts, history.length):
            writer.write_table(table)
    _note(events.times[rows], parts, history, rule, place)
    return len(rows)


def _note(times: ndarray, parts: ndarray, history: HistoryRule, rule: SplitRule, place: Path) -> None:
    """Write down where the rows were cut, and what was asked."""
    noted = {
        "rows": len(times),
        "parts": {name: int((parts == number).sum()) for number, name in enumerate(SPLITS)},
        "cut_validation_s": int(times[parts == VALIDATION].min()),
        "cut_test_s": int(times[parts == TEST].min()),
        "train_share": rule.train_share,
        "validation_share": rule.validation_share,
        "history": history.canonical(),
    }
    (place / FACTS).write_text(json.dumps(noted, sort_keys=True))


def read_events(interactions: Path) -> Events:
    """All stored interactions, whatever the number of parts."""
    users = pq.read_table(interactions / USERS, columns=["user_id", "cohort"])
    user_ids, item_ids = (
        users["user_id"].combine_chunks(),
        pq.read_table(interactions / ITEMS, columns=["item_id"])["item_id"].combine_chunks(),
    )
    files = [
        pq.ParquetFile(part, read_dictionary=["user_id", "item_id"], page_checksum_verification=True) for part in part_files(interactions)
    ]
    total = sum(file.metadata.num_rows for file in files)
    ids, times = numpy.empty(total, numpy.int64), numpy.empty(total, numpy.int64)
    codes = {"user_id": numpy.empty(total, numpy.uint32), "item_id": numpy.empty(total, numpy.uint32)}
    ratings, labels = numpy.empty(total, numpy.float32), numpy.empty(total, numpy.int8)
    names, start = {"user_id": user_ids, "item_id": item_ids}, 0
    for batch in (batch for file in files for batch in file.iter_batches(1_000_000)):
        here = slice(start, start + batch.num_rows)
        for name, values in names.items():
            codes[name][here] = _places(batch[name], values)
        ids[here], times[here] = batch["interaction_id"].to_numpy(), batch["timestamp_s"].to_numpy()
        ratings[here] = batch["rating"].fill_null(float("nan")).to_numpy(zero_copy_only=False)
        labels[here] = batch["label"].to_numpy()
        start += batch.num_rows
    users_of, items_of = codes["user_id"], codes["item_id"]
    if len(files) > 1:
        order = numpy.lexsort((items_of, users_of, times))
        ids, users_of, items_of, times, ratings, labels = (column[order] for column in (ids, users_of, items_of, times, ratings, labels))
    return Events(ids, users_of, items_of, times, ratings, labels, user_ids, users["cohort"].combine_chunks(), item_ids)


def _places(column: pa.DictionaryArray, names: pa.Array) -> ndarray:
    """Of each value of a column its place among the sorted names."""
    known = pc.index_in(column.dictionary, value_set=names)
    assert known.null_count == 0, "an interaction names a user or item that its tables do not list"
    return known.to_numpy().astype(numpy.uint32)[column.indices.to_numpy()]


def order_by_user(events: Events) -> Histories:
    """Find each row's place among its user's rows."""
    by_user = _stable_order(events.users)
    counts = numpy.bincount(events.users, minlength=len(events.user_ids))
    starts = counts.cumsum() - counts
    place = numpy.empty(len(by_user), numpy.int64)
    place[by_user] = numpy.arange(len(by_user))
    return Histories(by_user, place, place - starts[events.users])


def _stable_order(users: ndarray) -> ndarray:
    """Places of the rows in the order of user; rows of one user stay in their order."""
    # Two passes of a radix sort, which numpy has for 16-bit numbers: three times faster than its merge sort.
    low = numpy.argsort((users & 0xFFFF).astype(numpy.uint16), kind="stable")
    if int(users.max(initial=0)) <= 0xFFFF:
        return low
    return low[numpy.argsort((users >> 16).astype(numpy.uint16)[low], kind="stable")]


def example_tables(events: Events, histories: Histories, rows: ndarray, parts: ndarray, length: int) -> Iterator[pa.Table]:
    """The examples of `rows`, some at a time.

    Args:
        events: All interactions.
        histories: Where each row's history lies.
        rows: Places of the examples in `events`, ascending.
        parts: What each is for: places in `SPLITS`.
        length: Latest earlier interactions shown.
    """
    splits = pa.array(SPLITS)
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        chosen = rows[start : start + ROWS_AT_A_TIME]
        counts, earlier = histories.before(chosen, length)
        items = events.items[earlier]
        # Whoever meets an item again is not told of the first time: the answer would stand in the prompt.
        other = items != numpy.repeat(events.items[chosen], counts)
        if not other.all():
            counts = numpy.bincount(numpy.repeat(numpy.arange(len(chosen)), counts)[other], minlength=len(chosen))
            items, earlier = items[other], earlier[other]
        offsets = pa.array(numpy.concatenate([[0], counts.cumsum()]).astype(numpy.int32))
        columns = {
            "example_id": pa.array(events.ids[chosen]),
            "user_id": events.user_ids.take(pa.array(events.users[chosen])),
            "item_id": events.item_ids.take(pa.array(events.items[chosen])),
            "item": pa.array(events.items[chosen].astype(numpy.int32)),
            "timestamp_s": pa.array(events.times[chosen]),
            "split": splits.take(pa.array(parts[start : start + ROWS_AT_A_TIME])),
            "label": pa.array(events.labels[chosen]),
            "rating": pa.array(events.ratings[chosen], from_pandas=True),
            "history": pa.ListArray.from_arrays(offsets, pa.array(items.astype(numpy.int32))),
            "history_ratings": pa.ListArray.from_arrays(offsets, pa.array(events.ratings[earlier], from_pandas=True)),
        }
        yield pa.table([columns[column.name] for column in CONTRACT.columns], schema=CONTRACT.schema())
