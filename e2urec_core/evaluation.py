"""Measures every compared recommender on the same rows and puts the measures side by side.

Rows come in four groups: `test` without the forgotten users, `forgotten` (what was to be forgotten), `holdout` (never-seen users of
the same window, for the loss attack) and `forgotten_test` (forgotten users' rows of the test window, whose prompts still carry the
deleted history; reported apart).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from e2urec_core.metrics.forgetting import half_jeffreys, jensen_shannon, l2_distance, loss_attack, residual
from e2urec_core.metrics.utility import accuracy, auc, log_loss
from e2urec_core.report.measures import SeedFloor, Spread
from e2urec_core.report.schema import Histogram

GROUPS = ("test", "forgotten", "holdout", "forgotten_test")
ORIGINAL, RETRAIN = "original", "retrain"


@dataclass(frozen=True)
class Scored:
    """One group's rows.

    Args:
        example_ids: (row,).
        labels: 0 or 1, (row,).
        yes: p(Yes) by model name, (row,) each.
    """

    example_ids: numpy.ndarray
    labels: numpy.ndarray
    yes: Mapping[str, numpy.ndarray]


def measure(groups: Mapping[str, Scored], model: str) -> dict[str, Any]:
    """The measures of one model against the paired Retrain, under the names of the report's rows.

    Args:
        groups: Scored rows by group name; all of `GROUPS`.
        model: Name of the model, which every group must have scored.
    """
    test, forgotten, holdout = groups["test"], groups["forgotten"], groups["holdout"]
    yes, retrained, original = forgotten.yes[model], forgotten.yes[RETRAIN], forgotten.yes[ORIGINAL]
    return {
        "auc": auc(test.labels, test.yes[model]),
        "accuracy": accuracy(test.labels, test.yes[model]),
        "log_loss": log_loss(test.labels, test.yes[model]),
        "forget_auc": auc(forgotten.labels, yes),
        "attack_auc": loss_attack(forgotten.labels, yes, holdout.labels, holdout.yes[model]),
        "jsd": jensen_shannon(yes, retrained),
        "half_jeffreys": half_jeffreys(yes, retrained),
        "l2": l2_distance(yes, retrained),
        "residual": residual(yes, retrained, original),
    }


def measure_apart(groups: Mapping[str, Scored], model: str) -> dict[str, Any]:
    """The utility of one model on the forgotten users' rows of the test window."""
    rows = groups["forgotten_test"]
    yes = rows.yes[model]
    return {
        "num_rows": len(rows.labels),
        "auc": auc(rows.labels, yes),
        "accuracy": accuracy(rows.labels, yes),
        "log_loss": log_loss(rows.labels, yes),
    }


def seed_floor(groups: Mapping[str, Scored], further: list[str]) -> SeedFloor | None:
    """Spread between Retrains that differ in the seed only; None without further Retrains.

    Distances are those of the further Retrains to the paired one; the other measures are taken over all of them.
    """
    if not further:
        return None
    others = [measure(groups, model) for model in further]
    everyone = [measure(groups, RETRAIN), *others]
    spreads: dict[str, Spread | None] = {}
    for name in ("jsd", "half_jeffreys", "l2", "auc", "log_loss", "forget_auc", "attack_auc"):
        values = [row[name] for row in (others if name in ("jsd", "half_jeffreys", "l2") else everyone)]
        spreads[name] = Spread.of(values) if all(value is not None for value in values) else None
    return SeedFloor.model_validate({"num_retrains": len(further), **spreads})


def histogram(groups: Mapping[str, Scored], models: list[str]) -> Histogram:
    """How p(Yes) is spread over the forgotten rows."""
    return Histogram.of({model: groups["forgotten"].yes[model] for model in models})
