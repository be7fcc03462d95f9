"""Writes the examples as prompts and turns these into token ids, once for all later stages."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Bundle, Examples, Interactions, Tokens, file_digest
from e2urec_core.backbones.base import Backbone
from e2urec_core.data.places import TOKENIZER
from e2urec_core.data.prompts import Part, PromptRule, parts_of
from tasks._progress import say
from tasks._room import Room
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


@stage("tokenise", writes=Tokens)
def tokenise_as(work: Work, released: Bundle, rows: Interactions, examples: Examples) -> int:
    """Write every prompt as a released recommender reads it: in its own wording, as token ids of its own tokenizer."""
    return stages.tokenise_as(work.open(released), work.open(examples), work.open(rows), work.place)


def read_by(room: Room, released: Bundle, rows: Interactions, examples: Examples, tokens: Tokens, prompt: PromptRule) -> Tokens:
    """The prompts as a released recommender reads them: `tokens`, written by `prompt`, where it reads them just so, else its own."""
    from e2urec_core.release.bundle import read_prompt_rule

    told = read_prompt_rule(room.store.open(released) / released.inside)
    same = has_tokenizer_of(room, released, tokens) and _wording(told) == _wording(prompt)
    return tokens if same else tokenise_as(released, rows, examples)


def has_tokenizer_of(room: Room, released: Bundle, tokens: Tokens) -> bool:
    """Whether a released recommender reads with the tokenizer by which `tokens` were written."""
    folders = room.store.open(released) / released.inside, room.store.open(tokens)
    return len({file_digest(folder / TOKENIZER) for folder in folders}) == 1


def _wording(rule: PromptRule) -> tuple[list[Part], str, int]:
    wording = rule.wording()
    return parts_of(wording.text), wording.event, rule.longest_title
