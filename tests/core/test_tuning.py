"""Tries of knobs: as many for every method, inside the bounds, and a choice that sees validation rows and the tuning seed alone."""

from __future__ import annotations

import pytest

from e2urec_core.methods.base import Method
from e2urec_core.methods.do_nothing import DoNothing
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.methods.undial import Undial
from e2urec_core.plugins import kinds, load
from e2urec_core.settings import Training
from e2urec_core.tuning import Tried, TuningRule, chosen, knobs_of, tries

RULE = TuningRule(budget=4, lost_auc=0.01)


@pytest.mark.parametrize("kind", kinds(Method.package))
def test_every_method_is_given_the_same_number_of_tries_and_its_own_settings_first(kind: str) -> None:
    method: Method = load(Method.package, kind)()
    given = tries(method, RULE)
    assert given[0] == method
    assert len(given) == (4 if method.tuned else 1)
    assert len({each.model_dump_json() for each in given}) == len(given)
    assert [each.model_dump(exclude=set()) for each in tries(method, RULE)] == [each.model_dump() for each in given]


@pytest.mark.parametrize("kind", kinds(Method.package))
def test_tries_differ_in_the_tuned_knobs_alone_and_by_no_more_than_the_reach(kind: str) -> None:
    method: Method = load(Method.package, kind)()
    for each in tries(method, TuningRule(budget=16, reach=3.0)):
        first, moved = knobs_of(method), knobs_of(each)
        assert all(1 / 3.001 <= moved[name] / first[name] <= 3.001 for name in first if first[name] < 0.3)
        told, own = each.canonical(), method.canonical()
        for name in method.tuned:
            *above, last = name.split(".")
            for document in (told, own):
                place = document
                for step in above:
                    place = place[step]
                place[last] = None
        assert told == own


def test_the_tries_are_spread_over_both_knobs() -> None:
    given = tries(E2URec(suppression=10), TuningRule(budget=33))[1:]
    for low in (True, False):
        for slow in (True, False):
            assert sum((each.suppression < 10) == low and (each.training.learning_rate < 1e-3) == slow for each in given) >= 5


def test_a_knob_stays_inside_its_bounds() -> None:
    given = tries(Undial(strength=900, training=Training(learning_rate=0.9)), TuningRule(budget=32, reach=100))
    assert max(each.strength for each in given) == 1000
    assert max(each.training.learning_rate for each in given) == 1


def test_what_has_nothing_to_choose_is_tried_once() -> None:
    assert tries(DoNothing(), TuningRule(budget=9)) == [DoNothing()]


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        pytest.param([Tried(0.5, 0.80), Tried(0.2, 0.80), Tried(0.3, 0.85)], 1, id="nearest to Retrain"),
        pytest.param([Tried(0.5, 0.80), Tried(0.2, 0.78), Tried(0.3, 0.79)], 2, id="nearest of those that keep the utility"),
        pytest.param([Tried(0.1, 0.70), Tried(0.2, 0.78)], 1, id="the most useful where none keeps it"),
        pytest.param([Tried(fault="diverged"), Tried(0.9, 0.80)], 1, id="a failed try is none"),
        pytest.param([Tried(fault="diverged")], None, id="all failed"),
        pytest.param([Tried(0.2, 0.8), Tried(0.2, 0.8)], 0, id="the first of equals"),
    ],
)
def test_the_choice(tried: list[Tried], expected: int | None) -> None:
    assert chosen(tried, 0.80, RULE) == expected
