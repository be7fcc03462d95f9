"""Reads a dataset through the gate; bad rows are put aside, and what became of every row is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from e2urec_core import stages
from e2urec_core.artifacts import Interactions
from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.places import PARTS
from e2urec_core.data.suppressed import Suppressed
from e2urec_core.datasets.base import Dataset
from tasks._progress import say
from tasks._room import ROOM
from tasks._stage import Work, stage

WORDS = {
    "repeated": "rows repeat user, item and moment of another: one of each is kept",
    "conflicting": "of these differ in rating or answer",
    "deleted": "rows of deleted users were dropped",
    "suppressed": "rows were dropped, as the suppression list says",
    "withheld": "of the rows put aside are not kept, as they name a suppressed user",
    "already_held": "rows were stored before",
    "deleted_from_earlier_parts": "stored rows of users deleted or suppressed since were dropped",
}


def ingest(dataset: Dataset, rule: IngestRule, earlier: Interactions | None = None) -> Interactions:
    """Read interactions, items and users of the dataset, without what is on the workspace's suppression list.

    Args:
        dataset: The source.
        rule: What the gate lets through.
        earlier: Stored interactions to append to.

    Raises:
        BadKey: The key of the suppression list is not at hand.
        DamagedLedger: The ledger is gone, or is not what was written.
    """
    from e2urec_core.ledger.suppressions import suppressed_in

    suppressed = suppressed_in(ROOM.get().workspace)
    # An empty list is no argument: the stage's key is what it was before there was one.
    return _ingest(dataset, rule, earlier, suppressed) if suppressed else _ingest(dataset, rule, earlier)


@stage("ingest", writes=Interactions)
def _ingest(
    work: Work, dataset: Dataset, rule: IngestRule, earlier: Interactions | None = None, suppressed: Suppressed | None = None
) -> int:
    """Read interactions, items and users of the dataset; with `earlier`, append to what is stored."""
    # Earlier parts are linked, not read; whoever reads them later verifies them.
    rows = stages.ingest(dataset, rule, work.open(earlier, apart_from=PARTS) if earlier else None, work.place, suppressed)
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
