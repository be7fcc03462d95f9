"""Whether a stated probability is one: of rows that are told p(Yes) = 0.7, seven in ten should be liked.

Rows are put into bins of about equal many rows by their p(Yes); in each bin the mean of p is held against the share of liked rows.

Source: expected calibration error (Naeini et al., AAAI 2015), with bins of equal mass (Nixon et al., CVPR workshops 2019).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy


class CalibrationCurve(NamedTuple):
    """What was told and what was true, bin by bin, from the smallest p(Yes) to the largest.

    Args:
        told: Mean p(Yes) of each bin, 0 to 1, (bin,).
        liked: Share of rows with the label 1 in each bin, 0 to 1, (bin,).
        rows: Rows in each bin, at least 1, (bin,).
    """

    told: numpy.ndarray
    liked: numpy.ndarray
    rows: numpy.ndarray


def bins_of(yes: numpy.ndarray, num_bins: int) -> numpy.ndarray:
    """The bin of each row, from 0, (row,): about equally many rows a bin; rows of one p(Yes) share theirs.

    >>> bins_of(numpy.array([0.9, 0.1, 0.2, 0.8]), 2)
    array([1, 0, 0, 1])
    """
    if not len(yes):
        return numpy.zeros(0, dtype=numpy.int64)
    edges = numpy.unique(numpy.quantile(yes, numpy.arange(1, num_bins) / num_bins))
    _, place = numpy.unique(numpy.searchsorted(edges, yes, side="right"), return_inverse=True)
    return place


def calibration_curve(labels: numpy.ndarray, yes: numpy.ndarray, num_bins: int = 10) -> CalibrationCurve:
    """What was told and what was true in the bins of `bins_of`; the order of rows changes nothing.

    Args:
        labels: 0 or 1, (row,).
        yes: p(Yes), finite, (row,).
        num_bins: Most bins, at least 1; fewer come back where rows share their p(Yes), none without rows.

    >>> curve = calibration_curve(numpy.array([0, 1, 1, 1]), numpy.array([0.2, 0.4, 0.6, 0.8]), 2)
    >>> curve.told.round(2), curve.liked, curve.rows
    (array([0.3, 0.7]), array([0.5, 1. ]), array([2, 2]))
    """
    place = bins_of(yes, num_bins)
    rows = numpy.bincount(place)
    told, liked = (numpy.bincount(place, values) / rows for values in (yes, labels))
    return CalibrationCurve(numpy.clip(told, 0, 1), liked, rows)


def calibration_error(labels: numpy.ndarray, yes: numpy.ndarray, num_bins: int = 10) -> float | None:
    """Expected calibration error: mean distance between `told` and `liked` of the bins, weighted by rows, 0 to 1; None without rows.

    >>> round(calibration_error(numpy.array([0, 1, 1, 1]), numpy.array([0.2, 0.4, 0.6, 0.8]), 2), 4)  # (|0.3 - 0.5| + |0.7 - 1|) / 2
    0.25
    """
    if not len(labels):
        return None
    curve = calibration_curve(labels, yes, num_bins)
    return float((curve.rows * numpy.abs(curve.told - curve.liked)).sum() / len(labels))
