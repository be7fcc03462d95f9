"""Draws, intervals, differences and verdicts of a comparison, on made-up scores whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from e2urec_core.evaluation import Scored, measure
from e2urec_core.report.comparison.compute import JUDGED, Comparison, OneSeed
from e2urec_core.report.comparison.resampling import Weights, draw_users, measure_draws, weighted_auc
from e2urec_core.report.comparison.schema import ComparisonDocument

SIZES = {"test": 600, "forgotten": 300, "holdout": 120, "forgotten_test": 30}
NOISE = {"original": 0.3, "retrain": 0.0, "retrain_1": 0.1, "retrain_2": 0.12, "near": 0.15, "far": 0.4, "far_too": 0.4, "useless": 0.15}
NEVER = numpy.random.default_rng(0)


def a_seed(number: int, noise: Mapping[str, float] = NOISE, memory: float = 1.5) -> OneSeed:
    """Retrain's margin and more noise the worse a model is; the original remembers the answers of forgotten rows."""
    random = numpy.random.default_rng(number)
    groups, users = {}, {}
    for group, size in SIZES.items():
        labels = random.integers(0, 2, size)
        margin = 1.2 * (labels - 0.5) + random.normal(0, 1, size)
        yes = {}
        for model, spread in noise.items():
            own = margin + random.normal(0, spread, size)
            own += memory * (2 * labels - 1) * (model == "original" and group == "forgotten")
            own = random.permutation(own) if model == "useless" and group == "test" else own
            yes[model] = 1 / (1 + numpy.exp(-own))
        groups[group] = Scored(numpy.arange(size), labels, yes)
        users[group] = random.integers(0, size // 10, size)
    return OneSeed(groups, users, ["retrain_1", "retrain_2"] if "retrain_2" in noise else [])


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return Comparison([a_seed(number) for number in range(3)], 400, numpy.random.default_rng(5))


@given(st.data())
def test_the_weighted_auc_is_that_of_scikit_learn(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 30))
    labels = numpy.array(data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    scores = numpy.array(data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]), min_size=size, max_size=size)))
    weights = numpy.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    told = weighted_auc(labels, scores, weights[None, :])[0]
    if min(weights[labels == 0].sum(), weights[labels == 1].sum()) == 0:
        assert numpy.isnan(told)
    else:
        assert told == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))


@pytest.mark.parametrize("model", ["original", "retrain", "far"])
def test_drawing_everybody_once_gives_the_measures_of_a_report(model: str) -> None:
    seed = a_seed(4)
    ones = Weights(**{group: numpy.ones((2, SIZES[group])) for group in ("test", "forgotten", "holdout")})
    drawn = measure_draws(seed.groups, model, ones)
    for name, value in measure(seed.groups, model).items():
        assert drawn[name] == pytest.approx([value, value], abs=1e-12), name


def test_users_are_drawn_whole_and_as_many_as_there_are() -> None:
    users = {group: numpy.array([7, 7, 9, 9, 9, 4]) for group in ("test", "forgotten", "holdout")}
    drawn = draw_users(users, 500, numpy.random.default_rng(0))
    for weights in (drawn.test, drawn.forgotten, drawn.holdout):
        assert bool((weights[:, 0] == weights[:, 1]).all())
        assert bool((weights[:, 2] == weights[:, 4]).all())
        assert bool((weights[:, [0, 2, 5]].sum(axis=1) == 3).all())
        assert weights.mean() == pytest.approx(1, abs=0.1)
    assert not numpy.array_equal(drawn.test, drawn.forgotten)


def test_estimates_hold_the_mean_of_the_seeds_their_error_and_an_interval_around(compared: Comparison) -> None:
    told = compared.estimates("far")
    assert set(told) == {*JUDGED, "forget_auc", "attack_auc"}
    for name, estimate in told.items():
        assert len(estimate.values) == 3
        assert estimate.mean == pytest.approx(numpy.mean(estimate.values))
        assert estimate.error == pytest.approx(numpy.std(estimate.values, ddof=1) / 3**0.5)
        assert estimate.low is not None
        assert estimate.high is not None
        # A gap has no negative values, so its draws lie above a small one.
        assert estimate.low <= estimate.mean <= estimate.high or name.endswith("_gap")
    assert told["residual"].values == [measure(seed.groups, "far")["residual"] for seed in compared.seeds]
    assert compared.estimates("original")["residual"].low == compared.estimates("original")["residual"].high == 1


def test_one_seed_has_no_error_but_an_interval() -> None:
    told = Comparison([a_seed(1)], 100, numpy.random.default_rng(0)).estimates("near")["auc"]
    assert told.error is None
    assert told.low is not None
    assert told.low < told.mean


def test_a_method_that_is_nearer_is_better_and_one_that_is_further_worse(compared: Comparison) -> None:
    told = compared.differences(["near", "original"], "far")
    assert told["near"]["residual"].verdict == "better"
    assert told["near"]["residual"].mean < 0
    assert told["near"]["residual"].high < 0
    assert told["original"]["forget_gap"].verdict == "worse"
    assert told["original"]["jsd"].verdict == "worse"


def test_a_larger_auc_is_better(compared: Comparison) -> None:
    assert compared.differences(["near"], "useless")["near"]["auc"].verdict == "better"
    assert compared.differences(["useless"], "near")["useless"]["auc"].verdict == "worse"


def test_equals_are_never_told_apart(compared: Comparison) -> None:
    told = compared.differences(["far_too"], "far")["far_too"]
    assert {difference.verdict for difference in told.values()} <= {"not told apart", "inside the floor"}
    assert told["residual"].p_value > 0.05


def test_methods_as_near_as_other_retrains_are_inside_the_floor(compared: Comparison) -> None:
    assert compared.floor["residual"].low < compared.floor["residual"].high
    assert compared.differences(["retrain_1"], "retrain_2")["retrain_1"]["residual"].verdict == "inside the floor"
    assert compared.is_noise("residual", 0.0, compared.floor["residual"].high)
    assert not compared.is_noise("residual", 0.0, compared.floor["residual"].high + 0.01)


def test_the_floor_of_a_distance_leaves_the_paired_retrain_out_and_that_of_an_auc_does_not(compared: Comparison) -> None:
    seeds = compared.seeds
    distances = [[measure(seed.groups, f"retrain_{at}")["jsd"] for at in (1, 2)] for seed in seeds]
    assert compared.floor["jsd"].low == pytest.approx(numpy.mean([min(told) for told in distances]))
    aucs = [[measure(seed.groups, model)["auc"] for model in ("retrain", "retrain_1", "retrain_2")] for seed in seeds]
    assert compared.floor["auc"].high == pytest.approx(numpy.mean([max(told) for told in aucs]))


def test_many_methods_raise_the_bar(compared: Comparison) -> None:
    alone = compared.differences(["near"], "far_too")["near"]["auc"]
    among = compared.differences(["near", "retrain_1", "retrain_2", "far", "original"], "far_too")["near"]["auc"]
    assert among.p_value == alone.p_value == alone.adjusted
    assert among.adjusted >= among.p_value


@pytest.mark.parametrize(("memory", "seen"), [(1.5, True), (0.0, False)])
def test_the_power_check_sees_a_memory_and_none(memory: float, seen: bool) -> None:
    quiet = {**NOISE, "original": 0.05}
    power = Comparison([a_seed(number, quiet, memory) for number in range(3)], 10, NEVER).power()
    assert (power.rows, power.groups) == (seen, seen)


def test_without_further_retrains_nothing_is_said_of_noise() -> None:
    few = {name: spread for name, spread in NOISE.items() if not name.startswith("retrain_")}
    compared = Comparison([a_seed(0, few)], 50, NEVER)
    assert compared.floor == {}
    assert compared.power().rows is None
    assert compared.differences(["near"], "far")["near"]["residual"].verdict == "better"


@pytest.mark.parametrize("bad", ["NaN", "Infinity"])
def test_a_comparison_with_a_number_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=bad):
        ComparisonDocument.from_json(f'{{"run": "a", "seeds": [{bad}]}}')
