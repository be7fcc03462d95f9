"""Reads a dataset into three tables in one fixed order."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Interactions
from e2urec_core.datasets.base import Dataset
from tasks._stage import Work, stage


@stage("ingest", writes=Interactions)
def ingest(work: Work, dataset: Dataset) -> int:
    """Read ratings, items and users of the dataset."""
    return stages.ingest(dataset, work.place)
