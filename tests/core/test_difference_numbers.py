"""Two versions compared: measures, intervals, who moved most, order and turned answers, on rows that can be reckoned by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from e2urec_core.errors import BadInput
from e2urec_core.evaluation import Scored
from e2urec_core.metrics.calibration import bins_of, calibration_curve, calibration_error
from e2urec_core.report.difference import DifferenceDocument, DifferenceRule, Gate
from e2urec_core.report.difference.compute import changes, differences_drawn, histogram
from e2urec_core.report.difference.schema import Changes, Measure
from tests.two_versions import RULE, TITLES, compared, facts, many_rows, rows

# Two users; version B turns the second row to Yes and the fourth to No.
FOUR = rows([1, 1, 0, 1], [0.9, 0.4, 0.2, 0.8], [0.9, 0.6, 0.4, 0.3], [7, 7, 8, 8])


def measure(told: Changes, name: str) -> Measure:
    return next(each for each in told.measures if each.name == name)


def test_measures_of_four_rows_are_those_of_hand_arithmetic() -> None:
    told = compared(FOUR, DifferenceRule(num_draws=50, num_bins=2)).test
    # A ranks 0.2 below 0.9, 0.4, 0.8: 3 of 3 pairs. B ranks 0.4 below 0.9 and 0.6, above 0.3: 2 of 3.
    assert (measure(told, "auc").a, measure(told, "auc").b) == (1.0, pytest.approx(2 / 3))
    # A errs on 0.4, B on 0.3.
    assert (measure(told, "accuracy").a, measure(told, "accuracy").b, measure(told, "accuracy").difference) == (0.75, 0.75, 0)
    losses = [-numpy.log([0.9, 0.4, 0.8, 0.8]).mean(), -numpy.log([0.9, 0.6, 0.6, 0.3]).mean()]
    assert [measure(told, "log_loss").a, measure(told, "log_loss").b] == pytest.approx(losses)
    assert measure(told, "log_loss").difference == pytest.approx(losses[1] - losses[0])
    # (0.9 + 0.4 + 0.2 + 0.8) / 4 = 0.575; (0.9 + 0.6 + 0.4 + 0.3) / 4 = 0.55.
    assert measure(told, "mean_yes").difference == pytest.approx(-0.025)
    # A: bins (0.2, 0.4) and (0.8, 0.9): (|0.3 - 0.5| + |0.85 - 1|) / 2 = 0.175. B: (0.3, 0.4), (0.6, 0.9): (0.15 + 0.25) / 2 = 0.2.
    assert [measure(told, "calibration_error").a, measure(told, "calibration_error").b] == pytest.approx([0.175, 0.2])


def test_changes_of_four_rows_are_counted() -> None:
    told = compared(FOUR).test
    assert (told.num_rows, told.num_users, told.num_equal, told.num_to_yes, told.num_to_no) == (4, 2, 1, 1, 1)
    # |0|, |0.2|, |0.2|, |-0.5|
    assert (told.mean_absolute, told.largest) == (pytest.approx(0.9 / 4), pytest.approx(0.5))
    assert sum(told.histogram.counts) == 4


def test_draws_of_users_that_are_all_drawn_once_give_the_difference_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = many_rows()
    num_users = len(numpy.unique(whole.users))
    monkeypatch.setattr("e2urec_core.report.difference.compute._draws", lambda *_: iter([numpy.ones((1, num_users))]))
    drawn = differences_drawn(whole.scored, whole.users, RULE, "test")
    told = changes(whole.scored, whole.users, RULE, group="test")
    assert {each.name: each.difference for each in told.measures} == {name: pytest.approx(values[0]) for name, values in drawn.items()}


def test_draws_are_the_same_however_many_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = many_rows()
    at_once = differences_drawn(whole.scored, whole.users, RULE, "test")
    monkeypatch.setattr("e2urec_core.report.difference.compute.CELLS_AT_A_TIME", 7 * len(whole.users))
    for name, values in differences_drawn(whole.scored, whole.users, RULE, "test").items():
        assert numpy.allclose(values, at_once[name], rtol=0, atol=1e-12)


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    # Every user's rows move together, by 0.05 in the mean over users: drawing rows would cover it in far fewer than 95 of 100.
    covered, rule = 0, DifferenceRule(num_draws=200)
    for number in range(100):
        random = numpy.random.default_rng(number)
        users = numpy.repeat(numpy.arange(40), 6)
        a = random.uniform(0.3, 0.5, len(users))
        b = a + (0.05 + random.normal(0, 0.05, 40))[users]
        scored = Scored(numpy.arange(len(users)), random.integers(0, 2, len(users)), {"a": a, "b": b})
        told = measure(changes(scored, users, rule, group="test"), "mean_yes")
        assert told.low is not None
        assert told.high is not None
        covered += told.low <= 0.05 <= told.high
    assert 87 <= covered <= 100


@pytest.mark.parametrize(("shift", "verdicts"), [(2.0, ("better", "higher")), (-2.0, ("worse", "lower"))])
def test_a_clear_difference_is_better_or_worse_on_test_rows_and_higher_or_lower_on_forgotten_ones(
    shift: float, verdicts: tuple[str, str]
) -> None:
    whole = many_rows().scored
    margin = numpy.log(whole.yes["a"] / (1 - whole.yes["a"])) + shift * (whole.labels - 0.5)
    scored = dataclasses.replace(whole, yes={"a": whole.yes["a"], "b": 1 / (1 + numpy.exp(-margin))})
    for group, verdict in zip(("test", "forgotten"), verdicts, strict=True):
        told = changes(scored, many_rows().users, RULE, group=group)
        assert measure(told, "auc").verdict == verdict
    assert measure(changes(scored, many_rows().users, RULE, group="test"), "log_loss").verdict == verdicts[0]


def test_noise_is_not_told_apart() -> None:
    told = compared(many_rows(noise=0.02)).test
    assert measure(told, "auc").verdict == "not told apart"


def test_equal_versions_are_equal_in_every_measure() -> None:
    same = many_rows(noise=0)
    told = compared(same)
    assert told.test.num_equal == told.test.num_rows == 300
    assert {(each.difference, each.low, each.high, each.verdict) for each in told.test.measures} == {(0, 0, 0, "equal")}
    assert told.users.most == []
    assert told.items.most == []
    assert (told.ranks.median_tau, told.ranks.share_unchanged, told.ranks.share_same_first) == (1, 1, 1)
    assert told.calibration_a == told.calibration_b


@pytest.mark.parametrize(("num_users", "has_interval"), [(4, False), (5, True)])
def test_rows_of_few_users_have_neither_interval_nor_verdict(num_users: int, has_interval: bool) -> None:
    told = compared(many_rows(num_users=num_users), DifferenceRule(num_draws=50, fewest_users=5)).test
    assert {each.low is not None for each in told.measures} == {has_interval}
    assert {each.verdict is not None for each in told.measures} == {has_interval}
    assert None not in {each.difference for each in told.measures}


def test_rows_of_one_label_have_no_auc_and_no_rows_have_no_measure() -> None:
    one_label = compared(rows([1, 1, 1, 1], [0.9, 0.4, 0.2, 0.8], [0.9, 0.6, 0.4, 0.3], [7, 7, 8, 8]))
    assert measure(one_label.test, "auc") == Measure(name="auc")
    assert measure(one_label.test, "log_loss").difference is not None
    empty = compared(rows([], [], [], []), forgotten=rows([], [], [], []))
    for told in (empty.test, empty.forgotten):
        assert told is not None
        assert {(each.a, each.b, each.verdict) for each in told.measures} == {(None, None, None)}
    assert (empty.users.num_all, empty.items.num_all, empty.ranks.num_users, empty.calibration_a.rows) == (0, 0, 0, [])


def test_where_few_draws_have_both_labels_the_auc_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the third draw takes both users, and with them both labels.
    draws = numpy.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    monkeypatch.setattr("e2urec_core.report.difference.compute._draws", lambda *_: iter([draws]))
    told = compared(rows([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1], [0.8, 0.7, 0.3, 0.75], [7, 7, 8, 8])).test
    # B ranks 0.75 above 0.7: 3 of 4 pairs.
    assert measure(told, "auc") == Measure(name="auc", a=1, b=0.75, difference=-0.25)
    assert measure(told, "mean_yes").low is not None


def test_users_and_items_that_moved_most_are_ranked_and_those_with_few_rows_left_out() -> None:
    users = [1, 1, 1, 2, 2, 2, 3, 3]
    b = [0.6, 0.5, 0.5, 0.8, 0.2, 0.5, 1.0, 0.0]
    told = compared(rows([1, 0, 1, 1, 0, 1, 1, 0], [0.5] * 8, b, users, [0, 1, 2, 0, 1, 2, 0, 3]))
    assert [(each.name[-1], each.num_rows) for each in told.users.most] == [("3", 3), ("2", 3)]
    first = told.users.most[0]
    # |0.3|, |-0.3|, 0; before: log 2; after: -(log 0.8 + log 0.8 + log 0.5) / 3
    assert (first.mean_absolute, first.mean_change) == (pytest.approx(0.2), pytest.approx(0, abs=1e-15))
    assert first.log_loss_a == pytest.approx(numpy.log(2))
    assert first.log_loss_b == pytest.approx(-(2 * numpy.log(0.8) + numpy.log(0.5)) / 3)
    assert (told.users.num_all, told.users.num_few) == (3, 1)
    # Item 0: 0.1, 0.3, 0.5; items 1, 2 and 3 have two, two and one rows.
    assert [(each.name, each.num_rows, each.mean_change) for each in told.items.most] == [("Film 0", 3, pytest.approx(0.3))]
    assert (told.items.num_all, told.items.num_few) == (4, 3)


def test_at_most_as_many_as_asked_for_are_listed_and_equals_stand_in_the_order_of_their_names() -> None:
    told = compared(rows([1, 0, 1] * 3, [0.5] * 9, [0.75] * 9, [5] * 3 + [4] * 3 + [6] * 3), DifferenceRule(num_draws=10, most_listed=2))
    assert [each.name[-1] for each in told.users.most] == ["5", "6"]


def test_the_order_of_a_users_items_is_compared_where_there_are_enough() -> None:
    ladder = [0.1, 0.2, 0.3, 0.4, 0.5]
    swapped, reversed_ladder, tied = [0.1, 0.2, 0.3, 0.5, 0.4], ladder[::-1], [0.3] * 5
    users = [1] * 5 + [2] * 5 + [3] * 5 + [4] * 4
    a, b = ladder * 3 + ladder[:4], [*(value / 2 for value in ladder), *swapped, *reversed_ladder, *tied[:4]]
    told = compared(rows([0, 1, 0, 1] * 4 + [0, 1, 0], a, b, users)).ranks
    # One pair of ten swapped: (9 - 1) / 10. Taus 1, 0.8, -1; the user with four rows is left out.
    assert told.num_users == 3
    assert told.median_tau == pytest.approx(0.8)
    assert told.share_unchanged == pytest.approx(1 / 3)
    assert told.share_same_first == pytest.approx(1 / 3)
    one_tied = compared(rows([0, 1, 0, 1, 0], ladder, tied, [1] * 5)).ranks
    assert (one_tied.median_tau, one_tied.num_undefined, one_tied.share_unchanged, one_tied.share_same_first) == (None, 1, 0, 1)
    both_tied = compared(rows([0, 1, 0, 1, 0], tied, [0.4] * 5, [1] * 5)).ranks
    assert (both_tied.median_tau, both_tied.num_undefined, both_tied.share_unchanged) == (1, 0, 1)


def test_turned_answers_are_counted_for_active_and_inactive_users() -> None:
    users = [1, 2, 3, 3, 3]
    a, b = [0.4, 0.6, 0.5, 0.49, 0.1], [0.5, 0.4, 0.6, 0.5, 0.4]
    by_test_rows = compared(rows([1, 0, 1, 0, 1], a, b, users))
    told = {each.users: (each.num_users, each.num_rows, each.num_to_yes, each.num_to_no) for each in by_test_rows.flips}
    # p = 0.5 counts as Yes: rows 0 and 3 turn to Yes, row 1 to No.
    assert told == {"all": (3, 5, 2, 1), "active": (1, 3, 1, 0), "inactive": (2, 2, 1, 1)}
    assert by_test_rows.activity == "test rows"
    by_training = compared(rows([1, 0, 1, 0, 1], a, b, users, activity=numpy.array([9, 4, 2, 2, 2])))
    assert [(each.users, each.num_rows, each.num_to_yes) for each in by_training.flips] == [
        ("all", 5, 2),
        ("active", 1, 1),
        ("inactive", 4, 1),
    ]
    assert by_training.activity == "training rows"


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60), st.integers(1, 12))
def test_calibration_bins_hold_every_row_once_and_equal_scores_together(told: list[tuple[int, float]], num_bins: int) -> None:
    labels, yes = numpy.array([label for label, _ in told]), numpy.array([p for _, p in told])
    curve, place = calibration_curve(labels, yes, num_bins), bins_of(yes, num_bins)
    assert curve.rows.sum() == len(told)
    assert curve.rows.min() >= 1
    assert len(curve.rows) <= num_bins
    assert all(len(set(place[yes == p])) == 1 for p in yes)
    assert numpy.all(numpy.diff(place[numpy.argsort(yes, kind="stable")]) >= 0)
    assert curve.rows @ curve.liked == pytest.approx(labels.sum())
    error = calibration_error(labels, yes, num_bins)
    assert error is not None
    assert abs(yes.mean() - labels.mean()) - 1e-12 <= error <= 1 + 1e-12


def test_bins_of_the_calibration_are_of_equal_mass() -> None:
    yes = numpy.random.default_rng(0).random(1000) ** 3
    assert calibration_curve(numpy.ones(1000, dtype=int), yes).rows.tolist() == [100] * 10


@pytest.mark.parametrize(("reach", "width"), [(0.0, 0.001), (0.004, 0.001), (0.03, 0.005), (0.6, 0.1), (1.0, 0.1)])
def test_the_histogram_reaches_as_far_as_nearly_all_rows_and_holds_all(reach: float, width: float) -> None:
    told = histogram(numpy.linspace(-reach, reach, 1001))
    assert sum(told.counts) == 1001
    assert told.edges[11] - told.edges[10] == pytest.approx(width)
    assert (told.edges[0], told.edges[-1]) == (-1, 1)
    assert told.edges[10] == pytest.approx(-width / 2)


def test_what_moved_farther_stands_in_the_outermost_bars() -> None:
    told = histogram(numpy.array([0.004] * 500 + [0.9, -0.8, -1.0]))
    assert (told.counts[0], told.counts[-1], len(told.counts)) == (2, 1, 21)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"yes_a": [0.9, numpy.nan, 0.2, 0.8]}, "1 p\\(Yes\\) of a outside 0 to 1", id="nan"),
        pytest.param({"yes_b": [0.9, 0.1, 1.2, -0.1]}, "2 p\\(Yes\\) of b outside 0 to 1", id="no probability"),
        pytest.param({"yes_b": [0.9]}, "columns of other lengths", id="other rows"),
        pytest.param({"labels": [0, 1, 2, 1]}, "1 labels other than 0 and 1", id="labels"),
        pytest.param({"example_ids": [1, 2, 2, 3]}, "1 rows that come twice", id="twice"),
        pytest.param({"items": [0, 1, -1, 40]}, "2 items outside a table of 40", id="items"),
        pytest.param({"pseudonyms": ["user-1"] * 4}, "4 pseudonyms that are not 20 hex digits", id="a name"),
        pytest.param({"pseudonyms": [f"{at:020x}" for at in range(4)]}, "2 users of two pseudonyms", id="two pseudonyms"),
    ],
)
def test_rows_that_do_not_fit_are_refused_without_a_users_number(changed: dict[str, Any], said: str) -> None:
    scored = FOUR.scored
    yes = {name: numpy.array(changed.pop(f"yes_{name}", scored.yes[name])) for name in ("a", "b")}
    columns = {name: numpy.array(changed.pop(name, getattr(scored, name))) for name in ("example_ids", "labels")}
    changed = {name: numpy.array(value) if name == "items" else value for name, value in changed.items()}
    with pytest.raises(BadInput, match=said):
        compared(dataclasses.replace(FOUR, scored=Scored(columns["example_ids"], columns["labels"], yes), **changed))


def test_forgotten_rows_are_checked_too() -> None:
    with pytest.raises(BadInput, match="the 4 forgotten rows"):
        compared(forgotten=dataclasses.replace(FOUR, items=numpy.array([0, 1, 2, 99])))


def test_a_document_comes_back_from_json_and_refuses_nan_and_names() -> None:
    told = compared(forgotten=many_rows(1))
    text = told.to_json()
    assert DifferenceDocument.from_json(text) == told
    assert DifferenceDocument.from_json(text).to_json() == text
    with pytest.raises(ValidationError):
        DifferenceDocument.from_json(text.replace('"num_forgotten_requests": 3', '"num_forgotten_requests": NaN'))
    with pytest.raises(ValidationError, match="pattern"):
        DifferenceDocument.from_json(text.replace(told.users.most[0].name, "alice"))
    with pytest.raises(ValidationError, match="two rows"):
        facts(3, gates=[Gate(name="auc", passed=True)] * 2)


def test_the_seed_decides_the_intervals_and_nothing_else() -> None:
    one, again, other = (compared(rule=DifferenceRule(num_draws=50, seed=seed)) for seed in (0, 0, 1))
    assert one == again
    assert [each.difference for each in one.test.measures] == [each.difference for each in other.test.measures]
    assert [each.low for each in one.test.measures] != [each.low for each in other.test.measures]
    assert len(TITLES) >= one.items.num_all
