"""Every gate on made-up scores: passed, refused, without a value, without rows; and all of them on whom they must not confuse."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from made_up_scores import World, without

from e2urec_core.release.evidence import FORGOTTEN, STRANGERS, TEST, Evidence
from e2urec_core.release.forgetting import retrain_gates, stranger_gates
from e2urec_core.release.gates import ContractGates, ForgettingGates, Gates, Handed, UtilityGates
from e2urec_core.release.utility import utility_gates
from e2urec_core.release.verdict import Gate, Power
from e2urec_core.seeding import numpy_generator

BESIDE_THE_CHAMPION = ["auc", "log_loss", "calibration", "auc_active", "auc_inactive"]


@pytest.fixture(scope="module")
def world() -> World:
    return World(0)


def useful(evidence: Evidence, **bounds: Any) -> dict[str, Gate]:
    told = utility_gates(evidence, UtilityGates(**bounds), numpy_generator(0, "utility"))
    assert [gate.name for gate in told] == [*BESIDE_THE_CHAMPION, "least_auc"]
    return {gate.name: gate for gate in told[:-1]}


def test_a_model_below_the_least_auc_is_refused_whatever_the_champion_is(world: World) -> None:
    evidence = world.evidence(candidate=world.remembers())
    value = utility_gates(evidence, UtilityGates(), numpy_generator(0, "utility"))[-1].value
    assert value is not None
    for least, passed in ((value, True), (value + 1e-9, False)):
        gate = utility_gates(evidence, UtilityGates(least_auc=least), numpy_generator(0, "utility"))[-1]
        assert (gate.name, gate.passed, gate.low) == ("least_auc", passed, least)
    for lost in (without(evidence, TEST, "candidate"), without(evidence, TEST)):
        assert utility_gates(lost, UtilityGates(least_auc=0), numpy_generator(0, "utility"))[-1].passed is False
    alone = world.evidence(candidate=world.remembers(), champion=None)
    assert utility_gates(alone, UtilityGates(), numpy_generator(0, "utility"))[-1].passed


def near(evidence: Evidence, **bounds: Any) -> tuple[dict[str, Gate], dict[str, Power]]:
    gates, power = retrain_gates(evidence, ForgettingGates(**bounds))
    return {gate.name: gate for gate in gates}, {each.gate: each for each in power}


def strange(evidence: Evidence, **bounds: Any) -> tuple[dict[str, Gate], dict[str, Power]]:
    gates, power = stranger_gates(evidence, ForgettingGates(**bounds), numpy_generator(0, "strangers"))
    assert [gate.name for gate in gates] == ["attack", "user_test"]
    return {gate.name: gate for gate in gates}, {each.gate: each for each in power}


def refusals(evidence: Evidence) -> set[str]:
    """Names of all gates on scores that are not passed."""
    gates = [*useful(evidence).values(), *near(evidence)[0].values(), *strange(evidence)[0].values()]
    return {gate.name for gate in gates if not gate.passed}


def test_a_candidate_that_answers_as_the_champion_loses_nothing(world: World) -> None:
    told = useful(world.evidence(candidate=world.remembers()))
    assert all(gate.passed and gate.value == 0 and gate.margin == gate.high for gate in told.values())
    assert told["auc"].remark.startswith("Within noise: ")


def test_a_candidate_that_answers_anything_fails_every_measure_of_use(world: World) -> None:
    told = useful(world.evidence(candidate=world.destroyed()))
    assert [name for name, gate in told.items() if gate.passed] == []
    assert all(gate.margin is not None and gate.margin < 0 for gate in told.values())
    assert not told["auc"].remark.startswith("Within noise")


def test_being_better_than_the_champion_is_fine(world: World) -> None:
    told = useful(world.evidence(champion=world.destroyed(), candidate=world.retrain()))
    assert all(gate.passed and gate.value is not None and gate.value < 0 for gate in told.values())


def test_answers_that_are_too_sure_fail_the_loss_and_the_calibration_and_not_the_auc(world: World) -> None:
    sure = world.retrain(99)
    odds = numpy.log(sure[TEST] / (1 - sure[TEST]))
    told = useful(world.evidence(candidate={**sure, TEST: 1 / (1 + numpy.exp(-5 * odds))}))
    assert {name for name, gate in told.items() if not gate.passed} == {"log_loss", "calibration"}
    assert told["auc"].value == 0


def test_a_loss_for_inactive_users_alone_is_seen_though_the_whole_hides_it(world: World) -> None:
    evidence = world.evidence(candidate=world.retrain(99))
    inactive = numpy.flatnonzero(numpy.isin(world.users[TEST], evidence.training_users, invert=True))
    spoilt = world.retrain(99)[TEST].copy()
    spoilt[inactive] = numpy_generator(0, "spoilt").permutation(spoilt[inactive])
    told = useful(world.evidence(candidate={**world.retrain(99), TEST: spoilt}), auc_fall=0.5)
    assert not told["auc_inactive"].passed
    assert told["auc_active"].passed
    assert told["auc_active"].value == 0


def test_the_bound_decides_though_the_fall_is_within_noise(world: World) -> None:
    told = useful(world.evidence(candidate=world.retrain(5)), auc_fall=0.0, group_auc_fall=0.0)
    worse = [gate for name, gate in told.items() if name.startswith("auc") and gate.value is not None and gate.value > 0]
    assert worse
    assert all(not gate.passed and gate.remark.startswith("Within noise: ") for gate in worse)


@pytest.mark.parametrize("role", ["candidate", "champion"])
def test_utility_without_scores_of_either_fails_closed_and_says_why(world: World, role: str) -> None:
    told = useful(without(world.evidence(candidate=world.retrain()), TEST, role))
    assert not any(gate.passed for gate in told.values())
    assert told["auc"].value is None
    assert told["auc"].remark == "Nothing could be measured: 1,200 of 1,200 test rows have no score."


def test_one_row_without_a_score_is_enough_to_fail(world: World) -> None:
    scores = world.retrain()
    scores[TEST][-1] = numpy.nan
    told = useful(world.evidence(candidate=scores))
    assert "1 of 1,200" in told["auc"].remark
    assert [name for name, gate in told.items() if not gate.passed] == ["auc", "log_loss", "calibration", "auc_active"]


def test_utility_without_rows_or_without_a_champion_fails_closed(world: World) -> None:
    empty = useful(without(world.evidence(candidate=world.retrain()), TEST))
    assert {gate.remark for gate in empty.values()} == {"Nothing could be measured: there are no such test rows."}
    alone = useful(world.evidence(candidate=world.retrain(), champion=None))
    assert {gate.remark for gate in alone.values()} == {"Nothing could be measured: no champion was scored."}
    assert not any(gate.passed for gate in (*empty.values(), *alone.values()))


def test_an_auc_of_rows_of_one_label_fails_closed() -> None:
    world = World(3)
    world.labels[TEST][:] = 1
    told = useful(world.evidence(candidate=world.remembers()))
    assert {name for name, gate in told.items() if gate.value is None} == {"auc", "auc_active", "auc_inactive"}
    assert told["auc"].remark == "Nothing could be measured: all rows have one label."
    assert told["log_loss"].passed


def test_without_a_retrain_nothing_is_held_against_one(world: World) -> None:
    assert near(world.evidence(candidate=world.retrain())) == ({}, {})


def test_retrain_lies_at_0_and_doing_nothing_at_1(world: World) -> None:
    told, _ = near(world.evidence(candidate=world.retrain(), retrain=world.retrain()))
    assert [(gate.value, gate.passed) for gate in told.values()] == [(0, True), (0, True)]
    told, power = near(world.evidence(candidate=world.remembers(), retrain=world.retrain()))
    assert told["residual"].value == 1
    assert not any(gate.passed for gate in told.values())
    assert all(each.refused and not each.blind for each in power.values())


def test_retrains_of_other_seeds_widen_the_bound_by_the_slack(world: World) -> None:
    more = {f"further_{number}": world.retrain(number) for number in (1, 2)}
    tight = near(world.evidence(candidate=world.retrain(3), retrain=world.retrain()), residual=0.1)[0]["residual"]
    wide = near(world.evidence(candidate=world.retrain(3), retrain=world.retrain(), **more), residual=0.1)[0]["residual"]
    assert (tight.high, tight.passed) == (0.1, False)
    apart = max(near(world.evidence(candidate=told, retrain=world.retrain()))[0]["residual"].value or 0 for told in more.values())
    assert wide.high == pytest.approx(1.5 * apart)
    assert wide.passed


def test_where_retrains_lie_as_far_apart_as_the_champion_the_gate_is_blind(world: World) -> None:
    far = {"further_1": world.destroyed()}
    for blind, passed in (("pass", True), ("refuse", False)):
        told, power = near(world.evidence(candidate=world.retrain(3), retrain=world.retrain(), **far), blind=blind)
        assert power["residual"].blind
        assert "is blind" in told["residual"].remark
        assert (told["residual"].passed, told["residual"].margin is not None and told["residual"].margin > 0) == (passed, True)


def test_where_the_champion_is_retrain_no_residual_can_be_measured(world: World) -> None:
    told, _ = near(world.evidence(champion=world.retrain(), candidate=world.retrain(1), retrain=world.retrain()))
    assert (told["residual"].value, told["residual"].passed) == (None, False)
    assert "answers as Retrain does" in told["residual"].remark


@pytest.mark.parametrize("role", ["candidate", "champion", "retrain", "further_1"])
def test_distances_without_scores_fail_closed(world: World, role: str) -> None:
    evidence = world.evidence(candidate=world.retrain(2), retrain=world.retrain(), further_1=world.retrain(1))
    told, power = near(without(evidence, FORGOTTEN, role))
    assert not any(gate.passed for gate in told.values())
    assert "450 of 450 forgotten rows have no score" in told["residual"].remark
    assert all(each.blind for each in power.values())


@pytest.mark.parametrize("pull", [1.5, -1.5], ids=["remembers", "forgot too much"])
def test_strangers_tell_a_memory_and_its_reverse(world: World, pull: float) -> None:
    told, power = strange(world.evidence(candidate=world.remembers(pull)))
    assert not any(gate.passed for gate in told.values())
    assert (told["attack"].value or 0) > 0.5 if pull > 0 else (told["attack"].value or 1) < 0.5
    assert power["user_test"].refused_share == 1
    assert "would refuse the unmodified champion with chance 1.00" in told["user_test"].remark


def test_who_never_saw_them_passes_beside_a_champion_who_did(world: World) -> None:
    told, power = strange(world.evidence(candidate=world.retrain()))
    assert all(gate.passed and not gate.blind for gate in told.values())
    assert [each.gate for each in power.values()] == ["attack", "user_test", "forgetting_without_retrain"]
    assert all(each.refused for each in power.values())


@pytest.mark.parametrize(("blind", "verdict"), [("pass", "blind, passed"), ("refuse", "REFUSED, blind")])
def test_one_forgotten_user_gives_no_sight_and_the_rule_says_what_then(blind: str, verdict: str) -> None:
    world = World(1, forgotten=1, holdout=12)
    told, power = strange(world.evidence(candidate=world.remembers()), blind=blind)
    assert power["user_test"].refused_share == 0
    assert {gate.verdict for gate in told.values()} == {verdict}
    assert all(gate.remark.endswith(": blind.") for gate in told.values())


@pytest.mark.parametrize("group", [FORGOTTEN, STRANGERS])
@pytest.mark.parametrize("role", [None, "candidate"])
def test_without_strangers_or_scores_the_tests_fail_closed(world: World, group: str, role: str | None) -> None:
    told, power = strange(without(world.evidence(candidate=world.retrain()), group, role))
    assert [(gate.value, gate.passed) for gate in told.values()] == [(None, False), (None, False)]
    assert told["attack"].remark.startswith("Nothing could be measured: ")
    assert all(each.blind and each.refused_share is None for each in power.values())


def test_without_a_champion_the_tests_still_decide_and_own_to_be_blind(world: World) -> None:
    told, power = strange(world.evidence(candidate=world.remembers(), champion=None))
    assert not any(gate.passed for gate in told.values())
    assert all(each.blind for each in power.values())


def test_the_same_seed_gives_the_same_verdict(world: World) -> None:
    evidence = world.evidence(candidate=world.retrain(4))
    assert strange(evidence) == strange(evidence)


@pytest.mark.parametrize("seed", range(12))
def test_the_gates_refuse_who_did_nothing_and_who_was_destroyed_and_accept_an_exact_retrain(seed: int) -> None:
    world = World(seed)
    beside = {"retrain": world.retrain(), "further_1": world.retrain(1), "further_2": world.retrain(2)}
    nothing, destroyed = (refusals(world.evidence(candidate=told, **beside)) for told in (world.remembers(), world.destroyed()))
    assert {"residual", "forget_auc", "attack", "user_test"} <= nothing
    assert not nothing & set(BESIDE_THE_CHAMPION)
    assert set(BESIDE_THE_CHAMPION) <= destroyed
    assert refusals(world.evidence(candidate=world.retrain(), **beside)) == set()
    alone = {"retrain": world.retrain(1), "further_1": world.retrain(), "further_2": world.retrain(2)}
    assert refusals(world.evidence(candidate=world.retrain(3), **alone)) == set()


def test_every_bound_can_be_read_back_from_plain_values() -> None:
    changed = Gates(utility=UtilityGates(auc_fall=0.01), contracts=ContractGates(quarantined_share=0.5))
    assert Gates.model_validate(changed.canonical()) == changed
    assert Handed.model_validate(Handed(candidate="a" * 64).canonical()).damaged is None
