"""Takes single interactions out: which rows go with them, and how the rows that stay are told without them.

A deleted interaction is asked about in one row and shown by later rows of its user. Those later rows are told anew, exactly as a data
set without the interaction would tell them: without its item, and with an older one in the place that falls free. A row that has too
little history left would not exist in such a data set, so it goes as well. Where the examples are cut by time stays as it was.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.examples import EXAMPLES as CONTRACT
from e2urec_core.data.examples import ROWS_AT_A_TIME, Events, Histories, HistoryRule, example_tables, order_by_user, read_events
from e2urec_core.data.places import EXAMPLES, FACTS, NAMED
from e2urec_core.data.split import SPLITS
from e2urec_core.errors import BadRequest

if TYPE_CHECKING:
    from numpy import ndarray

USER, ITEM = "user_id", "item_id"
TOLD = ("history", "history_ratings")


@dataclass(frozen=True)
class Removal:
    """What taking interactions out does to the examples.

    Args:
        gone: True for examples that would not exist without them, (row,).
        counts: Interactions that are taken out, rows that are told anew, and how many of these train.
    """

    gone: ndarray
    counts: dict[str, int]


def remove_interactions(interactions: Path, examples: Path, file: Path, place: Path) -> Removal:
    """Write what is left of the users' rows without some interactions: `examples.parquet` holds the rows that are told anew.

    Args:
        interactions: Folder of stored interactions.
        examples: Folder of the examples that were made of them.
        file: CSV with the columns user_id and item_id; a pair means every time that the user met the item.
        place: Where `examples.parquet` and `interactions.parquet`, the named pairs, go.

    Raises:
        BadRequest: The file is none, a pair was never stored, or no training row or every one would go.
    """
    named, events = named_interactions(file), read_events(interactions)
    taken = _places(events, named)
    whose = numpy.isin(events.users, events.users[taken])
    left = _some(events, whose & ~taken)
    rows = pq.read_table(examples / EXAMPLES, columns=["example_id", "split"], read_dictionary=["split"]).combine_chunks()
    ids, trains = rows["example_id"].to_numpy(), pc.equal(rows["split"], "train").to_numpy()
    noted = json.loads((examples / FACTS).read_bytes())
    rule, histories = HistoryRule.model_validate(noted["history"]), order_by_user(left)
    stays = left.ids[histories.num_earlier >= rule.at_least]
    gone = numpy.isin(ids, events.ids[whose]) & ~numpy.isin(ids, stays)
    _refuse_too_little_or_too_much(int((gone & trains).sum()), int(trains.sum()), len(named))
    table = pa.concat_tables([CONTRACT.schema().empty_table(), *_changed(examples, left, histories, stays, rule.length)])
    counts = {"changed": table.num_rows, "changed_training": pc.sum(pc.equal(table["split"], "train")).as_py() or 0}
    pairs = pa.table({USER: [user for user, _ in named], ITEM: [item for _, item in named]})
    for written, name in ((table, EXAMPLES), (pairs, NAMED)):
        pq.write_table(written, place / name, compression="zstd", write_page_checksum=True, write_statistics=False)
    return Removal(gone, {"forgotten_interactions": int(taken.sum()), **counts})


def named_interactions(file: Path) -> list[tuple[str, str]]:
    """User and item of each row of a CSV with the columns user_id and item_id, sorted, each pair once.

    Raises:
        BadRequest: It cannot be read, lacks a column, names nothing, or a row of it lacks a name.
    """
    hint = "check `--forget.interactions-file`: a CSV with the header user_id,item_id"
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text, strict=True)
            missing = [name for name in (USER, ITEM) if name not in (reader.fieldnames or ())]
            pairs = [((row.get(USER) or "").strip(), (row.get(ITEM) or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV text"
        raise BadRequest(f"the file of interactions to forget cannot be read: {reason}", facts={"file": file}, hint=hint) from None
    if missing:
        raise BadRequest(
            f"the file of interactions to forget lacks {len(missing)} of 2 columns: {', '.join(missing)}", facts={"file": file}, hint=hint
        )
    if nameless := sum(not (user and item) for user, item in pairs):
        raise BadRequest(f"{nameless:,} of {len(pairs):,} rows have no user or no item", facts={"file": file}, hint=hint)
    if not pairs:
        raise BadRequest("no interactions are forgotten: the file names 0 of them", facts={"file": file}, hint=hint)
    return sorted(set(pairs))


def _places(events: Events, named: list[tuple[str, str]]) -> ndarray:
    """True for the named events, (row,)."""
    users, items = (
        pc.fill_null(pc.index_in(pa.array(names, pa.string()), value_set=ids.cast(pa.string())), -1).to_numpy().astype(numpy.int64)
        for names, ids in zip(zip(*named, strict=True), (events.user_ids, events.item_ids), strict=True)
    )
    wanted, keys = users * len(events.item_ids) + items, events.users.astype(numpy.int64) * len(events.item_ids) + events.items
    known = (users >= 0) & (items >= 0) & numpy.isin(wanted, keys)
    if not known.all():
        raise BadRequest(
            f"{int((~known).sum()):,} of {len(named):,} named interactions were never stored",
            facts={"stored interactions": f"{len(keys):,}"},
            hint="take them out of `--forget.interactions-file`: there is nothing to forget of them",
        )
    return numpy.isin(keys, wanted)


def _some(events: Events, chosen: ndarray) -> Events:
    """Some of the events, of the same users and items."""
    columns = {column.name: getattr(events, column.name) for column in fields(Events)}
    return Events(**{name: values[chosen] if isinstance(values, numpy.ndarray) else values for name, values in columns.items()})


def _refuse_too_little_or_too_much(gone: int, trained: int, named: int) -> None:
    if not gone:
        raise BadRequest(
            f"the {named:,} named interactions are those of none of {trained:,} training rows, so there is nothing to unlearn",
            hint="name interactions of the training window in `--forget.interactions-file`, or delete them at the source",
        )
    if gone == trained:
        raise BadRequest(
            f"all {trained:,} training rows would be forgotten, so nothing is left to recommend from",
            hint="name fewer interactions, or withdraw the model instead of unlearning",
        )


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
