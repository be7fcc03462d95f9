"""Unlearning as this project runs it, stage by stage and timed, and how near to Retrain a recommender is.

Two forms are measured. `method` is E2URec as published: adapters of rank 16 on query and value of every block, both losses.
`variants` changes what is trained, which is another method: adapters on every linear layer of the decoder alone, over encoder states
that are cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from benchmarks.problem import Inputs, timed
from e2urec_core import stages
from e2urec_core.metrics.forgetting import loss_attack, residual
from e2urec_core.metrics.utility import auc
from e2urec_core.recommender import Recommender, load
from flows.runs import Run, change_run

FORMS: dict[str, dict[str, dict[str, str]]] = {
    "sample": {
        "method": {},
        "variants": {
            "cache.retained_per_forgotten": "1",
            "method.lora.layers": "decoder",
            "method.lora.targets": "all_linear",
            "method.lora.dropout": "0",
            "method.training.learning_rate": "8e-3",
        },
    },
    "ml-1m": {
        "method": {},
        "variants": {"method.lora.layers": "decoder", "method.lora.targets": "all_linear"},
    },
}
"""Settings of each form by dataset, over those of the preset."""
PREPARING = ("cache_original", "cache_teachers")


@dataclass(frozen=True)
class Unlearned:
    """What unlearning gave.

    Args:
        seconds: Time by stage, see `clock`: `cache_original`, `cache_teachers`, `unlearn`; each whole, reading and writing included.
        folder: The merged recommender.
        steps: Steps of the loop.
    """

    seconds: Mapping[str, float]
    folder: Path
    steps: int


def with_form(run: Run, dataset: str, form: str) -> Run:
    """`run` with the settings of a form."""
    return change_run(run, FORMS[dataset][form])


def unlearn(inputs: Inputs, run: Run, augmented: Path, place: Path) -> Unlearned:
    """Write the teacher cache and unlearn, into new folders below `place`.

    Args:
        inputs: Rows and original.
        run: Settings of the cache and of the method.
        augmented: Folder of the augmented model.
        place: Folder that does not exist yet.
    """
    original, tokens, request, bench = inputs.original, inputs.tokens, inputs.request, inputs.bench()
    rule = run.cache.planned(run.method.retained_draws(), run.method.freezes_encoder(), run.method.retained_at_least())
    folders = {name: place / name for name in (*PREPARING, "unlearn")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    remembering, teachers, unlearned = folders.values()
    seconds = {
        "cache_original": timed(lambda: stages.cache_original(original, tokens, request, rule, (), bench, remembering)),
        "cache_teachers": timed(lambda: stages.cache_teachers(original, augmented, tokens, request, rule, bench, teachers)),
        "unlearn": timed(
            lambda: stages.unlearn(
                run.method,
                original,
                tokens,
                request,
                augmented,
                remembering,
                teachers,
                None,
                rule,
                run.backbone,
                run.training,
                bench,
                unlearned,
            )
        ),
    }
    return Unlearned(seconds, unlearned, len(stages.facts(unlearned)["curve"]))


@dataclass(frozen=True)
class Judge:
    """Measures recommenders against the paired Retrain, and Retrains against each other.

    Args:
        inputs: Rows, original, Retrains.
        num_further: Retrains with other seeds.
    """

    inputs: Inputs
    num_further: int

    def quality(self, model: Path | Recommender, parts: tuple[str, ...] = ("validation",)) -> dict[str, float | None]:
        """How near a recommender is to Retrain, and how well it recommends.

        Args:
            model: The recommender or its folder.
            parts: Groups of rows on which to take the AUC; with `holdout`, the loss attack is taken in its place.

        Returns:
            `residual`, `forgotten_auc`, and `validation_auc`, `test_auc` or `attack_auc` as asked.
        """
        model = load(model) if isinstance(model, Path) else model
        yes = self.inputs.yes(model, "forgotten")
        labels = self._labels["forgotten"]
        told = {"residual": residual(yes, self._poles["retrained"], self._poles["original"]), "forgotten_auc": auc(labels, yes)}
        for part in parts:
            said, right = self.inputs.yes(model, part), self._labels[part]
            if part == "holdout":
                told["attack_auc"] = loss_attack(labels, yes, right, said)
            else:
                told[f"{part}_auc"] = auc(right, said)
        return told

    def retrains(self, parts: tuple[str, ...] = ("validation",)) -> list[dict[str, float | None]]:
        """`quality` of every Retrain, the paired one first."""
        return [self.quality(self.inputs.retrained(number), parts) for number in range(self.num_further + 1)]

    @cached_property
    def _labels(self) -> dict[str, numpy.ndarray]:
        return {part: self.inputs.prompts(part).labels for part in ("forgotten", "validation", "test", "holdout")}

    @cached_property
    def _poles(self) -> dict[str, numpy.ndarray]:
        poles = {"original": self.inputs.original, "retrained": self.inputs.retrained()}
        return {name: self.inputs.yes(folder, "forgotten") for name, folder in poles.items()}


def spread(measures: list[dict[str, float | None]], name: str) -> float | None:
    """Largest less smallest value of one measure; None where one is missing."""
    values = [value for measure in measures if (value := measure[name]) is not None]
    return max(values) - min(values) if len(values) == len(measures) else None


def rounded(value: Any, digits: int = 6) -> Any:
    """`value` with every number in it rounded, so that a line stays readable."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, Mapping):
        return {name: rounded(each, digits) for name, each in value.items()}
    return [rounded(each, digits) for each in value] if isinstance(value, list | tuple) else value
