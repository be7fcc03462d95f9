"""The gate before the store: which tables of each artifact are held against which contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.contract import Contract
from data_contracts.examples import EXAMPLES
from data_contracts.interactions import INTERACTIONS, ITEMS, USERS
from data_contracts.quarantine import QUARANTINE
from data_contracts.scores import SCORES
from data_contracts.teacher_logits import Part, teacher_logits
from data_contracts.tokens import TOKENS
from e2urec_core.artifacts import Artifact, Examples, Interactions, Original, OriginalLogits, Scores, TeacherLogits, Tokens
from e2urec_core.errors import ContractBroken
from tasks import _gate

PERSON = "subject-4711"


def write(place: Path, name: str, contract: Contract, **columns: list[Any]) -> None:
    pq.write_table(pa.table([columns[column] for column in contract.column_names], schema=contract.schema()), place / name)


def interactions(place: Path, **change: list[Any]) -> None:
    rows: dict[str, list[Any]] = {
        "interaction_id": [7, 3],
        "user_id": [f"{PERSON}-1", f"{PERSON}-2"],
        "item_id": ["i1", "i2"],
        "rating": [3.0, 4.0],
        "timestamp_s": [10, 20],
        "label": [0, 1],
        "title": ["One", "Two"],
        "profile": [f"Profile of {PERSON}", None],
        "cohort": [None, None],
    }
    rows |= change
    (place / "interactions").mkdir()
    for name, contract in (("interactions/part-00000", INTERACTIONS), ("items", ITEMS), ("users", USERS)):
        write(place, f"{name}.parquet", contract, **rows)
    write(place, "quarantine.parquet", QUARANTINE, **{name: [] for name in QUARANTINE.column_names})


def examples(place: Path, **change: list[Any]) -> None:
    rows: dict[str, list[Any]] = {
        "example_id": [0, 1, 2, 3],
        "user_id": [f"{PERSON}-1"] * 4,
        "item_id": ["a", "b", "c", "d"],
        "timestamp_s": [1, 2, 3, 4],
        "split": ["train", "validation", "test", "holdout"],
        "item": [0, 1, 2, 3],
        "history": [[4, 5]] * 4,
        "history_ratings": [[1.0, None]] * 4,
        "label": [0, 1, 0, 1],
        "rating": [1.0, 5.0, 2.0, 4.0],
    }
    write(place, "examples.parquet", EXAMPLES, **(rows | change))


def scores(place: Path, **change: list[Any]) -> None:
    rows: dict[str, list[Any]] = {
        "example_id": [0, 1],
        "label": [0, 1],
        "group": ["test", "forgotten"],
        "model": ["original", "original"],
        "yes_probability": [0.25, 0.75],
    }
    write(place, "scores.parquet", SCORES, **(rows | change))


def tokens(place: Path, **change: list[Any]) -> None:
    rows: dict[str, list[Any]] = {
        "example_id": [0, 1, 2, 3],
        "user": [5, 6, 5, 7],
        "split": ["train", "validation", "test", "holdout"],
        "label": [0, 1, 0, 1],
        "token_ids": [[4711, 5, 6], [7], [8, 9], [1]],
    }
    write(place, "tokens.parquet", TOKENS, **(rows | change))


@pytest.mark.parametrize(
    ("kind", "fill"),
    [(Interactions, interactions), (Examples, examples), (Tokens, tokens), (Scores, scores)],
    ids=lambda kind: kind.__name__,
)
def test_tables_that_keep_their_contract_pass(tmp_path: Path, kind: type[Artifact], fill: Any) -> None:
    fill(tmp_path)
    _gate.check(kind, tmp_path, {})


@pytest.mark.parametrize(
    ("kind", "fill", "change", "fact", "table"),
    [
        (
            Interactions,
            interactions,
            {"rating": [3.0, float("nan")]},
            "1 of 2 rows break the rule `rating finite`",
            "interactions/part-00000",
        ),
        (
            Interactions,
            interactions,
            {"timestamp_s": [20, 10]},
            "1 of 2 rows break the rule `sorted by timestamp_s`",
            "interactions/part-00000",
        ),
        (
            Interactions,
            interactions,
            {"timestamp_s": [10, 978300019000]},
            "1 of 2 rows break the rule `timestamp_s between",
            "interactions/part-00000",
        ),
        (
            Interactions,
            interactions,
            {"item_id": ["i1", "i1"], "user_id": ["a", "b"]},
            "2 of 2 rows break the rule `item_id unique`",
            "items",
        ),
        (Interactions, interactions, {"user_id": ["b", "b"]}, "2 of 2 rows break the rule `user_id unique`", "users"),
        (Examples, examples, {"label": [0, 1, 2, 3]}, "2 of 4 rows break the rule `label one of 0, 1`", "examples"),
        (Examples, examples, {"split": ["train", "exam", "test", "exam"]}, "2 of 4 rows break the rule `split one of", "examples"),
        (Examples, examples, {"rating": [1.0, float("inf"), None, 2.0]}, "1 of 4 rows break the rule `rating finite`", "examples"),
        (Tokens, tokens, {"example_id": [0, 1, 1, 3]}, "2 of 4 rows break the rule `example_id unique`", "tokens"),
        (Tokens, tokens, {"split": ["train", "exam", "test", "exam"]}, "2 of 4 rows break the rule `split one of", "tokens"),
        (Tokens, tokens, {"label": [0, 1, 2, 3]}, "2 of 4 rows break the rule `label one of 0, 1`", "tokens"),
        (Scores, scores, {"yes_probability": [0.5, 1.5]}, "1 of 2 rows break the rule `yes_probability between 0 and 1`", "scores"),
        (Scores, scores, {"yes_probability": [0.5, float("nan")]}, "1 of 2 rows break the rule `yes_probability finite`", "scores"),
    ],
)
def test_a_broken_rule_is_refused_with_its_name_its_rows_and_no_user(
    tmp_path: Path, kind: type[Artifact], fill: Any, change: dict[str, list[Any]], fact: str, table: str
) -> None:
    fill(tmp_path, **change)
    with pytest.raises(ContractBroken) as caught:
        _gate.check(kind, tmp_path, {})
    assert caught.value.fact.startswith(fact)
    assert caught.value.facts["table"] == f"{table}.parquet"
    assert str(caught.value.facts["example 1"]).startswith("row ")
    assert PERSON not in str(caught.value)


def test_no_more_than_three_rows_are_shown(tmp_path: Path) -> None:
    examples(tmp_path, label=[2, 3, 4, 5])
    with pytest.raises(ContractBroken) as caught:
        _gate.check(Examples, tmp_path, {})
    assert caught.value.fact.startswith("4 of 4 rows break")
    assert [name for name in caught.value.facts if name.startswith("example")] == ["example 1", "example 2", "example 3"]


def test_every_other_broken_rule_is_counted_too(tmp_path: Path) -> None:
    examples(tmp_path, label=[0, 1, 2, 1], split=["train", "exam", "test", "exam"])
    with pytest.raises(ContractBroken) as caught:
        _gate.check(Examples, tmp_path, {})
    told = str(caught.value)
    assert "split one of" in told
    assert "label one of 0, 1" in told
    assert "(2 rows)" in told or "(1 rows)" in told


def test_an_empty_table_breaks_its_contract(tmp_path: Path) -> None:
    examples(tmp_path, **{name: [] for name in EXAMPLES.column_names})
    with pytest.raises(ContractBroken, match="the table breaks the rule `has rows` of the contract `examples`\n"):
        _gate.check(Examples, tmp_path, {})


def logits(place: Path, part: Part, *, rotten: int | None) -> None:
    contract = teacher_logits(3, 3, part)
    names = contract.column_names
    last = "augmented" if part == "forgotten" else "original"
    rows: dict[str, list[Any]] = {
        "example_id": list(range(40)),
        "label": [1] * 40,
        "original": [[0.5, 0.25, 0.125]] * 40,
        "augmented": [[0.5, 0.25, 0.125]] * 40,
        "support": [[4711, 2, 3]] * 40,
    }
    if rotten is not None:
        rows[last] = [[float("nan"), 0.0, 0.0] if row == rotten else [0.5, 0.25, 0.125] for row in range(40)]
    table = pa.table([rows[name] for name in names], schema=contract.schema())
    pq.write_table(table, place / FILES[part], row_group_size=8)


FILES = {"forgotten": "forgotten.parquet", "retained": "original.parquet"}


@pytest.mark.parametrize(
    ("kind", "part", "column"),
    [(TeacherLogits, "forgotten", "augmented"), (OriginalLogits, "retained", "original")],
    ids=["teachers", "original"],
)
def test_outputs_of_teachers_are_checked_group_by_group_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Artifact], part: Part, column: str
) -> None:
    monkeypatch.setattr(_gate, "BYTES_AT_A_TIME", 1)
    logits(tmp_path, part, rotten=None)
    _gate.check(kind, tmp_path, {})
    logits(tmp_path, part, rotten=39)
    with pytest.raises(ContractBroken, match=f"1 of 40 rows break the rule `{column} finite`") as caught:
        _gate.check(kind, tmp_path, {})
    assert caught.value.facts["table"] == FILES[part]
    assert "4711" not in str(caught.value)


def test_the_original_s_outputs_need_no_augmented_model_and_those_on_rows_to_forget_do(tmp_path: Path) -> None:
    logits(tmp_path, "retained", rotten=None)
    (tmp_path / "original.parquet").rename(tmp_path / "forgotten.parquet")
    with pytest.raises(ContractBroken, match="augmented"):
        _gate.check(TeacherLogits, tmp_path, {})


def test_what_promises_no_table_is_not_asked_for_one(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    _gate.check(Original, tmp_path, {})
