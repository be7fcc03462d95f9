"""Counting over batches gives what counting over the whole table gives, whatever the batches."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts import expectations
from data_contracts.contract import Column, Contract, Violation, between, finite, matches, one_of, present_when, sorted_by, unique
from data_contracts.expectations import Disagree, violations, violations_of
from data_contracts.offenders import describe, offending_rows
from data_contracts.tally import SAMPLED_ROWS, tallied

EVERY_KIND = Contract(
    name="every kind",
    columns=(
        Column("number", pa.int64(), "A number."),
        Column("size", pa.float64(), "A size.", nullable=True),
        Column("word", pa.string(), "A word.", nullable=True),
    ),
    rules=(
        unique("number"),
        unique("word"),
        sorted_by("number", "word"),
        between("size", 0, 1),
        finite("size"),
        one_of("word", "a", "b"),
        matches("word", "a|c"),
        present_when("word", "word", "a"),
    ),
)
ROW = st.tuples(
    st.none() | st.integers(-2, 4), st.none() | st.sampled_from([0.0, 0.5, 2.0, float("nan")]), st.none() | st.sampled_from(["a", "b", "c"])
)


def table(rows: list[tuple[int | None, float | None, str | None]]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)] if rows else [[], [], []], schema=EVERY_KIND.schema())


def by_the_whole_table(whole: pa.Table) -> list[Violation]:
    """Rule by rule over all rows at once."""
    broken = []
    for rule in EVERY_KIND.all_rules():
        rows = offending_rows(rule, whole)
        if len(rows):
            broken.append(Violation(rule.name, len(rows), describe(EVERY_KIND, rule, whole, rows)))
    return broken


@given(st.lists(st.lists(ROW, max_size=5), max_size=5))
def test_batches_are_counted_and_told_as_the_whole_table_is(batches: list[list[tuple[int | None, float | None, str | None]]]) -> None:
    told = tallied(EVERY_KIND, [table(batch) for batch in batches]).violations()
    whole = table([row for batch in batches for row in batch])
    assert [each for each in told if each.rule != "has rows"] == by_the_whole_table(whole)
    assert ("has rows" in {each.rule for each in told}) == (whole.num_rows == 0)


@pytest.mark.parametrize("num_rows", [1, 1999, 2000, 2001, 10_000, 123_457])
def test_the_sample_is_spread_over_the_whole_table_and_keeps_its_order(num_rows: int) -> None:
    whole = table([(number, 0.5, "a") for number in range(num_rows)])
    batches = [whole.slice(start, 777) for start in range(0, num_rows, 777)]
    for known in (num_rows, None):
        numbers = tallied(EVERY_KIND, batches, known).sample()["number"].to_pylist()
        assert numbers == sorted(set(numbers))
        assert min(num_rows, SAMPLED_ROWS // 2) <= len(numbers) <= SAMPLED_ROWS
        assert numbers[0] == 0
        assert numbers[-1] >= num_rows * 0.99 - 1


def test_great_expectations_is_asked_about_a_sample_of_a_large_table(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    evaluate = expectations.evaluate
    monkeypatch.setattr(expectations, "evaluate", lambda contract, some: (asked.append(some.num_rows), evaluate(contract, some))[1])
    whole = pa.table({"number": range(9000), "size": [None] * 9000, "word": [None] * 9000}, schema=EVERY_KIND.schema())
    assert violations_of(EVERY_KIND, whole.schema, [whole.slice(0, 5000), whole.slice(5000)], 9000) == []
    assert asked == [1800]  # every fifth of 9,000: the least step that gives at most 2,000


def test_a_rule_that_only_great_expectations_sees_broken_is_a_bug_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def violations(self) -> list[Violation]:
            return []

        def sample(self) -> pa.Table:
            return table([(1, 2.0, None)])

    monkeypatch.setattr(expectations, "tallied", lambda *_: Nothing())
    with pytest.raises(Disagree, match="sees `size between 0 and 1` of every kind broken, but no row breaks it"):
        violations(EVERY_KIND, table([(1, 2.0, None)]))
