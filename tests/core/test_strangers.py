"""Tests against strangers: exact where everything can be counted, two-sided, and blind to the order of rows."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2urec_core.audit.strangers import People, attack_auc, band, draw_splits, examine, loss_gap, p_values
from e2urec_core.metrics.forgetting import loss_attack
from e2urec_core.metrics.utility import auc
from e2urec_core.seeding import numpy_generator

# Sums of a few dozen float64 terms.
EXACT = 1e-12
LOSSES = st.lists(st.lists(st.sampled_from([0.1, 0.4, 0.4001, 0.9, 2.5]), min_size=1, max_size=4), min_size=2, max_size=7)


def random(purpose: str = "test") -> numpy.random.Generator:
    return numpy_generator(0, purpose)


def people_of(losses: list[list[float]], num_forgotten: int) -> People:
    """People whose rows have these losses."""
    place = numpy.repeat(numpy.arange(len(losses)), [len(own) for own in losses])
    flat = numpy.concatenate([numpy.asarray(own, float) for own in losses])
    forgotten = place < num_forgotten
    return People.of(place[forgotten], flat[forgotten], place[~forgotten], flat[~forgotten])


def drawn_people(num_forgotten: int, num_strangers: int, shift: float, purpose: str) -> People:
    """Twenty rows a user; the forgotten users' losses are moved by `shift` nats."""
    generator = random(purpose)
    users = numpy.repeat(numpy.arange(num_forgotten + num_strangers), 20)
    losses = generator.exponential(0.6, len(users)) + generator.normal(0.5, 0.1, num_forgotten + num_strangers)[users]
    forgotten = users < num_forgotten
    return People.of(users[forgotten], losses[forgotten] + shift, users[~forgotten], losses[~forgotten])


@given(LOSSES, st.integers(1, 6))
def test_few_users_are_split_in_every_way_there_is_and_nothing_is_drawn(losses: list[list[float]], size: int) -> None:
    size = min(size, len(losses) - 1)
    people = people_of(losses, size)
    splits = draw_splits(people, 2000, random())
    assert [tuple(numpy.flatnonzero(split)) for split in splits] == list(combinations(range(len(losses)), size))
    assert numpy.array_equal(splits, draw_splits(people, 2000, random("other")))


@given(LOSSES, st.integers(1, 6))
def test_gap_and_attack_of_every_split_are_those_of_a_slow_count(losses: list[list[float]], size: int) -> None:
    size = min(size, len(losses) - 1)
    people = people_of(losses, size)
    splits = draw_splits(people, 2000, random())
    gaps = loss_gap(splits, people.means)
    attacks = attack_auc(splits, people.rank_sums(numpy.ones(people.num_people)), people.counts)
    for split, gap, attack in zip(splits, gaps, attacks, strict=True):
        inside, outside = ([losses[user] for user in numpy.flatnonzero(which)] for which in (split, ~split))
        assert gap == pytest.approx(numpy.mean([numpy.mean(own) for own in inside]) - numpy.mean([numpy.mean(own) for own in outside]))
        rows = numpy.concatenate([*inside, *outside])
        member = numpy.arange(len(rows)) < sum(map(len, inside))
        assert attack == pytest.approx(auc(member, -rows), abs=EXACT)


def test_the_attack_on_the_true_split_is_the_measure_of_the_report() -> None:
    generator = random()
    labels, yes = generator.integers(0, 2, 60), generator.uniform(0.01, 0.99, 60)
    losses, users = -numpy.log(numpy.where(labels == 1, yes, 1 - yes)), numpy.arange(60) // 6
    people = People.of(users[:24], losses[:24], users[24:], losses[24:])
    told = examine(people, draw_splits(people, 2000, random()), people.as_they_are(), 0.01, 0.0)
    assert told.attack.item() == pytest.approx(loss_attack(labels[:24], yes[:24], labels[24:], yes[24:]), abs=EXACT)


@given(LOSSES, st.integers(1, 6))
def test_under_exchangeable_users_a_p_value_is_small_no_more_often_than_it_says(losses: list[list[float]], size: int) -> None:
    # Every split may be the truth, each as likely: of n p-values, at most n * p are as small as p.
    size = min(size, len(losses) - 1)
    means = people_of(losses, size).means
    splits = draw_splits(people_of(losses, size), 2000, random())
    gaps = loss_gap(splits, means)
    told = numpy.array([p_values(numpy.concatenate([gaps[[truth]], numpy.delete(gaps, truth)])) for truth in range(len(gaps))])
    for p in told:
        assert (told <= p + EXACT).mean() <= p + EXACT


@given(st.lists(st.floats(-3, 3), min_size=5, max_size=60, unique=True), st.floats(0.01, 0.5))
def test_of_all_truths_the_band_leaves_at_most_its_level_outside(statistics: list[float], level: float) -> None:
    low, high = band(numpy.array(statistics), level)
    outside = [value for value in statistics if not low <= value <= high]
    assert len(outside) <= level * len(statistics)


def test_drawn_p_values_are_near_those_of_all_splits() -> None:
    people = drawn_people(4, 8, -0.2, "near")
    exact, drawn = (p_values(loss_gap(draw_splits(people, most, random()), people.means)) for most in (495, 494))
    # 12 choose 4 = 495 splits: one draw fewer is allowed, so 494 are drawn; four standard errors of a share of 494 draws.
    assert abs(exact - drawn) <= 4 * (exact * (1 - exact) / 494) ** 0.5
    assert exact != drawn


def test_p_values_of_random_truths_are_uniform_where_splits_are_drawn() -> None:
    generator, users = random("uniform"), numpy.arange(30)
    told = []
    for number in range(300):
        people = People.of(users[:12], generator.exponential(1.0, 12), users[12:], generator.exponential(1.0, 18))
        told.append(p_values(loss_gap(draw_splits(people, 200, random(f"splits-{number}")), people.means)))
    for level in (0.05, 0.2, 0.5, 0.8):
        # Four standard errors of a share of 300.
        assert abs(numpy.mean(numpy.array(told) <= level) - level) <= 4 * (level * (1 - level) / 300) ** 0.5


@pytest.mark.parametrize("shift", [-0.6, 0.6], ids=["remembered", "forgotten too much"])
def test_losses_too_small_and_losses_too_large_are_both_told(shift: float) -> None:
    people = drawn_people(20, 20, shift, "sides")
    told = examine(people, draw_splits(people, 2000, random()), people.as_they_are(), 0.01, 0.02)
    assert told.p_value.item() < 0.01
    assert told.attacked.item()
    assert numpy.sign(told.gap.item()) == numpy.sign(shift)
    assert (told.attack.item() > 0.5) == (shift < 0)


def test_the_same_users_are_not_told_and_a_near_attack_passes_however_narrow_the_band() -> None:
    people = drawn_people(400, 400, -0.02, "same")
    splits = draw_splits(people, 500, random())
    narrow, wide = (examine(people, splits, people.as_they_are(), 0.01, width) for width in (0.0, 0.1))
    assert (wide.low.item(), wide.high.item()) == (0.4, 0.6)
    assert narrow.high.item() < 0.55
    assert not wide.attacked.item()
    assert narrow.p_value.item() > 0.01


def test_neither_the_order_of_rows_nor_the_names_of_users_matter() -> None:
    people = drawn_people(15, 10, -0.1, "order")
    mixed = random("mixed").permutation(len(people.losses))
    forgotten = people.place[mixed] < people.num_forgotten
    users, losses = people.place[mixed], people.losses[mixed]
    other = People.of(users[forgotten] + 1000, losses[forgotten], users[~forgotten] + 5, losses[~forgotten])
    first, second = (
        examine(each, draw_splits(each, 300, random()), each.resampled(5, random("resampled")), 0.05, 0.02) for each in (people, other)
    )
    for field in dataclasses.fields(first):
        assert getattr(second, field.name) == pytest.approx(getattr(first, field.name), abs=EXACT)


def test_an_alarm_is_as_likely_over_draws_of_users_as_it_is_clear() -> None:
    rates = []
    for shift in (0.0, -0.1, -0.4):
        people = drawn_people(20, 20, shift, "power")
        told = examine(people, draw_splits(people, 500, random()), people.resampled(100, random("resampled")), 0.01, 0.02)
        rates.append(float((told.p_value < 0.01).mean()))
    assert rates[0] < 0.2 < rates[2]
    assert rates == sorted(rates)
    assert rates[2] > 0.9


def test_one_forgotten_user_among_few_strangers_can_never_be_told_at_one_in_a_hundred() -> None:
    people = drawn_people(1, 9, -5.0, "one")
    told = examine(people, draw_splits(people, 2000, random()), people.as_they_are(), 0.01, 0.02)
    # Ten splits, of which the truth is the farthest.
    assert told.p_value.item() == 0.1
    assert not told.attacked.item()
