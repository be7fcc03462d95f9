import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from data_contracts import expectations
from data_contracts.contract import Column, Contract, Violation, between, one_of, sorted_by, unique
from data_contracts.examples import EXAMPLES
from data_contracts.expectations import CouldNotEvaluate, Disagree, Judged, evaluate, judge, suite, violations
from data_contracts.interactions import INTERACTIONS

NUMBERS = Contract(
    name="numbers",
    columns=(Column("number", pa.int64(), "A number."), Column("size", pa.float32(), "A size.", nullable=True)),
    rules=(unique("number"), sorted_by("number"), between("size", 0, 1)),
)


def numbers(values: list[int | None], sizes: list[float | None] | None = None) -> pa.Table:
    return pa.table({"number": values, "size": sizes or [0.5] * len(values)}, schema=NUMBERS.schema())


def test_the_suite_holds_one_expectation_per_rule_in_order() -> None:
    told = [expectation.meta["rule"] for expectation in suite(EXAMPLES).expectations]
    assert told == [rule.name for rule in EXAMPLES.all_rules()]


def test_rules_are_judged_by_the_ordinary_expectations() -> None:
    kinds = {expectation.meta["rule"]: expectation.expectation_type for expectation in suite(INTERACTIONS).expectations}
    assert kinds == {
        "has rows": "expect_table_row_count_to_be_between",
        "interaction_id not null": "expect_column_values_to_not_be_null",
        "user_id not null": "expect_column_values_to_not_be_null",
        "item_id not null": "expect_column_values_to_not_be_null",
        "timestamp_s not null": "expect_column_values_to_not_be_null",
        "label not null": "expect_column_values_to_not_be_null",
        "rating finite": "expect_column_values_to_be_in_set",
        "timestamp_s between 0 and 4102444800": "expect_column_values_to_be_between",
        "label one of 0, 1": "expect_column_values_to_be_in_set",
        "interaction_id unique": "expect_column_values_to_be_unique",
        "sorted by timestamp_s": "expect_column_values_to_be_in_set",
    }


def test_violations_come_in_the_order_of_the_contract() -> None:
    broken = violations(NUMBERS, numbers([3, 3, 1, None], [0.5, 2.0, None, 0.0]))
    assert broken == [
        Violation("number not null", 1, ("row 3: number missing",)),
        Violation("number unique", 2, ("row 0: number 3", "row 1: number 3")),
        Violation("sorted by number", 1, ("row 2: number 1 after number 3",)),
        Violation("size between 0 and 1", 1, ("row 1: size 2.0",)),
    ]


def test_a_missing_column_ends_the_check_before_great_expectations_is_asked(monkeypatch, examples) -> None:
    monkeypatch.setattr(expectations, "evaluate", lambda *_: pytest.fail("asked"))
    assert violations(EXAMPLES, examples.drop_columns(["label"])) == [Violation("label is a column", 0, ("column label is missing",))]


def test_a_table_with_too_few_rows_says_how_many_it_has() -> None:
    long = Contract("long", NUMBERS.columns, min_rows=3)
    assert violations(long, numbers([1, 2])) == [Violation("has at least 3 rows", 0, ("the table has 2 rows",))]
    assert violations(long, numbers([1, 2, 3])) == []


def test_an_empty_table_is_fine_where_no_rows_are_asked_for() -> None:
    assert violations(Contract("empty", NUMBERS.columns, NUMBERS.rules, min_rows=0), numbers([])) == []


def test_a_contract_of_nullable_columns_counts_rows_all_the_same() -> None:
    free = Contract("free", (Column("note", pa.string(), "A note.", nullable=True),))
    assert violations(free, pa.table({"note": pa.array([None, None], pa.string())})) == []


def test_at_most_three_examples_are_told_and_all_rows_are_counted() -> None:
    broken = violations(NUMBERS, numbers(list(range(9)), [2.0] * 9))
    assert broken == [Violation("size between 0 and 1", 9, ("row 0: size 2.0", "row 1: size 2.0", "row 2: size 2.0"))]


def test_large_ids_beside_a_missing_one_do_not_collide() -> None:
    # As 64-bit floats 2**53 and 2**53 + 1 are one number, which is what pandas makes of integers beside a missing value.
    assert [broken.rule for broken in violations(NUMBERS, numbers([2**53, 2**53 + 1, None]))] == ["number not null"]


def test_order_is_judged_right_at_the_ends_of_int64() -> None:
    # Great Expectations' own check subtracts neighbours: 2**63 - 1 - (-2**63 + 1) wraps to -2.
    assert violations(NUMBERS, numbers([-(2**63) + 1, 2**63 - 1])) == []
    assert [broken.rule for broken in violations(NUMBERS, numbers([2**63 - 1, -(2**63) + 1]))] == ["sorted by number"]


def test_a_32_bit_number_is_told_as_it_was_written() -> None:
    assert violations(NUMBERS, numbers([1], [9.1]))[0].examples == ("row 0: size 9.1",)


def test_long_text_is_shortened_and_kept_on_one_line() -> None:
    words = Contract("words", (Column("word", pa.string(), "A word."),), (one_of("word", "yes"),))
    (told,) = violations(words, pa.table({"word": ["a\n" + "b" * 100]}))[0].examples
    assert told == "row 0: word 'a\\n" + "b" * 33 + "..."


def test_tables_written_by_polars_are_accepted() -> None:
    frame = pl.DataFrame({"number": [1, 2], "size": [0.5, None]}, schema={"number": pl.Int64, "size": pl.Float32})
    assert violations(NUMBERS, frame.to_arrow()) == []


def test_text_of_the_large_layout_is_judged(interactions) -> None:
    keyed = Contract("keyed", INTERACTIONS.columns, (unique("user_id", "item_id"),))
    spoiled = interactions.set_column(2, "item_id", pa.array(["i1", "i1", "i1", None, "i1", "i2"]).cast(pa.large_string()))
    spoiled = spoiled.set_column(1, "user_id", spoiled.column("user_id").cast(pa.large_string()))
    counts = {broken.rule: broken.num_rows for broken in violations(keyed, spoiled)}
    assert counts == {"item_id not null": 1, "user_id, item_id unique": 2}


def test_a_table_in_many_chunks_is_told_by_its_rows(interactions, spoil) -> None:
    spoiled = spoil(interactions, "rating", 4, float("inf"))
    chunked = pa.concat_tables([spoiled.slice(0, 1), spoiled.slice(1, 0), spoiled.slice(1, 4), spoiled.slice(5)])
    assert violations(INTERACTIONS, chunked) == violations(INTERACTIONS, spoiled)
    assert violations(INTERACTIONS, chunked)[0] == Violation("rating finite", 1, ("row 4: rating inf",))


def test_no_user_is_named_by_violations_or_by_great_expectations(interactions) -> None:
    # Users and prompts are broken in every way at once: missing, doubled, out of order.
    doubled = pa.concat_tables([interactions, interactions])
    strict = Contract("strict", INTERACTIONS.columns, (unique("user_id", "item_id"), sorted_by("user_id"), one_of("user_id", "nobody")))
    told = str(violations(strict, doubled)) + json.dumps(evaluate(strict, doubled).to_json_dict())
    assert "<withheld>" in told
    assert "canary" not in told


def test_no_token_and_no_user_of_an_example_is_told(examples) -> None:
    told_by_user = Contract("told", EXAMPLES.columns, (one_of("user_id", "nobody"), sorted_by("user_id"), unique("user_id")))
    told = str(violations(told_by_user, examples)) + json.dumps(evaluate(told_by_user, examples).to_json_dict())
    # Three of four rows with a strange user, three of four of a doubled user, and two users in one wrong step.
    assert told.count("<withheld>") == 3 + 3 + 2
    assert "canary" not in told


def test_a_rule_that_cannot_be_evaluated_is_an_error_and_not_a_violation(monkeypatch) -> None:
    monkeypatch.setattr(expectations, "_frame", lambda *_: pd.DataFrame({"secret": ["canary"]}))
    with pytest.raises(
        CouldNotEvaluate, match=r"`expect_column_\w+` could not be evaluated for the rule `.*number.*` of numbers"
    ) as caught:
        violations(NUMBERS, numbers([1]))
    assert "canary" not in str(caught.value)


def test_threads_do_not_disturb_one_another(monkeypatch) -> None:
    # Great Expectations holds one context per process: the second check must not start before the first has its answer.
    import great_expectations

    inside, most = [], []
    get_context = great_expectations.get_context

    def watched(**told: object) -> object:
        inside.append(told)
        time.sleep(0.02)
        most.append(len(inside))
        context = get_context(**told)
        inside.pop()
        return context

    monkeypatch.setattr(great_expectations, "get_context", watched)
    tables = [numbers([1, 2]), numbers([2, 1]), numbers([1, 1]), numbers([])] * 2
    with ThreadPoolExecutor(4) as pool:
        broken = list(pool.map(lambda table: [violation.rule for violation in violations(NUMBERS, table)], tables))
    assert broken == [[], ["sorted by number"], ["number unique"], ["has rows"]] * 2
    assert most == [1] * 6


def test_a_bound_is_not_rounded_to_the_32_bits_of_the_column() -> None:
    # The nearest 32-bit number to 0.1 is 0.100000001490116, which is above 0.1.
    tenth = Contract("tenth", NUMBERS.columns, (between("size", 0, 0.1),))
    assert [broken.num_rows for broken in violations(tenth, numbers([1], [0.1]))] == [1]


def test_two_rows_that_lack_a_part_of_their_key_do_not_share_it() -> None:
    keyed = Contract("keyed", (NUMBERS.columns[0], Column("word", pa.string(), "A word.", nullable=True)), (unique("number", "word"),))
    assert violations(keyed, pa.table({"number": [1, 1], "word": pa.array([None, None], pa.string())})) == []


def test_a_check_says_nothing_and_leaves_no_file(tmp_path) -> None:
    program = (
        "import logging\n"
        "import pyarrow as pa\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "from data_contracts.interactions import ITEMS\n"
        "from data_contracts.expectations import violations\n"
        "assert violations(ITEMS, pa.table({'item_id': ['a', 'a'], 'title': ['A', None]}))\n"
    )
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ, **places})
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.rglob("*")) == []


def judged(contract: Contract, table: pa.Table, *filled: str) -> Judged:
    return Judged(contract, table.schema, [table], table.num_rows, frozenset(filled))


def test_several_tables_are_judged_at_once_each_under_its_name() -> None:
    good, bad = numbers([1, 2]), numbers([2, 1], [0.5, 7.0])
    told = judge({"good": judged(NUMBERS, good), "bad": judged(NUMBERS, bad), "odd": judged(NUMBERS, bad.drop_columns(["size"]))})
    assert told["good"] == []
    assert [broken.rule for broken in told["bad"]] == ["sorted by number", "size between 0 and 1"]
    assert told["odd"] == [Violation("size is a column", 0, ("column size is missing",))]


def test_great_expectations_is_asked_once_for_all_tables_about_their_counts(monkeypatch) -> None:
    frames = []
    validated = expectations._validated
    monkeypatch.setattr(expectations, "_validated", lambda frame, *rest: (frames.append(frame), validated(frame, *rest))[1])
    judge({"one": judged(NUMBERS, numbers([1, 2])), "other": judged(NUMBERS, numbers([3, 3, 3]))})
    (frame,) = frames
    # Rows, no missing number, unique, sorted, between: five rules of each table; three rows share a number.
    assert frame["broken rows"].tolist() == [0, 0, 0, 0, 0, 0, 0, 3, 0, 0]


@pytest.mark.parametrize("answer", [True, False])
def test_great_expectations_has_to_agree_with_the_counts(monkeypatch, answer: bool) -> None:
    monkeypatch.setattr(expectations, "_accepted", lambda _: answer)
    table = numbers([1, 1]) if answer else numbers([1, 2])
    with pytest.raises(Disagree, match="accepts what the counts of one do not" if answer else "refuses what the counts of one do not"):
        judge({"one": judged(NUMBERS, table)})


def test_a_column_that_cannot_lack_a_value_need_not_be_read() -> None:
    lazy = Contract("lazy", NUMBERS.columns, (between("size", 0, 1),))
    told = judge({"one": Judged(lazy, NUMBERS.schema(), [numbers([1, 2]).select(["size"])], 2, frozenset({"number"}))})
    assert told == {"one": []}
