"""How much of the drift budget is used up, and what an erasure writes down."""

from __future__ import annotations

import pytest

from e2urec_core.deletion.drift import Drift, drift_of
from e2urec_core.deletion.rule import DriftBudget
from e2urec_core.ledger.records import Release


def release(number: int, base: int | None, fall: float | None) -> Release:
    """A release with one gate."""
    name = "{:064x}".format
    return Release(
        bundle=name(number),
        model=name(number + 100),
        kind="Original" if base is None else "Unlearned",
        run="run",
        base=None if base is None else name(base),
        verdict={"gates": [{"name": "auc", "value": fall}]},
        passed=True,
    )


def test_falls_add_up_since_the_last_training_and_users_are_counted_from_it() -> None:
    line = [release(3, 2, 0.002), release(2, 1, -0.001), release(1, None, 0.5)]
    told = drift_of(line, [5, 3, 1], num_users=96)
    assert (told.nights, told.users, told.share) == (2, 4, pytest.approx(0.04))
    assert told.auc_fall == pytest.approx(0.001)


def test_a_night_whose_fall_was_not_measured_adds_nothing() -> None:
    assert drift_of([release(2, 1, None), release(1, None, 0.0)], [1, 0], num_users=9).auc_fall == 0


@pytest.mark.parametrize(
    ("values", "spent"),
    [
        ({}, []),
        ({"share": 0.2}, ["share"]),
        ({"auc_fall": 0.0081}, ["auc_fall"]),
        ({"auc_fall": -1.0}, []),
        ({"distance": 3.1, "share": 0.3}, ["share", "distance"]),
    ],
)
def test_a_part_of_the_budget_is_spent_when_it_is_reached(values: dict[str, float], spent: list[str]) -> None:
    drift = Drift.model_validate({"nights": 1, "users": 1, "share": 0.0, "auc_fall": 0.0, **values})
    assert drift.spent(DriftBudget()) == spent
    assert ("distance" in drift.used(DriftBudget())) == ("distance" in values)
