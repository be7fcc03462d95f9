"""Finds every interaction's history and cuts the examples by time."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Examples, Interactions
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.split import SplitRule
from tasks._stage import Work, stage


@stage("split", writes=Examples)
def split_by_time(work: Work, rows: Interactions, history: HistoryRule, rule: SplitRule, seed: int) -> int:
    """Turn interactions into examples with histories and labels, and cut them by one moment in time for everybody."""
    return stages.split(work.open(rows), history, rule, seed, work.place)
