"""Writing what the teachers say: which rows, in which groups, in which form, and how much of it is in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_contracts.expectations import violations
from data_contracts.teacher_logits import cache_bytes, teacher_logits
from e2urec_core.checkpoints import KeptTables
from e2urec_core.data.batches import Prompts
from e2urec_core.data.teacher_scoring import FILES, Stamp, drawn_order, num_planned, write_forgotten, write_original
from e2urec_core.engine import Bench
from e2urec_core.methods.base import Problem
from e2urec_core.recommender import Recommender
from e2urec_core.settings import CacheRule

BENCH = Bench(seed=1)
RULE = CacheRule(support="top", top=5, rows_per_group=16, retained_per_forgotten=1)
OF_ROWS, OF_FORGOTTEN = Stamp("a" * 64, "b" * 64, "e" * 64), Stamp("a" * 64, "b" * 64, "c" * 64, "d" * 64)
SUPPORTS = ["full", "top", "answers"]
Teachers = tuple[Recommender, Recommender]


def groups(folder: Path, part: Any = "retained") -> list[pa.Table]:
    file = pq.ParquetFile(folder / FILES[part])
    return [file.read_row_group(number) for number in range(file.num_row_groups)]


def ids(folder: Path, part: Any = "retained") -> list[int]:
    found: list[int] = pq.read_table(folder / FILES[part])["example_id"].to_pylist()
    return found


def test_the_plan_takes_some_retained_rows_for_each_forgotten_one_but_no_more_than_there_are_and_never_none() -> None:
    # 10 * 2.5 = 25 of 100; 10 * 4 = 40, but there are 7; round(.1 * 3) = 0 would leave an endless draw without an end.
    assert num_planned(100, 10, CacheRule(retained_per_forgotten=2.5)) == 25
    assert num_planned(7, 10, CacheRule(retained_per_forgotten=4)) == 7
    assert num_planned(100, 3, CacheRule(retained_per_forgotten=0.1)) == 1


def test_a_plan_without_the_number_of_draws_is_our_own_bug() -> None:
    with pytest.raises(AssertionError, match="number of draws"):
        num_planned(100, 10, CacheRule())


def test_rows_come_in_the_order_drawn_over_all_training_rows_and_end_with_the_group_that_has_enough(
    first: Path, train: Prompts, gone: numpy.ndarray
) -> None:
    order = drawn_order(len(train), BENCH.seed)
    found = ids(first)
    assert found == train.example_ids[order[: len(found)]].tolist()
    kept = ~gone[order[: len(found)]]
    # 47 retained rows are planned; without the last group there would be fewer.
    assert kept.sum() >= 47 > kept[:-16].sum()
    assert [group.num_rows for group in groups(first)] == [16] * (len(found) // 16)


def test_a_plan_for_every_retained_row_takes_the_last_group_short(
    write: Callable[..., Path], gone: numpy.ndarray, train: Prompts, tmp_path: Path
) -> None:
    write(tmp_path, gone, RULE.model_copy(update={"retained_per_forgotten": 100}))
    order = drawn_order(len(train), BENCH.seed)
    last_retained = int(numpy.flatnonzero(~gone[order])[-1])
    # Whole groups up to the last retained row; 244 rows make 15 groups and 4 rows.
    assert len(ids(tmp_path)) == min(244, 16 * (last_retained // 16 + 1))
    assert set(train.example_ids[~gone].tolist()) <= set(ids(tmp_path))


def test_another_seed_draws_other_rows(first: Path, write: Callable[..., Path], gone: numpy.ndarray, tmp_path: Path) -> None:
    assert ids(write(tmp_path, gone, bench=Bench(seed=2)))[:16] != ids(first)[:16]


@pytest.fixture(scope="module")
def both(
    write: Callable[..., Path], teachers: Teachers, train: Prompts, gone: numpy.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Both files for every support."""
    made = {}
    for support in SUPPORTS:
        rule = RULE.model_copy(update={"support": support})
        made[support] = write(tmp_path_factory.mktemp(support), gone, rule)
        write_forgotten(made[support], *teachers, train.select(numpy.flatnonzero(gone)), rule, OF_FORGOTTEN, BENCH)
    return made


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("part", FILES)
def test_a_file_keeps_its_contract_in_groups_of_the_asked_size(both: dict[str, Path], part: Any, support: str) -> None:
    table = pq.read_table(both[support] / FILES[part])
    width = table.schema.field("original").type.list_size
    num_ids = table.schema.field("support").type.list_size if "support" in table.column_names else None
    assert (width, num_ids) == {"full": (320, None), "top": (6, 5), "answers": (2, 2)}[support]
    assert violations(teacher_logits(width, num_ids, part), table) == []
    assert table.column_names == list(teacher_logits(width, num_ids, part).column_names)
    sizes = [group.num_rows for group in groups(both[support], part)]
    assert sizes[:-1] == [16] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= 16


@pytest.mark.parametrize("part", FILES)
def test_a_file_names_examples_and_labels_but_no_user(both: dict[str, Path], train: Prompts, part: Any) -> None:
    table = pq.read_table(both["answers"] / FILES[part]).to_pydict()
    labels = dict(zip(train.example_ids.tolist(), train.labels.tolist(), strict=True))
    assert dict(zip(table["example_id"], table["label"], strict=True)).items() <= labels.items()
    assert set(table) <= {"example_id", "label", "original", "augmented", "support"}


def test_forgotten_rows_are_all_there_in_a_random_order(both: dict[str, Path], train: Prompts, gone: numpy.ndarray) -> None:
    expected = train.example_ids[gone].tolist()
    assert sorted(ids(both["top"], "forgotten")) == sorted(expected)
    assert ids(both["top"], "forgotten") != expected


def test_the_files_are_about_as_large_as_their_formula_says(both: dict[str, Path]) -> None:
    num_forgotten, num_retained = (len(ids(both["full"], part)) for part in ("forgotten", "retained"))
    size = sum((both["full"] / file).stat().st_size for file in FILES.values())
    formula = cache_bytes(num_forgotten, num_retained, 320, None)
    # Compression takes a tenth at most off floats that look random; row groups add some 2 KB each for footers and page headers.
    assert 0.8 * formula < size < formula + 30_000


def test_no_more_rows_than_a_row_group_are_scored_before_they_are_written(
    write: Callable[..., Path], teachers: Teachers, train: Prompts, gone: numpy.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, told = [], [0]
    write_table = pq.ParquetWriter.write_table

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        events.append(done - told[0])
        told[0] = done % total

    def noted(writer: pq.ParquetWriter, table: pa.Table, *rest: Any, **more: Any) -> None:
        events.append(-table.num_rows)
        write_table(writer, table, *rest, **more)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", noted)
    # Rows of 84 tokens or more: five or fewer are scored together.
    bench = dataclasses.replace(BENCH, watch=watch, token_budget=500)
    write(tmp_path, gone, bench=bench)
    write_forgotten(tmp_path, *teachers, train.select(numpy.flatnonzero(gone)), RULE, OF_FORGOTTEN, bench)
    waiting = numpy.cumsum(events)
    assert waiting.max() == 16
    assert waiting[-1] == 0
    assert -sum(event for event in events if event < 0) == len(ids(tmp_path)) + 47


class Killed(Exception):
    """Ends the writing as a kill would."""


def test_row_groups_that_were_finished_before_a_kill_are_scored_by_none_again(
    first: Path, write: Callable[..., Path], gone: numpy.ndarray, asked: Any, tmp_path: Path
) -> None:
    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        if done > 32:
            raise Killed

    with pytest.raises(Killed):
        write(tmp_path, gone, bench=dataclasses.replace(BENCH, watch=watch), kept=KeptTables(tmp_path / "kept"))
    asked.rows.clear()
    write(tmp_path, gone, kept=KeptTables(tmp_path / "kept"))
    # Two groups of 16 were finished.
    assert asked.total() == len(ids(first)) - 32
    assert (tmp_path / FILES["retained"]).read_bytes() == (first / FILES["retained"]).read_bytes()


@pytest.mark.parametrize("top", [320, 4096])
def test_a_support_as_large_as_the_vocabulary_keeps_a_finite_remainder(
    write: Callable[..., Path], gone: numpy.ndarray, tmp_path: Path, top: int
) -> None:
    write(tmp_path, gone, RULE.model_copy(update={"top": top, "retained_per_forgotten": 0.2}))
    outputs = pq.read_table(tmp_path / FILES["retained"])["original"].combine_chunks()
    # 319 words and what the last one weighs.
    assert outputs.type.list_size == 320
    assert bool(numpy.isfinite(outputs.flatten().to_numpy()).all())


def test_writing_leaves_the_teachers_and_the_rows_as_they_were(
    both: dict[str, Path], teachers: Teachers, train: Prompts, gone: numpy.ndarray, tmp_path: Path
) -> None:
    before = [weight.clone() for teacher in teachers for weight in teacher.network.parameters()]
    flat = train.flat.copy()
    write_original(tmp_path, teachers[0], train, gone, RULE, OF_ROWS, BENCH)
    write_forgotten(tmp_path, *teachers, train.select(numpy.flatnonzero(gone)), RULE, OF_FORGOTTEN, BENCH)
    after = [weight for teacher in teachers for weight in teacher.network.parameters()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert numpy.array_equal(flat, train.flat)
    for file in FILES.values():
        assert (tmp_path / file).read_bytes() == (both["top"] / file).read_bytes()


def test_teachers_drop_nothing_though_their_networks_were_training(
    build_tiny: Callable[..., Recommender], train: Prompts, gone: numpy.ndarray, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        noisy = [build_tiny("tiny_t5", seed=seed, dropout=0.5) for seed in (0, 1)]
        for teacher in noisy:
            teacher.network.train()
        write_original(tmp_path / name, noisy[0], train, gone, RULE, OF_ROWS, BENCH)
        noisy[0].network.train()
        write_forgotten(tmp_path / name, *noisy, train.select(numpy.flatnonzero(gone)), RULE, OF_FORGOTTEN, BENCH)
    for file in FILES.values():
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_stamp_changes_with_the_weights_of_either_model_the_tokenizer_and_the_rows(tiny_problem: Problem, tmp_path: Path) -> None:
    for name in ("original", "augmented"):
        (tmp_path / name).mkdir()
        tiny_problem.original.save(tmp_path / name)
    folders = (tmp_path / "original", tmp_path / "augmented")
    before = Stamp.of(tiny_problem.forgotten, *folders)
    assert Stamp.of(tiny_problem.forgotten, *folders) == before
    assert Stamp.of(tiny_problem.forgotten, folders[0]) == dataclasses.replace(before, augmented="")

    def changed(rows: Prompts) -> list[str]:
        now = Stamp.of(rows, *folders)
        return [field.name for field in dataclasses.fields(Stamp) if getattr(now, field.name) != getattr(before, field.name)]

    harmed = {"original/model.safetensors": "original", "augmented/model.safetensors": "augmented", "original/tokenizer.json": "tokenizer"}
    for file, name in harmed.items():
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(whole + b" ")
        assert changed(tiny_problem.forgotten) == [name]
        (tmp_path / file).write_bytes(whole)
    rows = tiny_problem.forgotten
    for other in (
        dataclasses.replace(rows, labels=1 - rows.labels),
        dataclasses.replace(rows, example_ids=rows.example_ids + 1),
        dataclasses.replace(rows, flat=rows.flat + 1),
    ):
        assert changed(other) == ["rows"]
