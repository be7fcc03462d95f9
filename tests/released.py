"""Recommenders put together for release without a stage around it, and how they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy

from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.places import BUNDLE
from e2urec_core.data.prompts import PromptRule
from e2urec_core.engine import Bench
from e2urec_core.recommender import Recommender
from e2urec_core.release.bundle import write_bundle
from e2urec_core.release.card import GateRow, ModelCard
from e2urec_core.release.probe import write_probe

DIGESTS = {name: 64 * letter for name, letter in (("model", "a"), ("interactions", "b"), ("examples", "c"), ("tokens", "d"))}


def card(**changes: Any) -> ModelCard:
    """A card of made-up numbers."""
    told: dict[str, Any] = {
        "backbone": "tiny_t5",
        "method": "e2urec",
        "requests": ("e" * 64,),
        "measures": {"auc": 0.75},
        "gates": (GateRow(name="auc", value=0.75, bound="at least 0.7", margin=0.05, passed=True),),
        "parameters": 12_345,
        "seed": 3,
        "versions": {"torch": "2.13.0"},
    }
    return ModelCard.model_validate({**told, **DIGESTS, **changes})


def release(
    recommender: Recommender, interactions: Path, scratch: Path, prompt: PromptRule | None = None, history: HistoryRule | None = None
) -> Path:
    """The bundle of a recommender, made inside of the empty folder `scratch`; its model lies in `scratch/model`."""
    from tasks._servable import serving, write_servable

    model, place, rest = (scratch / name for name in ("model", "released", "rest"))
    for folder in (model, place / BUNDLE, rest):
        folder.mkdir(parents=True)
    recommender.save(model)
    rules = prompt or PromptRule(), history or HistoryRule(length=4)
    write_probe(interactions, *rules, model, Bench(seed=3), place / BUNDLE)
    write_bundle(model, *rules, card(), place)
    write_servable(place, DIGESTS["model"], serving(), rest)
    return place


def own_scores(recommender: Recommender, texts: list[str]) -> numpy.ndarray:
    """p(Yes) as the project itself tells it."""
    numbers = numpy.arange(len(texts))
    return recommender.score(recommender.prompts(numbers, numpy.zeros_like(numbers), texts))
