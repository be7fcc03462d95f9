"""Takes single interactions out: which rows go with them, and how the rows that stay are told without them.

A deleted interaction is asked about in one row and shown by later rows of its user. Those later rows are told anew, exactly as a data
set without the interaction would tell them: without its item, and with an older one in the place that falls free. A row that has too
little history left would not exist in such a data set, so it goes as well. Where the examples are cut by time stays as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.examples import EXAMPLES as CONTRACT
from e2urec_core.data.examples import ROWS_AT_A_TIME, Events, Histories, HistoryRule, example_tables, order_by_user, read_events
from e2urec_core.data.places import EXAMPLES, FACTS
from e2urec_core.data.split import SPLITS
from e2urec_core.errors import BadRequest

if TYPE_CHECKING:
    from numpy import ndarray

TOLD = ("history", "history_ratings")


@dataclass(frozen=True)
class Removal:
    """What taking interactions out does to the examples.

    Args:
        gone: True for examples that would not exist without them, (row,).
        anew: The examples that stay and are told otherwise without them, as they are told then, in their order.
        counts: Interactions that are taken out, rows that are told anew, and how many of these train.
    """

    gone: ndarray
    anew: pa.Table
    counts: dict[str, int]


def remove_interactions(interactions: Path, examples: Path, named: Sequence[tuple[str, str]], users: Sequence[str] = ()) -> Removal:
    """What is left of the users' rows without some interactions.

    Args:
        interactions: Folder of stored interactions.
        examples: Folder of the examples that were made of them.
        named: User and item, at least one pair; a pair means every time that the user met the item.
        users: Whoever goes as a whole: nothing is said here of their rows, and none of their interactions is counted.

    Raises:
        BadRequest: A pair was never stored.
    """
    events = read_events(interactions)
    whole = pc.index_in(pa.array(users, pa.string()), value_set=events.user_ids.cast(pa.string())).drop_null().to_numpy()
    taken = _places(events, named) & ~numpy.isin(events.users, whole)
    whose = numpy.isin(events.users, events.users[taken])
    left = _some(events, whose & ~taken)
    noted = json.loads((examples / FACTS).read_bytes())
    rule, histories = HistoryRule.model_validate(noted["history"]), order_by_user(left)
    stays = left.ids[histories.num_earlier >= rule.at_least]
    ids = pq.read_table(examples / EXAMPLES, columns=["example_id"])["example_id"].to_numpy()
    gone = numpy.isin(ids, events.ids[whose]) & ~numpy.isin(ids, stays)
    anew = pa.concat_tables([CONTRACT.schema().empty_table(), *_changed(examples, left, histories, stays, rule.length)])
    counts = {"changed": anew.num_rows, "changed_training": pc.sum(pc.equal(anew["split"], "train")).as_py() or 0}
    return Removal(gone, anew, {"forgotten_interactions": int(taken.sum()), **counts})


def _places(events: Events, named: Sequence[tuple[str, str]]) -> ndarray:
    """True for the named events, (row,)."""
    users, items = (
        pc.fill_null(pc.index_in(pa.array(names, pa.string()), value_set=ids.cast(pa.string())), -1).to_numpy().astype(numpy.int64)
        for names, ids in zip(zip(*named, strict=True), (events.user_ids, events.item_ids), strict=True)
    )
    wanted, keys = users * len(events.item_ids) + items, events.users.astype(numpy.int64) * len(events.item_ids) + events.items
    taken = numpy.isin(keys, wanted)
    known = (users >= 0) & (items >= 0) & numpy.isin(wanted, keys[taken])
    if not known.all():
        raise BadRequest(
            f"{int((~known).sum()):,} of {len(named):,} named interactions were never stored",
            facts={"stored interactions": f"{len(keys):,}"},
            hint="take them out of the file: there is nothing to forget of them",
        )
    return taken


def _some(events: Events, chosen: ndarray) -> Events:
    """Some of the events, of the same users and items."""
    columns = {column.name: getattr(events, column.name) for column in fields(Events)}
    return Events(**{name: values[chosen] if isinstance(values, numpy.ndarray) else values for name, values in columns.items()})


def _changed(examples: Path, left: Events, histories: Histories, stays: ndarray, length: int) -> Iterator[pa.Table]:
    """The examples whose history is another among the events that are left, with that history, in their order."""
    order = numpy.argsort(left.ids)
    for batch in pq.ParquetFile(examples / EXAMPLES).iter_batches(ROWS_AT_A_TIME):
        old = pa.table(batch).filter(pa.array(numpy.isin(batch["example_id"].to_numpy(), stays)))
        if not old.num_rows:
            continue
        rows = order[numpy.searchsorted(left.ids, old["example_id"].to_numpy(), sorter=order)]
        parts = pc.index_in(old["split"].combine_chunks().cast(pa.string()), value_set=pa.array(SPLITS)).to_numpy()
        new = pa.concat_tables(example_tables(left, histories, rows, parts, length))
        before, after = (list(zip(*(table[name].to_pylist() for name in TOLD), strict=True)) for table in (old, new))
        yield new.filter(pa.array([one != other for one, other in zip(before, after, strict=True)]))
