"""Writes the examples as prompts and turns these into token ids, once for all later stages."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Examples, Interactions, Tokens
from e2urec_core.backbones.base import Backbone
from e2urec_core.data.prompts import PromptRule
from tasks._stage import Work, stage


@stage("tokenise", writes=Tokens)
def tokenise(work: Work, rows: Interactions, examples: Examples, prompt: PromptRule, backbone: Backbone) -> int:
    """Write every prompt as token ids of the backbone's tokenizer."""
    return stages.tokenise(work.open(examples), work.open(rows), prompt, backbone, work.place)
