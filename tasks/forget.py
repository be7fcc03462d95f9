"""Chooses who is forgotten."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Examples, ForgetRequest, Interactions
from e2urec_core.data.forget import ForgetRule
from tasks._stage import Work, stage


@stage("forget", writes=ForgetRequest)
def choose_forgotten(work: Work, rows: Interactions, examples: Examples, rule: ForgetRule, seed: int) -> int:
    """Choose users by seed or from a file, and mark the part that every example plays from then on."""
    return stages.forget(work.open(rows), work.open(examples), rule, seed, work.place)
