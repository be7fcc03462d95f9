"""Renders prompts and cuts them by time."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Examples, Interactions
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.split import SplitRule
from tasks._stage import Work, stage


@stage("split", writes=Examples)
def split_by_time(work: Work, rows: Interactions, prompt: PromptRule, rule: SplitRule, seed: int) -> int:
    """Turn ratings into prompts with labels, and cut them by one moment in time for everybody."""
    return stages.split(work.open(rows), prompt, rule, seed, work.place)
