"""How well a recommender recommends: area under the curve, accuracy, log loss.

Source: E2URec, section 5.1. AUC comes from scikit-learn.
"""

from __future__ import annotations

import numpy

# p is kept this far from 0 and 1, so that one certain mistake does not make the log loss infinite.
LEAST_PROBABILITY = 1e-7


def auc(labels: numpy.ndarray, yes: numpy.ndarray) -> float | None:
    """Chance that a liked row is ranked above a disliked one, 0 to 1; None where one of the two is missing.

    Args:
        labels: 0 or 1, (row,).
        yes: p(Yes), (row,).

    >>> auc(numpy.array([0, 1, 1]), numpy.array([0.2, 0.1, 0.9]))
    0.5
    """
    from sklearn.metrics import roc_auc_score

    if len(numpy.unique(labels)) < 2:
        return None
    return float(roc_auc_score(labels, yes))


def accuracy(labels: numpy.ndarray, yes: numpy.ndarray) -> float | None:
    """Share of rows whose likelier answer is right, 0 to 1, p = 0.5 counting as Yes; None without rows.

    >>> accuracy(numpy.array([0, 1]), numpy.array([0.2, 0.4]))
    0.5
    """
    return float(((yes >= 0.5) == (labels == 1)).mean()) if len(labels) else None


def row_losses(labels: numpy.ndarray, yes: numpy.ndarray) -> numpy.ndarray:
    """Negative log-likelihood of each row's right answer against the other answer, nats, (row,).

    >>> row_losses(numpy.array([1]), numpy.array([0.5])).round(4)
    array([0.6931])
    """
    right = numpy.where(labels == 1, yes, 1 - yes)
    losses: numpy.ndarray = -numpy.log(numpy.clip(right, LEAST_PROBABILITY, 1.0))
    return losses


def log_loss(labels: numpy.ndarray, yes: numpy.ndarray) -> float | None:
    """Mean of `row_losses`, nats; None without rows."""
    return float(row_losses(labels, yes).mean()) if len(labels) else None
