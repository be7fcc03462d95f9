"""The gates on what a candidate is still good for: it may recommend a little worse than the champion, to anybody, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy

from e2urec_core.metrics.calibration import calibration_error
from e2urec_core.metrics.utility import auc, log_loss, row_losses
from e2urec_core.release.evidence import CANDIDATE, CHAMPION, TEST, Evidence
from e2urec_core.release.gates import UtilityGates
from e2urec_core.release.verdict import Gate, shown
from e2urec_core.report.comparison.resampling import weighted_auc

CELLS_AT_A_TIME = 2**22
MIDDLE = 95.0


@dataclass(frozen=True)
class Loss:
    """What may get worse.

    Args:
        name: Of the gate.
        title: For people.
        rows: Which of the test rows it is measured on, (row,).
        measure: Of labels and p(Yes), (row,) each.
        verb: `fall` where more is better, else `rise`.
        most: How far it may, at most.
        drawn: The same measure on rows that stand there as often as their weight says, (draw, row) to (draw,); None where nobody asks.
    """

    name: str
    title: str
    rows: numpy.ndarray
    measure: Callable[..., float | None]
    verb: str
    most: float
    drawn: Callable[[numpy.ndarray, numpy.ndarray, numpy.ndarray], numpy.ndarray] | None = None


def utility_gates(evidence: Evidence, rule: UtilityGates, random: numpy.random.Generator) -> list[Gate]:
    """How much worse than the champion the candidate is, by measure and by group of users.

    Args:
        evidence: The scores.
        rule: The bounds.
        random: Draws the users that tell what noise is.
    """
    active = active_rows(evidence.users[TEST], evidence.training_users)
    everybody, calibration = numpy.ones_like(active), partial(calibration_error, num_bins=rule.num_bins)
    losses = (
        Loss("auc", "AUC", everybody, auc, "fall", rule.auc_fall, weighted_auc),
        Loss("log_loss", "log loss", everybody, log_loss, "rise", rule.log_loss_rise, _weighted_loss),
        Loss("calibration", "calibration error", everybody, calibration, "rise", rule.calibration_rise),
        Loss("auc_active", "AUC of active users", active, auc, "fall", rule.group_auc_fall, weighted_auc),
        Loss("auc_inactive", "AUC of inactive users", ~active, auc, "fall", rule.group_auc_fall, weighted_auc),
    )
    return [*(_gate(loss, evidence, rule.num_resamples, random) for loss in losses), _least(evidence, rule.least_auc)]


def active_rows(users: numpy.ndarray, training_users: numpy.ndarray) -> numpy.ndarray:
    """Which rows are of active users: of that half of the users who have more training rows, but of nobody without any; (row,).

    Args:
        users: User of each row, (row,).
        training_users: User of each training row, (row,).

    >>> active_rows(numpy.array([5, 6, 7, 6, 8]), numpy.array([5, 6, 6, 8, 8, 8]))  # rows of training: 1, 2, 0, 3
    array([False,  True, False,  True,  True])
    """
    people, place = numpy.unique(users, return_inverse=True)
    trained = numpy.sort(training_users)
    counts = numpy.searchsorted(trained, people, side="right") - numpy.searchsorted(trained, people, side="left")
    # Users of equally many rows are told apart by their number, so that the halves are halves.
    active = numpy.zeros(len(people), dtype=bool)
    active[numpy.argsort(counts, kind="stable")[len(people) // 2 :]] = True
    rows: numpy.ndarray = (active & (counts > 0))[place]
    return rows


def _gate(loss: Loss, evidence: Evidence, num_resamples: int, random: numpy.random.Generator) -> Gate:
    rows, sign = evidence.groups[TEST], 1.0 if loss.verb == "fall" else -1.0
    on, may = f"The {loss.title} on {loss.rows.sum():,} test rows", f"it may {loss.verb} by {shown(loss.most)} at most"
    fault = evidence.fault(TEST, CANDIDATE, CHAMPION, chosen=loss.rows)
    if not fault:
        labels, champion, candidate = (values[loss.rows] for values in (rows.labels, rows.yes[CHAMPION], rows.yes[CANDIDATE]))
        before, after = loss.measure(labels, champion), loss.measure(labels, candidate)
        if before is not None and after is not None:
            remark = ""
            if loss.drawn is not None:
                weights = _weights(evidence.users[TEST][loss.rows], num_resamples, random)
                remark = _noise([sign * (loss.drawn(labels, champion, each) - loss.drawn(labels, candidate, each)) for each in weights])
            sentence = f"{on} goes from {shown(before)} to {shown(after)}; {may}."
            return Gate.of(loss.name, "utility", sign * (before - after), sentence, at_most=loss.most, remark=remark)
        fault = "all rows have one label"
    return Gate.of(loss.name, "utility", None, f"{on} is not known beside the champion's; {may}.", at_most=loss.most, remark=fault)


def _least(evidence: Evidence, least: float) -> Gate:
    """The gate on what the candidate is worth by itself."""
    rows, fault = evidence.groups[TEST], evidence.fault(TEST, CANDIDATE)
    value = None if fault else auc(rows.labels, rows.yes[CANDIDATE])
    sentence = f"The AUC on {len(rows.labels):,} test rows is {shown(value)}; it must be {shown(least)} at least."
    remark = fault or ("all rows have one label" if value is None else "")
    return Gate.of("least_auc", "utility", value, sentence, at_least=least, remark=remark)


def _noise(draws: list[numpy.ndarray]) -> str:
    """Where the draws of users put the difference, and whether nothing at all is among it."""
    low, high = numpy.nanpercentile(numpy.concatenate(draws), [(100 - MIDDLE) / 2, (100 + MIDDLE) / 2])
    return f"{'Within noise: ' if low <= 0 <= high else ''}{MIDDLE:.0f} % of draws of users lie from {low:+.4f} to {high:+.4f}."


def _weights(users: numpy.ndarray, num_draws: int, random: numpy.random.Generator) -> Iterator[numpy.ndarray]:
    """How often each row is drawn when its users are, (draw, row), some draws at a time."""
    people, place = numpy.unique(users, return_inverse=True)
    step = max(1, CELLS_AT_A_TIME // len(users))
    for start in range(0, num_draws, step):
        size = min(step, num_draws - start)
        yield random.multinomial(len(people), numpy.full(len(people), 1 / len(people)), size=size)[:, place]


def _weighted_loss(labels: numpy.ndarray, yes: numpy.ndarray, weights: numpy.ndarray) -> numpy.ndarray:
    losses: numpy.ndarray = (weights @ row_losses(labels, yes)) / weights.sum(axis=1)
    return losses
