"""How far a recommender's answers lie from those of a Retrain, and whether its losses betray who trained it.

Each row's answer is the pair (p, 1 - p) over Yes and No. Distances are per row and averaged; the loss attack is an aggregate, and
sees a memory that per-row distances hide.
"""

from __future__ import annotations

import numpy

from e2urec_core.metrics.utility import LEAST_PROBABILITY, auc, row_losses


def jensen_shannon(yes: numpy.ndarray, other: numpy.ndarray) -> float:
    """Mean Jensen-Shannon divergence, nats, 0 to log 2.

    Args:
        yes: p(Yes) of one model, (row,).
        other: p(Yes) of the other model, (row,).

    Source: Lin 1991; both against their mixture.

    >>> round(jensen_shannon(numpy.array([1.0]), numpy.array([0.0])), 4)  # log 2
    0.6931
    """
    return max(0.0, float(row_divergences(yes, other)["jsd"].mean()))


def half_jeffreys(yes: numpy.ndarray, other: numpy.ndarray) -> float:
    """Mean of half the Jeffreys divergence, (KL(p||q) + KL(q||p)) / 2, nats; what E2URec's reference code calls JSD.

    >>> round(half_jeffreys(numpy.array([0.5]), numpy.array([0.25])), 4)  # (0.5 - 0.25) * log 3 / 2
    0.1373
    """
    return max(0.0, float(row_divergences(yes, other)["half_jeffreys"].mean()))


def row_divergences(yes: numpy.ndarray, other: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """`jsd` and `half_jeffreys` of every row, nats, (row,) each; a row of two equal answers may miss 0 by a rounding step."""
    middle = (yes + other) / 2
    return {
        "jsd": (_kl(yes, middle) + _kl(other, middle)) / 2,
        "half_jeffreys": (_kl(yes, other) + _kl(other, yes)) / 2,
    }


def l2_distance(yes: numpy.ndarray, other: numpy.ndarray) -> float:
    """Mean Euclidean distance between the answers (p, 1 - p): sqrt 2 times the mean difference of p; 0 to sqrt 2.

    >>> round(l2_distance(numpy.array([1.0]), numpy.array([0.0])), 4)
    1.4142
    """
    return float(numpy.abs(yes - other).mean() * numpy.sqrt(2.0))


def residual(unlearned: numpy.ndarray, retrained: numpy.ndarray, original: numpy.ndarray) -> float | None:
    """What is left of the way to Retrain: mean |p - p_retrain| over mean |p_original - p_retrain|.

    1 is doing nothing, 0 is Retrain, above 1 is worse than nothing. None where original and Retrain are equal.

    >>> residual(numpy.array([0.4]), numpy.array([0.2]), numpy.array([0.6]))
    0.5
    """
    whole = float(numpy.abs(original - retrained).mean())
    return round(float(numpy.abs(unlearned - retrained).mean()) / whole, 15) if whole > 0 else None


def loss_attack(
    forgotten_labels: numpy.ndarray, forgotten_yes: numpy.ndarray, unseen_labels: numpy.ndarray, unseen_yes: numpy.ndarray
) -> float | None:
    """AUC of telling forgotten rows from rows of never-seen users by their smaller loss; 0.5 cannot tell, None without such rows.

    >>> loss_attack(numpy.array([1]), numpy.array([0.9]), numpy.array([1]), numpy.array([0.6]))
    1.0
    """
    membership = numpy.concatenate([numpy.ones(len(forgotten_labels)), numpy.zeros(len(unseen_labels))])
    losses = numpy.concatenate([row_losses(forgotten_labels, forgotten_yes), row_losses(unseen_labels, unseen_yes)])
    return auc(membership, -losses)


def _kl(p: numpy.ndarray, q: numpy.ndarray) -> numpy.ndarray:
    """KL((p, 1-p) || (q, 1-q)) of each row, nats; 0 log 0 is 0."""
    first, second = (numpy.clip(values, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY) for values in (p, q))
    parts: numpy.ndarray = first * numpy.log(first / second) + (1 - first) * numpy.log((1 - first) / (1 - second))
    return parts
