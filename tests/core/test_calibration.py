"""The calibration error against arithmetic by hand; bins of equal mass, whatever the order of rows."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2urec_core.metrics.calibration import calibration_curve, calibration_error

ROWS = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60)
# Sums of a few dozen float64 terms.
EXACT = 1e-12


def test_each_bin_counts_by_its_rows() -> None:
    labels, yes = numpy.array([0, 0, 1, 1, 1, 0]), numpy.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8])
    # Two bins of three: |0.2 - 1/3| and |0.7 - 2/3|, halves of the rows each.
    assert calibration_error(labels, yes, 2) == pytest.approx((abs(0.2 - 1 / 3) + abs(0.7 - 2 / 3)) / 2, abs=EXACT)


def test_told_shares_that_are_true_have_no_error_and_sure_mistakes_have_all() -> None:
    labels = numpy.array([1, 0, 0, 0, 1, 1, 1, 0])
    assert calibration_error(labels, numpy.array([0.25] * 4 + [0.75] * 4), 2) == 0
    assert calibration_error(labels, 1.0 - labels, 2) == 1


def test_without_rows_there_is_no_error() -> None:
    assert calibration_error(numpy.array([]), numpy.array([]), 10) is None


@given(ROWS, st.integers(1, 12))
def test_the_bins_hold_every_row_once_and_rise(rows: list[tuple[int, float]], num_bins: int) -> None:
    labels, yes = (numpy.array(column) for column in zip(*rows, strict=True))
    curve = calibration_curve(labels, yes, num_bins)
    assert curve.rows.sum() == len(rows)
    assert curve.rows.min() >= 1
    assert len(curve.rows) <= num_bins
    assert (numpy.diff(curve.told) > 0).all()
    assert (curve.rows * curve.liked).sum() == pytest.approx(labels.sum())


@given(ROWS, st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows: list[tuple[int, float]], num_bins: int, random: object) -> None:
    mixed = sorted(rows, key=lambda _: random.random())  # type: ignore[attr-defined]
    first, second = (calibration_error(*(numpy.array(column) for column in zip(*each, strict=True)), num_bins) for each in (rows, mixed))
    assert first == pytest.approx(second, abs=EXACT)


def test_different_rows_share_the_bins_evenly() -> None:
    yes = numpy.linspace(0, 1, 100)
    assert calibration_curve((yes > 0.5).astype(int), yes, 10).rows.tolist() == [10] * 10
