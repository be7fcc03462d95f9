"""The measures against arithmetic worked by hand and against slow formulas of their own, with nothing but `math`."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2urec_core.evaluation import Scored, histogram, measure, measure_apart, seed_floor
from e2urec_core.metrics.forgetting import half_jeffreys, jensen_shannon, l2_distance, loss_attack, residual
from e2urec_core.metrics.utility import accuracy, auc, log_loss, row_losses

# Sums of a few dozen float64 terms.
EXACT = 1e-12
PROBABILITIES = st.floats(0.001, 0.999)
PAIRS = st.lists(st.tuples(PROBABILITIES, PROBABILITIES), min_size=1, max_size=20)


def slow_auc(labels: list[int], scores: list[float]) -> float:
    """Share of (liked, disliked) pairs in the right order, ties counting one half."""
    pairs = [(a, b) for a, y in zip(scores, labels, strict=True) if y for b, z in zip(scores, labels, strict=True) if not z]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def slow_kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_auc_counts_pairs_in_the_right_order() -> None:
    # liked: 0.8, 0.3; disliked: 0.3, 0.1. Pairs: 0.8>0.3, 0.8>0.1, 0.3=0.3, 0.3>0.1 -> 3.5 of 4
    assert auc(numpy.array([1, 1, 0, 0]), numpy.array([0.8, 0.3, 0.3, 0.1])) == pytest.approx(0.875, abs=EXACT)


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=2, max_size=30))
def test_auc_agrees_with_pair_counting(rows: list[tuple[int, float]]) -> None:
    labels, scores = [label for label, _ in rows], [score for _, score in rows]
    found = auc(numpy.array(labels), numpy.array(scores))
    assert (found is None) == (len(set(labels)) == 1)
    if found is not None:
        assert found == pytest.approx(slow_auc(labels, scores), abs=EXACT)


def test_accuracy_and_log_loss_of_three_rows() -> None:
    labels, yes = numpy.array([1, 0, 1]), numpy.array([0.8, 0.4, 0.25])
    # right: 0.8 -> Yes, 0.4 -> No; wrong: 0.25 -> No
    assert accuracy(labels, yes) == pytest.approx(2 / 3, abs=EXACT)
    # -(log 0.8 + log 0.6 + log 0.25) / 3
    assert log_loss(labels, yes) == pytest.approx(-(math.log(0.8) + math.log(0.6) + math.log(0.25)) / 3, abs=EXACT)


def test_a_certain_mistake_costs_a_finite_loss() -> None:
    assert row_losses(numpy.array([1]), numpy.array([0.0]))[0] == pytest.approx(-math.log(1e-7), abs=1e-9)


def test_distances_of_one_row_by_hand() -> None:
    p, q = numpy.array([0.75]), numpy.array([0.25])
    # KL(p||q) = 0.75 log 3 + 0.25 log 1/3 = 0.5 log 3, and the other way the same
    assert half_jeffreys(p, q) == pytest.approx(0.5 * math.log(3), abs=EXACT)
    # mixture (0.5, 0.5): KL = 0.75 log 1.5 + 0.25 log 0.5, both ways the same
    assert jensen_shannon(p, q) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=EXACT)
    # sqrt(0.5^2 + 0.5^2)
    assert l2_distance(p, q) == pytest.approx(math.sqrt(0.5), abs=EXACT)


@given(PAIRS)
def test_distances_agree_with_their_definitions(pairs: list[tuple[float, float]]) -> None:
    p, q = numpy.array([a for a, _ in pairs]), numpy.array([b for _, b in pairs])
    middle = [(a + b) / 2 for a, b in pairs]
    js = sum(slow_kl(a, m) + slow_kl(b, m) for (a, b), m in zip(pairs, middle, strict=True)) / 2 / len(pairs)
    hj = sum(slow_kl(a, b) + slow_kl(b, a) for a, b in pairs) / 2 / len(pairs)
    l2 = sum(math.sqrt((a - b) ** 2 + ((1 - a) - (1 - b)) ** 2) for a, b in pairs) / len(pairs)
    assert jensen_shannon(p, q) == pytest.approx(js, abs=1e-9)
    assert half_jeffreys(p, q) == pytest.approx(hj, abs=1e-9)
    assert l2_distance(p, q) == pytest.approx(l2, abs=1e-9)
    assert 0 <= jensen_shannon(p, q) <= math.log(2) + 1e-12
    # The reference's quantity is about four times the true one when both are close; never below it.
    assert half_jeffreys(p, q) >= jensen_shannon(p, q) - 1e-12


def test_close_distributions_differ_by_a_factor_of_four_between_the_two_divergences() -> None:
    p, q = numpy.array([0.5]), numpy.array([0.51])
    assert half_jeffreys(p, q) / jensen_shannon(p, q) == pytest.approx(4.0, rel=1e-3)


def test_residual_is_one_for_doing_nothing_and_zero_for_retrain() -> None:
    original, retrained = numpy.array([0.9, 0.2]), numpy.array([0.4, 0.3])
    assert residual(original, retrained, original) == 1.0
    assert residual(retrained, retrained, original) == 0.0
    # |0.6-0.4| + |0.2-0.3| = 0.3 over |0.9-0.4| + |0.2-0.3| = 0.6
    assert residual(numpy.array([0.6, 0.2]), retrained, original) == pytest.approx(0.5, abs=EXACT)
    assert residual(original, original, original) is None


def test_the_loss_attack_ranks_by_smaller_loss() -> None:
    # losses: forgotten -log 0.9, -log 0.7; unseen -log 0.8, -log 0.6. Smaller first: 0.9>0.8, 0.9>0.6, 0.7<0.8, 0.7>0.6 -> 3 of 4
    forgotten, unseen = numpy.array([0.9, 0.3]), numpy.array([0.8, 0.4])
    found = loss_attack(numpy.array([1, 0]), forgotten, numpy.array([1, 0]), unseen)
    assert found == pytest.approx(0.75, abs=EXACT)
    assert loss_attack(numpy.array([1, 0]), forgotten, numpy.array([], dtype=int), numpy.array([])) is None


def scored(labels: list[int], **yes: list[float]) -> Scored:
    return Scored(numpy.arange(len(labels)), numpy.array(labels), {name: numpy.array(values) for name, values in yes.items()})


GROUPS = {
    "test": scored([1, 0], original=[0.9, 0.1], retrain=[0.6, 0.7], e2urec=[0.8, 0.2], retrain_1=[0.7, 0.4]),
    "forgotten": scored([1, 0, 1], original=[0.9, 0.1, 0.8], retrain=[0.5, 0.5, 0.4], e2urec=[0.6, 0.4, 0.5], retrain_1=[0.5, 0.6, 0.4]),
    "holdout": scored([1, 0], original=[0.7, 0.3], retrain=[0.5, 0.5], e2urec=[0.6, 0.4], retrain_1=[0.5, 0.5]),
    "forgotten_test": scored([1, 0], original=[0.9, 0.1], retrain=[0.2, 0.6], e2urec=[0.6, 0.5], retrain_1=[0.3, 0.5]),
}


def test_a_row_of_the_report_takes_each_number_from_its_own_group() -> None:
    row = measure(GROUPS, "e2urec")
    assert row["auc"] == 1.0
    assert row["log_loss"] == pytest.approx(-math.log(0.8), abs=EXACT)
    # forgotten: liked 0.6, 0.5 against disliked 0.4
    assert row["forget_auc"] == 1.0
    # |0.1| * 3 over 0.4 + 0.4 + 0.4
    assert row["residual"] == pytest.approx(0.25, abs=EXACT)
    assert row["l2"] == pytest.approx(0.1 * math.sqrt(2), abs=EXACT)
    # right-answer p: forgotten 0.6, 0.6, 0.5; unseen 0.6, 0.6: ties count a half -> (4 * 0.5 + 0) / 6
    assert row["attack_auc"] == pytest.approx(1 / 3, abs=1e-9)
    assert measure_apart(GROUPS, "retrain") == {
        "num_rows": 2,
        "auc": 0.0,
        "accuracy": 0.0,
        "log_loss": pytest.approx(-(math.log(0.2) + math.log(0.4)) / 2),
    }


def test_the_seed_floor_spans_all_retrains_but_measures_distances_to_the_paired_one() -> None:
    floor = seed_floor(GROUPS, ["retrain_1"])
    assert floor is not None
    # auc: retrain ranks 0.6 below 0.7 -> 0; retrain_1 ranks 0.7 above 0.4 -> 1
    assert floor.auc is not None
    assert (floor.auc.low, floor.auc.high, floor.auc.mean) == (0.0, 1.0, 0.5)
    assert floor.l2 is not None
    # only the second row differs, by 0.1
    assert floor.l2.mean == pytest.approx(0.1 * math.sqrt(2) / 3, abs=EXACT)
    assert seed_floor(GROUPS, []) is None


def test_the_histogram_counts_every_forgotten_row_once() -> None:
    counts = histogram(GROUPS, ["original", "retrain"]).series
    assert {name: sum(bins) for name, bins in counts.items()} == {"original": 3, "retrain": 3}
