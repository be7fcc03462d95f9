import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pyarrow as pa
import pytest

from data_contracts.contract import (
    Column,
    Contract,
    Violation,
    between,
    columns_broken,
    finite,
    matches,
    one_of,
    present_when,
    sorted_by,
    summary_digest,
    unique,
)

PAIR = Contract(
    name="pair",
    columns=(Column("word", pa.string(), "A word."), Column("weights", pa.list_(pa.float32(), 2), "Two weights.", nullable=True)),
    rules=(unique("word"), finite("weights")),
)


def test_schema_lists_columns_in_order_with_type_and_nullability() -> None:
    weights = pa.field("weights", pa.list_(pa.float32(), 2), nullable=True)
    assert PAIR.schema() == pa.schema([pa.field("word", pa.string(), nullable=False), weights])
    assert PAIR.column_names == ("word", "weights")


def test_rules_are_named_after_what_they_demand() -> None:
    rules = [
        (between("rating", 1, 5), "rating between 1 and 5"),
        (between("seconds", 0, None), "seconds at least 0"),
        (between("loss", None, 2.5), "loss at most 2.5"),
        (one_of("label", 0, 1), "label one of 0, 1"),
        (unique("user_id", "item_id"), "user_id, item_id unique"),
        (sorted_by("timestamp_s", "user_id"), "sorted by timestamp_s, user_id"),
        (matches("prompt", r"\S"), r"prompt matches \S"),
        (finite("rating"), "rating finite"),
        (present_when("item_id", "scope", "interaction"), "item_id present exactly when scope is interaction"),
    ]
    assert [rule.name for rule, _ in rules] == [name for _, name in rules]


def test_columns_that_may_not_be_missing_bring_their_own_rule() -> None:
    assert [rule.name for rule in PAIR.all_rules()] == ["has rows", "word not null", "word unique", "weights finite"]


def test_a_contract_of_no_rows_does_not_ask_for_rows() -> None:
    assert [rule.kind for rule in replace(PAIR, min_rows=0).all_rules()] == ["not_null", "unique", "finite"]
    assert replace(PAIR, min_rows=7).all_rules()[0].name == "has at least 7 rows"


def test_a_contract_cannot_be_changed_after_it_was_made() -> None:
    with pytest.raises(FrozenInstanceError):
        PAIR.min_rows = 0


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (unique("weight"), "names no column"),
        (between("word", 0, 1), "does not suit its type"),
        (finite("word"), "does not suit its type"),
        (matches("weights", "a"), "does not suit its type"),
        (sorted_by("weights"), "does not suit its type"),
        (unique("weights"), "does not suit its type"),
        (one_of("weights", 1), "does not suit its type"),
        (unique("word"), "repeats a rule"),
    ],
)
def test_a_contract_refuses_a_rule_that_it_cannot_judge(rule, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        replace(PAIR, rules=(*PAIR.rules, rule))


def test_a_contract_refuses_two_columns_of_one_name() -> None:
    with pytest.raises(AssertionError, match="repeats a column"):
        replace(PAIR, columns=(PAIR.columns[0], PAIR.columns[0]), rules=())


def test_between_without_any_bound_is_refused() -> None:
    with pytest.raises(AssertionError, match="bounds nothing"):
        between("rating", None, None)


def test_a_pattern_that_looks_around_is_refused_when_the_rule_is_made() -> None:
    with pytest.raises(pa.ArrowInvalid):
        matches("word", r"(?=a)")


def test_columns_of_the_contract_in_another_order_and_with_company_are_whole() -> None:
    schema = pa.schema([("weights", pa.list_(pa.float32(), 2)), ("word", pa.string()), ("more", pa.int8())])
    assert columns_broken(PAIR, schema) == []


def test_a_missing_column_is_named() -> None:
    broken = columns_broken(PAIR, pa.schema([("word", pa.string())]))
    assert broken == [Violation("weights is a column", 0, ("column weights is missing",))]


def test_a_column_that_appears_twice_is_named() -> None:
    schema = pa.schema([*PAIR.schema(), pa.field("word", pa.string())])
    assert columns_broken(PAIR, schema) == [Violation("word is a column", 0, ("column word appears 2 times",))]


def test_a_wrong_type_is_told_with_both_types() -> None:
    schema = pa.schema([("word", pa.int64()), ("weights", pa.list_(pa.float32(), 3))])
    assert [violation.examples for violation in columns_broken(PAIR, schema)] == [
        ("column word is int64, not string",),
        ("column weights is fixed_size_list<item: float>[3], not fixed_size_list<item: float>[2]",),
    ]


@pytest.mark.parametrize("text", [pa.string(), pa.large_string()])
def test_text_is_text_in_both_layouts(text: pa.DataType) -> None:
    assert columns_broken(PAIR, PAIR.schema().set(0, pa.field("word", text))) == []


@pytest.mark.parametrize("stranger", [pa.binary(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.null()])
def test_what_rules_cannot_judge_as_text_is_refused(stranger: pa.DataType) -> None:
    assert len(columns_broken(PAIR, PAIR.schema().set(0, pa.field("word", stranger)))) == 1


def test_the_name_of_list_elements_and_their_nullability_do_not_matter() -> None:
    element = pa.field("element", pa.float32(), nullable=False)
    assert columns_broken(PAIR, PAIR.schema().set(1, pa.field("weights", pa.list_(element, 2)))) == []


def test_digest_changes_with_every_demand() -> None:
    word, weights = PAIR.columns
    demands = [
        PAIR,
        replace(PAIR, name="other"),
        replace(PAIR, min_rows=0),
        replace(PAIR, rules=()),
        replace(PAIR, rules=(*PAIR.rules, matches("word", "a"))),
        replace(PAIR, rules=(*PAIR.rules, matches("word", "b"))),
        replace(PAIR, columns=(word, replace(weights, nullable=False))),
        replace(PAIR, columns=(replace(word, personal=True), weights)),
        replace(PAIR, columns=(word, replace(weights, type=pa.list_(pa.float32(), 3)))),
        replace(PAIR, columns=(weights, word)),
    ]
    assert len({summary_digest(demand) for demand in demands}) == len(demands)


def test_digest_does_not_change_when_a_sentence_is_reworded() -> None:
    reworded = replace(PAIR, columns=(replace(PAIR.columns[0], sentence="One word."), PAIR.columns[1]))
    assert summary_digest(reworded) == summary_digest(PAIR)


def test_digest_stays_what_stored_stages_were_made_with() -> None:
    # The digest enters stage keys on disk: a change here rebuilds every stored stage, so it must be meant.
    assert summary_digest(PAIR) == "27888009e798a25d98f02c8d1465c3830feb55d4fcd29952f2a3b01edbf1ba6c"


def test_reading_contracts_loads_neither_pandas_nor_great_expectations() -> None:
    program = (
        "import sys\n"
        "from data_contracts import deletion_request, examples, expectations, interactions, report, scores, teacher_logits\n"
        "heavy = {'great_expectations', 'pandas', 'polars', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
