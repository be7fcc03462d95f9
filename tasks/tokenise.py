"""Turns the prompts into token ids, once for all later stages."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Examples, Tokens
from e2urec_core.backbones.base import Backbone
from tasks._stage import Work, stage


@stage("tokenise", writes=Tokens)
def tokenise(work: Work, examples: Examples, backbone: Backbone) -> int:
    """Write every prompt as token ids of the backbone's tokenizer."""
    return stages.tokenise(work.open(examples), backbone, work.place)
