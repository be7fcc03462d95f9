"""Offending rows are found by Arrow arithmetic; here plain Python loops and Great Expectations say the same."""

import math
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from data_contracts.contract import Column, Contract, Rule, between, finite, matches, one_of, present_when, sorted_by, unique
from data_contracts.expectations import violations
from data_contracts.offenders import offending_rows

MIXED = Contract(
    name="mixed",
    columns=(
        Column("number", pa.int64(), "A number."),
        Column("word", pa.string(), "A word.", nullable=True),
        Column("size", pa.float64(), "A size."),
        Column("pair", pa.list_(pa.float32(), 2), "A pair.", nullable=True),
    ),
    rules=(
        between("number", -1, 2),
        between("size", 0, 1),
        one_of("number", 0, 1, 2),
        one_of("word", "a", "b"),
        unique("number"),
        unique("word"),
        unique("word", "number"),
        sorted_by("number"),
        sorted_by("word"),
        sorted_by("size"),
        sorted_by("word", "number"),
        matches("word", r"^\w"),
        finite("size"),
        finite("pair"),
        present_when("word", "word", "a"),
    ),
    min_rows=0,
)
REAL = st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0, math.nan, math.inf, -math.inf, None])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "number": st.sampled_from([0, 1, 2, 3, -2, 2**63 - 1, -(2**63), None]),
            "word": st.sampled_from(["a", "b", "", " ", "é", "z\n", None]),
            "size": REAL,
            "pair": st.none() | st.tuples(REAL, REAL).map(list),
        }
    ),
    max_size=8,
)


def breaks(rule: Rule, rows: list[dict[str, Any]], at: int) -> bool:
    """Whether row `at` breaks `rule`, written for the eye rather than for speed."""
    values = [rows[at][name] for name in rule.columns]
    first = values[0]
    match rule.kind:
        case "not_null":
            return first is None
        case "between":
            return first is not None and (first < rule.low or first > rule.high)
        case "one_of":
            return first is not None and first not in rule.values
        case "unique":
            others = [[row[name] for name in rule.columns] for row in rows]
            return None not in values and others.count(values) > 1
        case "sorted":
            return at > 0 and _comes_before(values, [rows[at - 1][name] for name in rule.columns])
        case "matches":
            return first is not None and not (first[:1].isascii() and first[:1].isalpha())
        case "finite":
            numbers = first if isinstance(first, list) else [first]
            return first is not None and not all(number is not None and math.isfinite(number) for number in numbers)
        case "present_when":
            return (first is not None) != (values[1] == rule.values[0])
    raise AssertionError(rule.kind)


def _comes_before(below: list[Any], above: list[Any]) -> bool:
    for lower, upper in zip(below, above, strict=True):
        if lower is None or upper is None or lower != upper:
            return None not in (lower, upper) and lower < upper
    return False


def expected(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Offending rows by rule, by the plain loop."""
    return {rule.name: [at for at in range(len(rows)) if breaks(rule, rows, at)] for rule in MIXED.all_rules()}


@settings(deadline=None, max_examples=300, derandomize=True)
@given(rows=ROWS, cut=st.integers(0, 8))
def test_offending_rows_are_those_of_a_plain_loop(rows: list[dict[str, Any]], cut: int) -> None:
    whole = pa.Table.from_pylist(rows, schema=MIXED.schema())
    table = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    assert {rule.name: offending_rows(rule, table).to_pylist() for rule in MIXED.all_rules()} == expected(rows)


@settings(deadline=None, max_examples=30, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(rows=ROWS)
def test_great_expectations_sees_broken_exactly_the_rules_that_have_offending_rows(rows: list[dict[str, Any]]) -> None:
    broken = {broken.rule: broken.num_rows for broken in violations(MIXED, pa.Table.from_pylist(rows, schema=MIXED.schema()))}
    assert broken == {name: len(offending) for name, offending in expected(rows).items() if offending}


@settings(deadline=None, derandomize=True)
@given(values=st.lists(st.text(max_size=3), max_size=20))
def test_text_is_in_order_exactly_when_its_bytes_are(values: list[str]) -> None:
    # UTF-8 keeps the order of code points, so Python, Polars and Arrow agree.
    num_inversions = sum(below.encode() < above.encode() for above, below in pairwise(values))
    table = pa.table({"word": pa.array(values, pa.string())})
    assert len(offending_rows(sorted_by("word"), table)) == num_inversions
    assert len(offending_rows(sorted_by("word"), pa.table({"word": pa.array(sorted(values), pa.string())}))) == 0


@pytest.mark.parametrize("low", [None, 0])
def test_an_open_end_bounds_nothing(low: int | None) -> None:
    high = 0 if low is None else None
    table = pa.table({"number": [-5, 0, 5]})
    assert offending_rows(between("number", low, high), table).to_pylist() == [2 if low is None else 0]


def test_an_unknown_kind_of_rule_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no way to find"):
        offending_rows(Rule("disjoint", "a and b disjoint"), pa.table({}))  # type: ignore[arg-type]
