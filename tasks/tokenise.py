"""Writes the examples as prompts and turns these into token ids, once for all later stages."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Examples, Interactions, Tokens
from e2urec_core.backbones.base import Backbone
from e2urec_core.data.prompts import PromptRule
from tasks._progress import say
from tasks._stage import Work, stage


@stage("tokenise", writes=Tokens)
def tokenise(work: Work, rows: Interactions, examples: Examples, prompt: PromptRule, backbone: Backbone) -> int:
    """Write every prompt as token ids of the backbone's tokenizer."""
    made = stages.tokenise(work.open(examples), work.open(rows), prompt, backbone, work.place)
    told = stages.facts(work.place)
    work.metrics.final({name: float(told[name]) for name in ("tokens", "shortened", "items_left_out")})
    if told["shortened"]:
        say(f"  {told['shortened']:,} of {made:,} prompts were too long: {told['items_left_out']:,} of the oldest items were left out")
    return made
