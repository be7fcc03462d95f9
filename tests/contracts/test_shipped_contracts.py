"""What holds for each contract of the house."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.contract import Contract, Violation
from data_contracts.deletion_request import DELETION_REQUEST
from data_contracts.draft_request import DRAFT_REQUEST, PROPOSED
from data_contracts.examples import EXAMPLES, GONE, TOLD_ANEW
from data_contracts.expectations import violations
from data_contracts.held_out import HELD_OUT
from data_contracts.interactions import INTERACTIONS, ITEMS, USERS
from data_contracts.quarantine import QUARANTINE
from data_contracts.report import REPORT_ROW
from data_contracts.scores import SCORES
from data_contracts.teacher_logits import cache_bytes, teacher_logits
from data_contracts.tokens import TOKENS

SHIPPED = [
    *(INTERACTIONS, ITEMS, USERS, QUARANTINE, EXAMPLES, TOKENS, DELETION_REQUEST, SCORES, REPORT_ROW),
    *(HELD_OUT, DRAFT_REQUEST, PROPOSED, TOLD_ANEW, GONE),
    *(teacher_logits(4, None), teacher_logits(4, 3), teacher_logits(4, 3, "retained")),
]
each_contract = pytest.mark.parametrize("contract", SHIPPED, ids=lambda contract: f"{contract.name}-{len(contract.columns)}")


@each_contract
def test_every_column_is_an_attribute_of_its_contract(contract: Contract) -> None:
    assert [getattr(contract, name) for name in contract.column_names] == list(contract.column_names)


@each_contract
def test_every_column_has_a_sentence(contract: Contract) -> None:
    assert [column.name for column in contract.columns if not column.sentence.endswith(".")] == []


@each_contract
def test_users_are_personal_everywhere(contract: Contract) -> None:
    # A history is as good as a name, and a prompt's tokens are the history in another writing.
    told = {"user_id", "user", "profile", "token_ids", "history", "history_ratings"} & set(contract.column_names)
    if contract is QUARANTINE:
        # What stood in a row that broke a rule may be anything.
        told |= {"item_id", "rating", "time"}
    assert {column.name for column in contract.columns if column.personal} == told


@each_contract
def test_every_real_number_must_be_finite(contract: Contract) -> None:
    """`between` leaves NaN to `finite`, so a real column without that rule would let NaN through."""
    real = {
        column.name
        for column in contract.columns
        if pa.types.is_floating(column.type) or (pa.types.is_fixed_size_list(column.type) and pa.types.is_floating(column.type.value_type))
    }
    assert real <= {rule.columns[0] for rule in contract.rules if rule.kind == "finite"}


@each_contract
def test_types_survive_parquet(contract: Contract) -> None:
    file = io.BytesIO()
    pq.write_table(contract.schema().empty_table(), file)
    assert pq.read_schema(file).equals(contract.schema())


@each_contract
def test_an_empty_table_breaks_only_the_rule_that_it_has_rows(contract: Contract) -> None:
    empty = contract.schema().empty_table()
    may_be_empty = any(contract is one for one in (QUARANTINE, DRAFT_REQUEST, PROPOSED, TOLD_ANEW, GONE))
    allowed = [] if may_be_empty else [Violation("has rows", 0, ("the table has 0 rows",))]
    assert violations(contract, empty) == allowed


def test_the_sample_tables_keep_their_contracts(interactions, examples, requests) -> None:
    assert violations(INTERACTIONS, interactions) == []
    assert violations(EXAMPLES, examples) == []
    assert violations(DELETION_REQUEST, requests) == []


@pytest.mark.parametrize(
    ("column", "row", "value", "violation"),
    [
        ("rating", 3, float("nan"), Violation("rating finite", 1, ("row 3: rating nan",))),
        ("label", 3, 2, Violation("label one of 0, 1", 1, ("row 3: label 2",))),
        ("label", 3, None, Violation("label not null", 1, ("row 3: label missing",))),
        ("user_id", 0, None, Violation("user_id not null", 1, ("row 0: user_id <withheld>",))),
        ("timestamp_s", 0, -1, Violation("timestamp_s between 0 and 4102444800", 1, ("row 0: timestamp_s -1",))),
    ],
)
def test_one_bad_value_of_an_interaction_breaks_one_rule(
    interactions, spoil, *, column: str, row: int, value, violation: Violation
) -> None:
    assert violations(INTERACTIONS, spoil(interactions, column, row, value)) == [violation]


def test_milliseconds_are_noticed(interactions) -> None:
    # 978300760 s is 31 December 2000; in milliseconds it would be a date after the year 32,000.
    in_milliseconds = interactions.set_column(4, INTERACTIONS.timestamp_s, pa.array([978_300_760_000] * 6))
    names = [violation.rule for violation in violations(INTERACTIONS, in_milliseconds)]
    assert "timestamp_s between 0 and 4102444800" in names


def test_an_interaction_that_is_stored_twice_is_found_in_both_rows(interactions, spoil) -> None:
    broken = violations(INTERACTIONS, spoil(interactions, "interaction_id", 5, 6))
    assert broken == [Violation("interaction_id unique", 2, ("row 4: interaction_id 6", "row 5: interaction_id 6"))]


def test_a_missing_rating_is_no_fault_because_clicks_have_none(interactions, spoil) -> None:
    assert violations(INTERACTIONS, spoil(interactions, "rating", 3, None)) == []


def test_interactions_are_in_the_order_of_time(interactions) -> None:
    swapped = interactions.take([0, 1, 3, 2, 4, 5])
    assert violations(INTERACTIONS, swapped) == [Violation("sorted by timestamp_s", 1, ("row 3: timestamp_s 10 after timestamp_s 20",))]


@pytest.mark.parametrize(
    ("column", "row", "value", "violation"),
    [
        ("split", 1, "dev", Violation("split one of train, validation, test, holdout", 1, ("row 1: split 'dev'",))),
        ("label", 2, 2, Violation("label one of 0, 1", 1, ("row 2: label 2",))),
        ("history", 0, None, Violation("history not null", 1, ("row 0: history <withheld>",))),
        ("timestamp_s", 0, 11, Violation("sorted by timestamp_s", 1, ("row 1: timestamp_s 10 after timestamp_s 11",))),
    ],
)
def test_one_bad_value_of_an_example_breaks_one_rule(examples, spoil, *, column: str, row: int, value, violation: Violation) -> None:
    assert violations(EXAMPLES, spoil(examples, column, row, value)) == [violation]


@pytest.mark.parametrize(
    ("column", "row", "value", "violation"),
    [
        ("split", 1, "dev", Violation("split one of train, validation, test, holdout", 1, ("row 1: split 'dev'",))),
        ("label", 2, 2, Violation("label one of 0, 1", 1, ("row 2: label 2",))),
        ("token_ids", 0, None, Violation("token_ids not null", 1, ("row 0: token_ids <withheld>",))),
    ],
)
def test_one_bad_value_of_the_tokens_breaks_one_rule(spoil, *, column: str, row: int, value, violation: Violation) -> None:
    rows = {
        "example_id": [5, 7, 9],
        "user": [1, 1, 2],
        "split": ["train", "test", "holdout"],
        "label": [1, 0, 1],
        "token_ids": [[3, 4], [5], []],
    }
    tokens = pa.table(rows, schema=TOKENS.schema())
    assert violations(TOKENS, tokens) == []
    assert violations(TOKENS, spoil(tokens, column, row, value)) == [violation]


@pytest.mark.parametrize(
    ("column", "row", "value", "violation"),
    [
        ("item_id", 0, "i1", "item_id present exactly when scope is interaction"),
        ("item_id", 1, None, "item_id present exactly when scope is interaction"),
        ("reason", 1, "boredom", "reason one of privacy, pollution"),
        ("request_id", 1, "r1", "request_id unique"),
        ("request_id", 1, "", r"request_id matches \S"),
    ],
)
def test_an_unclear_deletion_request_is_refused(requests, spoil, *, column: str, row: int, value, violation: str) -> None:
    assert [broken.rule for broken in violations(DELETION_REQUEST, spoil(requests, column, row, value))] == [violation]


def test_scores_hold_one_probability_per_example_and_model() -> None:
    rows = {"example_id": [1, 1, 2], "label": [1, 1, 0], "group": ["test"] * 3, "model": ["original", "retrained", "original"]}
    scores = pa.table({**rows, "yes_probability": [0.0, 1.0, 0.5]}, schema=SCORES.schema())
    assert violations(SCORES, scores) == []
    repeated = scores.set_column(3, SCORES.schema().field(SCORES.model), pa.array(["original"] * 3))
    shared = ("row 0: example_id 1, model 'original'", "row 1: example_id 1, model 'original'")
    assert violations(SCORES, repeated) == [Violation("example_id, model unique", 2, shared)]


def test_a_report_may_lack_a_number_but_not_hold_nan() -> None:
    undefined = dict.fromkeys(("auc", "accuracy", "log_loss", "forget_auc", "attack_auc", "jsd", "half_jeffreys", "l2", "residual"))
    known = {"method": "retrain", "seconds": 1.5, "all_in_seconds": 2.5, "trainable_parameters": 10, "total_parameters": 12}
    lacking = pa.Table.from_pylist([{**undefined, **known}], schema=REPORT_ROW.schema())
    assert violations(REPORT_ROW, lacking) == []
    with_nan = pa.Table.from_pylist([{**undefined, **known, "auc": float("nan"), "residual": -0.25, "seconds": -1.0}], REPORT_ROW.schema())
    assert violations(REPORT_ROW, with_nan) == [
        Violation("auc finite", 1, ("row 0: auc nan",)),
        Violation("seconds at least 0", 1, ("row 0: seconds -1.0",)),
    ]


def test_teacher_logits_are_finite_wherever_a_teacher_spoke() -> None:
    contract = teacher_logits(2, 2)
    rows = {"example_id": [1, 2, 3], "label": [0, 1, 1], "original": [[0.5, 1.0]] * 3, "support": [[7, 9]] * 3}
    whole = pa.table({**rows, "augmented": [[0.1, 0.2], [0.0, 0.0], [0.3, 0.4]]}, schema=contract.schema())
    assert violations(contract, whole) == []
    holed = pa.table({**rows, "augmented": [[0.5, 0.5], [0.1, None], [float("inf"), float("nan")]]}, schema=contract.schema())
    told = ("row 1: augmented with 1 of 2 numbers not finite", "row 2: augmented with 2 of 2 numbers not finite")
    assert violations(contract, holed) == [Violation("augmented finite", 2, told)]


def test_retained_rows_have_no_augmented_teacher() -> None:
    assert "augmented" not in teacher_logits(2, 2, "retained").column_names
    assert "augmented" in teacher_logits(2, 2, "forgotten").column_names


def test_teacher_logits_of_another_width_are_refused() -> None:
    broken = violations(teacher_logits(3, None), teacher_logits(2, None).schema().empty_table())
    assert [violation.rule for violation in broken] == [
        "original is fixed_size_list<item: float>[3]",
        "augmented is fixed_size_list<item: float>[3]",
    ]


@pytest.mark.parametrize(("width", "num_ids"), [(0, None), (2, 0)])
def test_teacher_logits_of_no_width_are_refused(width: int, num_ids: int | None) -> None:
    with pytest.raises(AssertionError):
        teacher_logits(width, num_ids)


def test_cache_bytes_counts_two_teachers_for_forgotten_rows_and_one_for_retained() -> None:
    # (3 + 5) * 9 + (2 * 3 + 5) * 10 * 4 = 72 + 440
    assert cache_bytes(3, 5, 10, None) == 512
    # and 8 * 6 * 4 = 192 for the support
    assert cache_bytes(3, 5, 10, 6) == 704


def test_cache_bytes_foretells_the_size_of_a_file() -> None:
    contract, num_forgotten, num_retained = teacher_logits(64, 16), 500, 1500
    rows = num_forgotten + num_retained
    columns = {
        "example_id": range(rows),
        "label": [0] * rows,
        "original": [[0.5] * 64] * rows,
        "augmented": [[0.5] * 64] * num_forgotten + [None] * num_retained,
        "support": [[1] * 16] * rows,
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns, schema=contract.schema()), file, compression="none", use_dictionary=False)
    foretold = cache_bytes(num_forgotten, num_retained, 64, 16)
    # Parquet adds levels of a few bits per element, page headers and a footer.
    assert foretold < file.tell() < 1.05 * foretold
