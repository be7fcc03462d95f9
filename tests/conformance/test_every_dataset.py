"""What holds of every dataset, read from an invented source where it needs one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from data_contracts.expectations import violations
from data_contracts.interactions import INTERACTIONS, ITEMS, USERS
from e2urec_core.artifacts import file_digest
from e2urec_core.data.prompts import PromptRule, build_prompts
from e2urec_core.datasets.base import Dataset, Tables, ordered
from e2urec_core.errors import UserError
from e2urec_core.plugins import load

Mini = Callable[[str], Dataset]


def digests(dataset: Dataset) -> dict[str, str]:
    path = getattr(dataset, "path", None)
    return {} if path is None else {file.name: file_digest(file) for file in Path(path).iterdir()}


def same(one: Tables, other: Tables) -> bool:
    return one.interactions.equals(other.interactions) and one.items.equals(other.items) and one.users.equals(other.users)


def test_its_tables_keep_their_contracts(dataset_kind: str, mini_dataset: Mini) -> None:
    tables = ordered(mini_dataset(dataset_kind).read())
    for contract, frame in ((INTERACTIONS, tables.interactions), (ITEMS, tables.items), (USERS, tables.users)):
        table: pa.Table = frame.to_arrow()
        assert violations(contract, table) == []


def test_it_has_the_columns_of_its_tables_and_no_others(dataset_kind: str, mini_dataset: Mini) -> None:
    tables = mini_dataset(dataset_kind).read()
    assert dict(tables.interactions.schema) == {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp_s": pl.Int64}
    assert dict(tables.items.schema) == {"item_id": pl.String, "title": pl.String}
    assert dict(tables.users.schema) == {"user_id": pl.String, "profile": pl.String, "cohort": pl.String}


def test_it_reads_the_same_rows_twice(dataset_kind: str, mini_dataset: Mini) -> None:
    dataset = mini_dataset(dataset_kind)
    assert same(dataset.read(), dataset.read())
    assert same(dataset.read(), type(dataset).model_validate_json(dataset.model_dump_json()).read())


def test_it_leaves_its_files_untouched_and_its_fingerprint_follows_their_bytes(dataset_kind: str, mini_dataset: Mini) -> None:
    dataset = mini_dataset(dataset_kind)
    before, fingerprint = digests(dataset), dataset.fingerprint()
    dataset.read()
    assert digests(dataset) == before
    assert dataset.fingerprint() == fingerprint
    for name in before:
        file = Path(dataset.path) / name  # type: ignore[attr-defined]
        whole = file.read_bytes()
        file.write_bytes(whole + b"\n")
        assert dataset.fingerprint() != fingerprint, name
        file.write_bytes(whole)


def test_prompts_can_be_made_of_it(dataset_kind: str, mini_dataset: Mini) -> None:
    rows = build_prompts(ordered(mini_dataset(dataset_kind).read()), PromptRule())
    assert rows.height > 0
    assert set(rows["label"].unique()) == {0, 1}
    assert rows["prompt"].str.len_chars().min() > 20


def test_it_names_its_licence_and_its_source(dataset_kind: str) -> None:
    member = load(Dataset.package, dataset_kind)
    assert member.licence
    assert member.source


def test_a_source_that_is_not_there_is_refused_with_a_hint(dataset_kind: str, tmp_path: Path) -> None:
    member = load(Dataset.package, dataset_kind)
    if "path" not in member.model_fields:
        assert member().fingerprint() == "", "a dataset without files depends on its settings alone"
        return
    for settings in (member(), member(path=tmp_path / "nowhere"), member(path=tmp_path)):
        with pytest.raises(UserError) as refused:
            settings.read()
        assert refused.value.hint
        with pytest.raises(UserError):
            settings.fingerprint()
