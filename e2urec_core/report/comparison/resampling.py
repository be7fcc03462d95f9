"""Draws users again and again, and takes every measure on each draw: how far a number would move with other users of the same kind.

Rows of one user hang together, so users are drawn and not rows. All models are measured on the same draws, so that what is common to
them leaves their differences.

Source: the cluster bootstrap (Field and Welsh 2007).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy

from e2urec_core.evaluation import RETRAIN, Scored
from e2urec_core.metrics.forgetting import row_divergences
from e2urec_core.metrics.utility import row_losses

DISTANCES = ("jsd", "half_jeffreys", "l2", "residual")
"""Measures against the paired Retrain: smaller is nearer."""
Draws = Mapping[str, numpy.ndarray]
MIDDLE = 95.0
"""Share of the draws, in per cent, that an interval holds."""


@dataclass(frozen=True)
class Weights:
    """How often each row was drawn.

    Args:
        test: (draw, row) of the test rows.
        forgotten: (draw, row) of the forgotten rows.
        holdout: (draw, row) of never-seen users' rows.
    """

    test: numpy.ndarray
    forgotten: numpy.ndarray
    holdout: numpy.ndarray


def draw_users(users: Mapping[str, numpy.ndarray], num_draws: int, random: numpy.random.Generator) -> Weights:
    """Draw as many users as there are, with replacement, in each group of rows.

    Args:
        users: The user of each row by group, (row,) each.
        num_draws: Draws, at least 1.
        random: Generator.
    """
    return Weights(**{group: _drawn(users[group], num_draws, random) for group in ("test", "forgotten", "holdout")})


def _drawn(users: numpy.ndarray, num_draws: int, random: numpy.random.Generator) -> numpy.ndarray:
    names, place = numpy.unique(users, return_inverse=True)
    if not len(names):
        return numpy.zeros((num_draws, 0), dtype=numpy.float32)
    drawn = random.multinomial(len(names), numpy.full(len(names), 1 / len(names)), size=num_draws)
    return drawn[:, place].astype(numpy.float32)


def measure_draws(groups: Mapping[str, Scored], model: str, weights: Weights) -> dict[str, numpy.ndarray]:
    """Each measure of one model on every draw, (draw,) each; NaN where a draw leaves it undefined."""
    test, forgotten = groups["test"], groups["forgotten"]
    right = (test.yes[model] >= 0.5) == (test.labels == 1)
    divergences = row_divergences(forgotten.yes[model], forgotten.yes[RETRAIN])
    moved = numpy.abs(forgotten.yes[model] - forgotten.yes[RETRAIN])
    whole = numpy.abs(forgotten.yes["original"] - forgotten.yes[RETRAIN])
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return {
            "auc": weighted_auc(test.labels, test.yes[model], weights.test),
            "accuracy": _means(right.astype(float), weights.test),
            "log_loss": _means(row_losses(test.labels, test.yes[model]), weights.test),
            **_aucs(groups, model, weights),
            "jsd": _means(divergences["jsd"], weights.forgotten),
            "half_jeffreys": _means(divergences["half_jeffreys"], weights.forgotten),
            "l2": _means(moved, weights.forgotten) * numpy.sqrt(2.0),
            "residual": _means(moved, weights.forgotten) / _means(whole, weights.forgotten),
        }


def _aucs(groups: Mapping[str, Scored], model: str, weights: Weights) -> dict[str, numpy.ndarray]:
    forgotten, holdout = groups["forgotten"], groups["holdout"]
    losses = [row_losses(rows.labels, rows.yes[model]) for rows in (forgotten, holdout)]
    membership = numpy.concatenate([numpy.ones(len(losses[0])), numpy.zeros(len(losses[1]))])
    together = numpy.concatenate([weights.forgotten, weights.holdout], axis=1)
    return {
        "forget_auc": weighted_auc(forgotten.labels, forgotten.yes[model], weights.forgotten),
        "attack_auc": weighted_auc(membership, -numpy.concatenate(losses), together),
    }


def _means(values: numpy.ndarray, weights: numpy.ndarray) -> numpy.ndarray:
    means: numpy.ndarray = (weights @ values) / weights.sum(axis=1)
    return means


def middle_of(draws: numpy.ndarray) -> tuple[float | None, float | None]:
    """The interval that holds the middle `MIDDLE` per cent of the draws, (draw,); none where hardly a draw was defined.

    >>> middle_of(numpy.arange(41.0))
    (1.0, 39.0)
    """
    defined = draws[numpy.isfinite(draws)]
    if len(defined) < len(draws) / 2:
        return None, None
    low, high = numpy.percentile(defined, [(100 - MIDDLE) / 2, (100 + MIDDLE) / 2])
    return float(low), float(high)


def weighted_auc(labels: numpy.ndarray, scores: numpy.ndarray, weights: numpy.ndarray) -> numpy.ndarray:
    """The AUC of rows that stand there as often as their weight says, (draw,); NaN where a draw has one label only.

    Args:
        labels: 0 or 1, (row,).
        scores: Larger for 1, (row,); ties count one half.
        weights: At least 0, (draw, row).

    >>> weighted_auc(numpy.array([0, 1, 1]), numpy.array([0.2, 0.1, 0.9]), numpy.array([[1, 1, 1], [1, 0, 2]]))
    array([0.5, 1. ])
    """
    if not len(scores):
        return numpy.full(len(weights), numpy.nan)
    order = numpy.argsort(scores, kind="stable")
    ranked = weights[:, order].astype(numpy.float64)
    positive = ranked * (labels[order] == 1)
    # Rows of one score stand together: a positive one is above the negatives before them, and beside half of those among them.
    _, first = numpy.unique(scores[order], return_index=True)
    sums = numpy.add.reduceat(ranked, first, axis=1)
    yes = numpy.add.reduceat(positive, first, axis=1)
    no = sums - yes
    below = numpy.cumsum(no, axis=1) - no
    pairs = yes.sum(axis=1) * no.sum(axis=1)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        aucs: numpy.ndarray = (yes * (below + no / 2)).sum(axis=1) / pairs
    return aucs
