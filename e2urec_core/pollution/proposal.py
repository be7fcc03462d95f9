"""Decides who and what is proposed, and writes it down with names; whoever accepts it makes the request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.draft_request import PROPOSED
from e2urec_core.data.places import EXAMPLES
from e2urec_core.data.places import PROPOSED as FILE
from e2urec_core.pollution.evidence import Evidence, HeldOut, evidence
from e2urec_core.pollution.quality import is_doubtful, label_quality
from e2urec_core.pollution.rule import FindRule, FoldRule


@dataclass(frozen=True)
class Found:
    """What was found.

    Args:
        evidence: Of every user.
        users: Places in `evidence` of the users who are proposed, least quality first.
        interactions: Positions of the rows that are proposed singly, least expected first.
        quality: Of each row, (row,).
        false_alarms: Of each of `interactions`, the mean probability of its own label and of those before it.
    """

    evidence: Evidence
    users: numpy.ndarray
    interactions: numpy.ndarray
    quality: numpy.ndarray
    false_alarms: numpy.ndarray


def find(held: HeldOut, folds: FoldRule, rule: FindRule) -> Found:
    """Who and what is proposed.

    A user is proposed whose rows luck does not explain and whose labels, on the whole, are the opposite of what is expected. An
    interaction is proposed of a user whom luck does explain, where cleanlab takes its label for wrong, the least expected first, as
    long as labels as improbable as these make up no more than the level.

    Raises:
        MissingPackage: cleanlab is not installed.
    """
    quality, told = label_quality(held.labels, held.yes, folds.quality), evidence(held, folds.quality)
    users = numpy.flatnonzero((told.q < rule.level) & (told.own <= rule.at_most))
    users = users[numpy.argsort(told.score[users], kind="stable")]
    interactions, false_alarms = _interactions(held, told, rule)
    if rule.propose == "users":
        interactions, false_alarms = interactions[:0], false_alarms[:0]
    return Found(told, users if rule.propose != "interactions" else users[:0], interactions, quality, false_alarms)


def _interactions(held: HeldOut, told: Evidence, rule: FindRule) -> tuple[numpy.ndarray, numpy.ndarray]:
    ordinary = told.q[numpy.searchsorted(told.users, held.users)] >= rule.level
    doubtful = numpy.flatnonzero(is_doubtful(held.labels, held.yes) & ordinary)
    doubtful = doubtful[numpy.argsort(held.own[doubtful], kind="stable")]
    false_alarms = held.own[doubtful].cumsum() / numpy.arange(1, len(doubtful) + 1)
    kept = false_alarms < rule.interaction_level
    return doubtful[kept], false_alarms[kept]


def write_proposal(examples: Path, held: HeldOut, found: Found, place: Path) -> int:
    """Write `proposed.parquet`, users first; returns its rows.

    Args:
        examples: Folder of the examples, which know names.
        held: The rows that were scored.
        found: What is proposed.
        place: Where the file goes.
    """
    ids, names, items = _names(examples)
    order = numpy.argsort(ids)
    at = order[numpy.searchsorted(ids, held.example_ids, sorter=order)]
    first = numpy.unique(held.users, return_index=True)[1]
    told = found.evidence

    def lines() -> Iterator[tuple[str, str, str | None, float, float, int]]:
        for user in found.users.tolist():
            yield "user", names[at[first[user]]].as_py(), None, told.score[user], told.q[user], int(told.rows[user])
        for row, q in zip(found.interactions.tolist(), found.false_alarms.tolist(), strict=True):
            yield "interaction", names[at[row]].as_py(), items[at[row]].as_py(), found.quality[row], q, 1

    columns = list(zip(*lines(), strict=True)) or [()] * len(PROPOSED.columns)
    table = pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, PROPOSED.schema(), strict=True)], schema=PROPOSED.schema()
    )
    # Statistics would put names into the footer, where a scan for them must look too.
    pq.write_table(table, place / FILE, write_statistics=False)
    return len(table)


def _names(examples: Path) -> tuple[numpy.ndarray, pa.Array, pa.Array]:
    table = pq.read_table(examples / EXAMPLES, columns=["example_id", "user_id", "item_id"]).combine_chunks()
    users, items = (table[name].cast(pa.string()).combine_chunks() for name in ("user_id", "item_id"))
    return table["example_id"].to_numpy(), users, items
