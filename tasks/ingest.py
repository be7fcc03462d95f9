"""Reads a dataset through the gate; bad rows are put aside and counted."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Interactions
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.places import PARTS
from e2urec_core.datasets.base import Dataset
from tasks._stage import Work, stage


@stage("ingest", writes=Interactions)
def ingest(work: Work, dataset: Dataset, rule: IngestRule, earlier: Interactions | None = None) -> int:
    """Read interactions, items and users of the dataset; with `earlier`, append to what is stored."""
    # Earlier parts are linked, not read; whoever reads them later verifies them.
    return stages.ingest(dataset, rule, work.open(earlier, apart_from=PARTS) if earlier else None, work.place)
