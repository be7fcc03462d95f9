"""Reads a dataset through the gate; bad rows are put aside, and what became of every row is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from e2urec_core import stages
from e2urec_core.artifacts import Interactions
from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.places import PARTS
from e2urec_core.datasets.base import Dataset
from tasks._progress import say
from tasks._stage import Work, stage

WORDS = {
    "repeated": "rows repeat user, item and moment of another: one of each is kept",
    "conflicting": "of these differ in rating or answer",
    "deleted": "rows of deleted users were dropped",
    "already_held": "rows were stored before",
    "deleted_from_earlier_parts": "stored rows of users deleted since were dropped",
}


@stage("ingest", writes=Interactions)
def ingest(work: Work, dataset: Dataset, rule: IngestRule, earlier: Interactions | None = None) -> int:
    """Read interactions, items and users of the dataset; with `earlier`, append to what is stored."""
    # Earlier parts are linked, not read; whoever reads them later verifies them.
    rows = stages.ingest(dataset, rule, work.open(earlier, apart_from=PARTS) if earlier else None, work.place)
    told = read_counts(work.place)
    became = told["this_reading"]
    single = {name: float(became[name]) for name in ("read", "kept", *WORDS)}
    work.metrics.final(single | {name: float(sum(became[name].values())) for name in ("quarantined", "left_out")})
    for line in [*lines(became), *told["remarks"]]:
        say(f"  {line}")
    return rows


def lines(became: Mapping[str, Any]) -> Iterator[str]:
    """What became of the rows that are not simply kept, a line each."""
    for rule, count in became["quarantined"].items():
        yield f"{count:,} of {became['read']:,} rows were put aside: {rule}"
    for reason, count in became["left_out"].items():
        if count:
            yield f"{count:,} of {became['read']:,} rows were left out: {reason}"
    for name, words in WORDS.items():
        if became[name]:
            yield f"{became[name]:,} {words}"
