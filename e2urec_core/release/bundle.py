"""Writes what a released recommender takes with it: exactly the files that answer, how its prompts are written, and its card.

What tells of its past stays behind: the adapter that made it forget, the loss of every step, who is in which shard.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from e2urec_core.artifacts import canonical_json
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.places import BUNDLE, ENSEMBLE, PROMPT, TOKENIZER
from e2urec_core.data.prompts import NOTHING, PromptRule, parts_of
from e2urec_core.ensemble import COMBINER, Combining
from e2urec_core.recommender import ANSWERS
from e2urec_core.release.card import ModelCard

NETWORK = ("config.json", "model.safetensors", TOKENIZER, ANSWERS)
CARD = "README.md"


def model_files(model: Path) -> list[str]:
    """Names of the files in a recommender's folder that `recommender.load` reads."""
    if not (model / ENSEMBLE).is_file():
        return [*NETWORK]
    combining = Combining.model_validate_json((model / ENSEMBLE).read_bytes())
    folders = ["base"] if combining.how == "adapters" else [f"member-{number}" for number in range(combining.num_members)]
    return [ENSEMBLE, COMBINER, *(f"{folder}/{name}" for folder in folders for name in NETWORK)]


def write_bundle(model: Path, prompt: PromptRule, history: HistoryRule, card: ModelCard, place: Path) -> None:
    """Write the recommender's files and `prompt.json` into `artifacts/bundle`, and the card beside; a probe may lie there already.

    Args:
        model: Folder of a recommender, single or ensemble; its files are linked where the disk allows, else copied.
        prompt: The wording it was trained with.
        history: How many items its prompts show.
        card: What is said of it.
        place: Folder of the bundle.
    """
    bundle = place / BUNDLE
    for name in model_files(model):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        _link(model / name, bundle / name)
    (bundle / PROMPT).write_text(canonical_json(prompt_facts(prompt, history)))
    (place / CARD).write_text(card.markdown())


def prompt_facts(prompt: PromptRule, history: HistoryRule) -> dict[str, object]:
    """What it takes to write a prompt as training does, as plain JSON values; `_served_model.py` of the tasks reads it.

    >>> prompt_facts(PromptRule(template="paper"), HistoryRule())["parts"][1]
    ['history', '', '.']
    """
    wording = prompt.wording()
    return {
        "parts": [[part.field, part.before, part.after] for part in parts_of(wording.text)],
        "event": wording.event,
        "longest_title": prompt.longest_title,
        "history_length": history.length,
        "nothing": NOTHING,
    }


def read_prompt_rule(released: Path) -> PromptRule:
    """The wording that `prompt_facts` noted in the folder of a released recommender."""
    told = json.loads((released / PROMPT).read_text())
    text = " ".join(f"{before}{{{field}}}{after}" if field else before for field, before, after in told["parts"])
    return PromptRule(text=text, event=told["event"], longest_title=told["longest_title"])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
