"""Tokenises the rows that a request for single interactions tells anew."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import ForgetRequest, Interactions, Retold, Tokens
from e2urec_core.data.prompts import PromptRule
from tasks._room import ROOM
from tasks._stage import Work, stage


@stage("retell", writes=Retold)
def retell(work: Work, rows: Interactions, request: ForgetRequest, tokens: Tokens, prompt: PromptRule) -> int:
    """Write the changed rows' prompts as token ids of the same tokenizer."""
    return stages.retell(work.open(request), work.open(rows), work.open(tokens), prompt, work.place)


def retell_changed(rows: Interactions, request: ForgetRequest, tokens: Tokens, prompt: PromptRule) -> Retold | None:
    """`retell` where the request changes histories of rows that stay; else nothing is to be told anew."""
    changed = stages.facts(ROOM.get().store.open(request))["counts"].get("changed")
    return retell(rows, request, tokens, prompt) if changed else None
