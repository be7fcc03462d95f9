"""The verdict's document: outcomes follow from values and bounds, also when it is read again, and people can read it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from e2urec_core.release.verdict import Gate, Power, VerdictDocument

NUMBERS = st.floats(-10, 10)
POWER = Power(
    gate="user_test", champion=0.001, refused=True, refused_share=0.97, num_resamples=200, blind=False, sentence="It would with 0.97."
)


def gate(name: str = "auc", value: float | None = 0.01, **more: Any) -> Gate:
    return Gate.of(name, "utility", value, "The AUC falls.", **{"at_most": 0.03, **more})


def document(*gates: Gate) -> VerdictDocument:
    return VerdictDocument.of([*gates], [POWER], candidate="a" * 64, champion="b" * 64, seed=3, counts={"test_rows": 9})


@given(NUMBERS, NUMBERS)
def test_a_bound_from_above_passes_what_is_no_larger_and_the_margin_is_what_is_left(value: float, bound: float) -> None:
    told = gate(value=value, at_most=bound)
    assert (told.margin, told.passed) == (bound - value, value <= bound)
    assert (told.direction, told.bound) == ("at_most", bound)


@given(NUMBERS, NUMBERS)
def test_a_bound_from_below_passes_what_is_no_smaller(value: float, bound: float) -> None:
    told = gate(value=value, at_most=None, at_least=bound)
    assert (told.margin, told.passed) == (value - bound, value >= bound)
    assert (told.direction, told.bound) == ("at_least", bound)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_two_bounds_pass_what_lies_between_and_name_the_nearer(value: float, low: float, high: float) -> None:
    told = gate(value=value, at_least=low, at_most=high)
    assert told.passed == (low <= value <= high)
    assert told.margin == min(value - low, high - value)
    assert told.direction == "between"
    assert told.bound in (low, high)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_passes_nothing_and_says_so(value: float | None) -> None:
    told = gate(value=value)
    assert (told.value, told.margin, told.passed, told.verdict) == (None, None, False, "REFUSED")
    assert told.remark == "Nothing could be measured: the value is not a number."
    assert gate(value=value, remark="there are no rows").remark == "Nothing could be measured: there are no rows."


def test_a_gate_without_a_bound_is_refused() -> None:
    with pytest.raises(ValidationError, match="has no bound"):
        gate(at_most=None)


def test_a_verdict_passes_with_all_its_gates_and_gives_a_reason_for_each_that_refuses() -> None:
    passed = document(gate(), gate("log_loss"))
    assert passed.passed
    assert passed.reasons() == []
    refused = document(gate(), gate("log_loss", 0.5, remark="Beyond noise."), gate("probe", None))
    assert not refused.passed
    assert refused.reasons() == [
        "The AUC falls. Beyond noise.",
        "The AUC falls. Nothing could be measured: the value is not a number.",
    ]
    assert refused.text.splitlines()[0] == "refused by 2 of 3 gates"
    assert refused.text.splitlines()[-1] == "- It would with 0.97."
    assert refused.gate("log_loss").margin == pytest.approx(0.03 - 0.5)


def test_the_table_has_a_row_a_gate() -> None:
    told = document(gate(), gate("attack", 0.6, at_least=0.45, at_most=0.55), gate("blind", 0.01, blind="refuse"))
    assert told.table() == [
        ["gate", "value", "bound", "margin", "verdict", "remark"],
        ["auc", "0.0100", "at most 0.0300", "0.0200", "passed", ""],
        ["attack", "0.6000", "0.4500 to 0.5500", "-0.0500", "REFUSED", ""],
        ["blind", "0.0100", "at most 0.0300", "0.0200", "REFUSED, blind", ""],
    ]


def test_what_is_written_is_read_back() -> None:
    told = document(gate(), gate("attack", 0.6, at_least=0.45, at_most=0.55), gate("nothing", None))
    assert VerdictDocument.from_json(told.to_json()) == told
    assert VerdictDocument.from_json(told.to_json()).to_json() == told.to_json()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("passed",), True),
        (("gates", 1, "passed"), True),
        (("gates", 1, "value"), 0.01),
        (("gates", 1, "high"), 0.9),
        (("gates", 1, "margin"), 0.1),
        (("gates", 0, "blind"), "refuse"),
        (("gates", 0, "value"), "0.01"),
        (("gates", 0, "value"), float("nan")),
        (("gates", 0, "name"), "log_loss"),
        (("gates",), []),
        (("power", 0, "refused_share"), 1.5),
        (("seed",), "3"),
        (("candidate",), "a"),
        (("more",), 1),
        (("schema_version",), 2),
    ],
    ids=str,
)
def test_a_document_that_was_changed_by_hand_is_refused(path: tuple[Any, ...], value: Any) -> None:
    plain = json.loads(document(gate(), gate("log_loss", 0.5)).to_json())
    place = plain
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        VerdictDocument.from_json(json.dumps(plain))
