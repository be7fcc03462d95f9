"""What holds of every dataset, read from an invented source where it needs one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.expectations import violations
from data_contracts.interactions import INTERACTIONS, ITEMS, USERS
from data_contracts.quarantine import QUARANTINE
from e2urec_core import stages
from e2urec_core.artifacts import file_digest
from e2urec_core.data.appending import read_counts
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.places import part_files
from e2urec_core.data.prompts import PromptRule, rendered
from e2urec_core.data.split import SplitRule
from e2urec_core.datasets.base import RAW, Dataset, Source
from e2urec_core.errors import UserError
from e2urec_core.plugins import load

Mini = Callable[[str], Dataset]
Shuffle = Callable[[str, Path], None]
KINDS = {
    "user_id": pl.String,
    "item_id": pl.String,
    "rating": pl.Float32,
    "timestamp_s": pl.Int64,
    "label": pl.Int8,
    "rule": pl.String,
    "file": pl.String,
}


def digests(dataset: Dataset) -> dict[str, str]:
    path = getattr(dataset, "path", None)
    return {} if path is None else {file.name: file_digest(file) for file in Path(path).iterdir()}


def stored(dataset: Dataset, folder: Path) -> Path:
    folder.mkdir()
    ingest(dataset, IngestRule(), folder)
    return folder


def bytes_of(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file_digest(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def test_what_is_stored_of_it_keeps_its_contracts(dataset_kind: str, mini_dataset: Mini, tmp_path: Path) -> None:
    folder = stored(mini_dataset(dataset_kind), tmp_path / "stored")
    (part,) = part_files(folder)
    places = ((INTERACTIONS, part), (ITEMS, folder / "items.parquet"), (USERS, folder / "users.parquet"))
    for contract, file in (*places, (QUARANTINE, folder / "quarantine.parquet")):
        table: pa.Table = pq.read_table(file)
        assert violations(contract, table) == []


def test_its_source_has_the_columns_that_the_gate_reads(dataset_kind: str, mini_dataset: Mini) -> None:
    source = mini_dataset(dataset_kind).scan()
    rows = source.rows.collect_schema()
    assert {name: rows[name] for name in KINDS} == KINDS
    assert rows["line"].is_integer()
    assert set(rows.names()) <= {*KINDS, "line", *RAW.values()}
    assert all(rows[name] == pl.String for name in RAW.values() if name in rows)
    if source.items is not None:
        assert source.items.collect_schema() == {"item_id": pl.String, "title": pl.String}
    if source.users is not None:
        assert source.users.collect_schema() == {"user_id": pl.String, "profile": pl.String, "cohort": pl.String}


def test_it_reads_the_same_rows_twice(dataset_kind: str, mini_dataset: Mini, tmp_path: Path) -> None:
    dataset = mini_dataset(dataset_kind)
    first = bytes_of(stored(dataset, tmp_path / "first"))
    assert bytes_of(stored(dataset, tmp_path / "second")) == first
    back = type(dataset).model_validate_json(dataset.model_dump_json())
    assert bytes_of(stored(back, tmp_path / "third")) == first


def test_it_leaves_its_files_untouched_and_its_fingerprint_follows_their_bytes(
    dataset_kind: str, mini_dataset: Mini, tmp_path: Path
) -> None:
    dataset = mini_dataset(dataset_kind)
    before, fingerprint = digests(dataset), dataset.fingerprint()
    stored(dataset, tmp_path / "stored")
    assert digests(dataset) == before
    assert dataset.fingerprint() == fingerprint
    for name in before:
        file = Path(dataset.path) / name  # type: ignore[attr-defined]
        whole = file.read_bytes()
        file.write_bytes(whole + b"\n")
        assert dataset.fingerprint() != fingerprint, name
        file.write_bytes(whole)


def test_no_row_is_lost_between_the_source_and_the_store(dataset_kind: str, mini_dataset: Mini, tmp_path: Path) -> None:
    dataset = mini_dataset(dataset_kind)
    folder = stored(dataset, tmp_path / "stored")
    told = read_counts(folder)["this_reading"]
    assert told["read"] == dataset.scan().rows.select(pl.len()).collect().item()
    aside = sum(told["quarantined"].values()) + sum(told["left_out"].values())
    assert told["read"] == told["kept"] + aside + told["repeated"] + told["deleted"] + told["already_held"]
    assert told["kept"] == sum(pq.read_metadata(part).num_rows for part in part_files(folder)) == read_counts(folder)["rows"]
    assert pq.read_metadata(folder / "quarantine.parquet").num_rows == sum(told["quarantined"].values())


def test_the_same_interaction_has_the_same_number_in_whatever_order_the_rows_stand(
    dataset_kind: str, mini_dataset: Mini, shuffled_source: Shuffle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = mini_dataset(dataset_kind)
    first, before = stored(dataset, tmp_path / "first"), digests(dataset)
    if before:
        shuffled_source(dataset_kind, Path(dataset.path))  # type: ignore[attr-defined]
        assert digests(dataset) != before
    else:
        source = dataset.scan()
        rows = source.rows.collect().sample(fraction=1, shuffle=True, seed=3).lazy()
        shuffled: Source = dataclasses.replace(source, rows=rows)
        monkeypatch.setattr(type(dataset), "scan", lambda self: shuffled)
    second = stored(dataset, tmp_path / "second")
    names = ("interactions/part-00000.parquet", "items.parquet", "users.parquet")
    assert {name: bytes_of(first)[name] for name in names} == {name: bytes_of(second)[name] for name in names}


def test_prompts_can_be_made_of_it(dataset_kind: str, mini_dataset: Mini, tmp_path: Path) -> None:
    folder, examples = stored(mini_dataset(dataset_kind), tmp_path / "stored"), tmp_path / "examples"
    examples.mkdir()
    stages.split(folder, HistoryRule(), SplitRule(holdout_share=0.0), 0, examples)
    labels, prompts = [], []
    for batch, texts in rendered(examples, folder, PromptRule()):
        labels += batch["label"].to_pylist()
        prompts += texts.to_pylist()
    assert set(labels) == {0, 1}
    assert min(map(len, prompts)) > 20


def test_it_names_its_licence_and_its_source(dataset_kind: str) -> None:
    member = load(Dataset.package, dataset_kind)
    assert member.licence
    assert member.source


def test_a_source_that_is_not_there_is_refused_with_a_hint(dataset_kind: str, tmp_path: Path) -> None:
    member = load(Dataset.package, dataset_kind)
    if "path" not in member.model_fields:
        assert member().fingerprint() == "", "a dataset without files depends on its settings alone"
        return
    for path in (None, str(tmp_path / "nowhere"), str(tmp_path)):
        settings = member.model_validate({"path": path})
        with pytest.raises(UserError) as refused:
            settings.scan()
        assert refused.value.hint
        with pytest.raises(UserError):
            settings.fingerprint()
