"""Scores on disk: the same as a recommender gives in memory, with one model and one row group in memory at a time.

Tolerance `BATCHED`: rows are scored in other batches than by `Recommender.score`, so 32-bit sums run in another order.
"""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet as pq
import pytest

from data_contracts.expectations import violations
from data_contracts.scores import SCORES
from e2urec_core import scoring
from e2urec_core.checkpoints import KeptTables
from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.evaluation import GROUPS
from e2urec_core.recommender import Recommender, load
from e2urec_core.scoring import FILE, read_scores, write_scores, yes_probabilities

BATCHED = 1e-6
BENCH = Bench(seed=0)
NAMES = ["original", "retrain", "e2urec"]


@pytest.fixture(scope="module")
def models(build_tiny: Callable[..., Recommender], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """Three recommenders that answer differently, saved."""
    made = []
    for seed, name in enumerate(NAMES):
        folder = tmp_path_factory.mktemp(name)
        build_tiny("tiny_t5", seed=seed).save(folder)
        made.append((name, folder))
    return made


@pytest.fixture(scope="module")
def rows(build_tiny: Callable[..., Recommender], rows_of: Callable[[Recommender, str], Prompts]) -> dict[str, Prompts]:
    return {group: rows_of(build_tiny("tiny_t5"), group) for group in GROUPS}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 25 rows, so that the larger groups of rows fill several."""
    monkeypatch.setattr(scoring, "ROWS_PER_GROUP", 25)


def test_what_is_read_back_is_what_each_recommender_says(models: list[tuple[str, Path]], rows: dict[str, Prompts], tmp_path: Path) -> None:
    assert write_scores(tmp_path, models, rows, BENCH) == 3 * sum(map(len, rows.values()))
    found = read_scores(tmp_path, NAMES)
    assert list(found) == list(GROUPS)
    for name, folder in models:
        for group in GROUPS:
            expected = load(folder).score(rows[group])
            assert found[group].yes[name] == pytest.approx(expected, abs=BATCHED)
            assert found[group].example_ids.tolist() == rows[group].example_ids.tolist()
            assert found[group].labels.tolist() == rows[group].labels.tolist()
    apart = numpy.abs(found["test"].yes["original"] - found["test"].yes["retrain"])
    assert apart.max() > 10 * BATCHED, "models must answer differently"


def test_the_file_keeps_its_contract_in_several_row_groups(
    models: list[tuple[str, Path]], rows: dict[str, Prompts], tmp_path: Path
) -> None:
    write_scores(tmp_path, models, rows, BENCH)
    file = pq.ParquetFile(tmp_path / FILE)
    assert violations(SCORES, file.read()) == []
    assert file.schema_arrow.equals(SCORES.schema())
    # 67 test rows: 25, 25, 17; 47 forgotten ones: 25, 22; 12 of the holdout, 18 of the forgotten users' tests.
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [25, 25, 17, 25, 22, 12, 18] * 3


def test_scores_do_not_depend_on_the_budget_and_are_those_of_the_bench_in_memory(
    models: list[tuple[str, Path]], rows: dict[str, Prompts]
) -> None:
    recommender = load(models[0][1])
    small = yes_probabilities(recommender, rows["test"], dataclasses.replace(BENCH, token_budget=130))
    assert small == pytest.approx(yes_probabilities(recommender, rows["test"], BENCH), abs=BATCHED)
    assert small.dtype == numpy.float64


def test_scoring_drops_nothing_though_the_network_was_training(build_tiny: Callable[..., Recommender], rows: dict[str, Prompts]) -> None:
    noisy = build_tiny("tiny_t5", dropout=0.5)
    noisy.network.train()
    first = yes_probabilities(noisy, rows["test"], BENCH)
    noisy.network.train()
    assert numpy.array_equal(yes_probabilities(noisy, rows["test"], BENCH), first)


def test_one_model_is_in_memory_at_a_time_and_each_is_read_once(
    models: list[tuple[str, Path]], rows: dict[str, Prompts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    alive: list[weakref.ref[Any]] = []

    def noted(folder: Path, device: Any) -> Recommender:
        # The cycles of a network that was let go are collected when Python likes.
        gc.collect()
        assert [network for network in alive if network() is not None] == []
        recommender = load(folder, device)
        opened.append(folder)
        alive.append(weakref.ref(recommender.network))
        return recommender

    monkeypatch.setattr(scoring, "load", noted)
    write_scores(tmp_path, models, rows, BENCH)
    assert opened == [folder for _, folder in models]


class Killed(Exception):
    """Ends the scoring as a kill would."""


def test_row_groups_that_were_finished_before_a_kill_are_scored_by_none_again(
    models: list[tuple[str, Path]], rows: dict[str, Prompts], asked: Any, tmp_path: Path
) -> None:
    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        # Into the second model: 144 rows of the first, and 25 + 25.
        if done == 144 + 50:
            raise Killed

    with pytest.raises(Killed):
        write_scores(tmp_path, models, rows, dataclasses.replace(BENCH, watch=watch), KeptTables(tmp_path / "kept"))
    asked.rows.clear()
    write_scores(tmp_path, models, rows, BENCH, KeptTables(tmp_path / "kept"))
    # The group that was just being made is lost; all before it are kept.
    assert asked.total() == 3 * 144 - (144 + 25)
    whole = tmp_path / "whole"
    whole.mkdir()
    write_scores(whole, models, rows, BENCH)
    assert (tmp_path / FILE).read_bytes() == (whole / FILE).read_bytes()


def test_a_model_whose_row_groups_are_all_kept_is_not_even_read(
    models: list[tuple[str, Path]], rows: dict[str, Prompts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scores(tmp_path, models[:1], rows, BENCH, KeptTables(tmp_path / "kept"))
    opened: list[Path] = []
    monkeypatch.setattr(scoring, "load", lambda folder, device: opened.append(folder) or load(folder, device))
    write_scores(tmp_path, models, rows, BENCH, KeptTables(tmp_path / "kept"))
    assert opened == [folder for _, folder in models[1:]]


def test_the_watcher_is_told_of_every_row_of_every_model(models: list[tuple[str, Path]], rows: dict[str, Prompts], tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    watched = dataclasses.replace(BENCH, watch=lambda done, total, unit, numbers: told.append((done, total, unit)))
    write_scores(tmp_path, models[:2], rows, watched)
    # 2 * 144 rows, in the steps of the row groups
    assert told == [(done, 288, "rows") for done in numpy.cumsum([25, 25, 17, 25, 22, 12, 18] * 2).tolist()]


def test_a_group_without_rows_is_read_back_as_such(models: list[tuple[str, Path]], rows: dict[str, Prompts], tmp_path: Path) -> None:
    none = rows["forgotten_test"].select(numpy.arange(0))
    write_scores(tmp_path, models[:1], {**rows, "forgotten_test": none}, BENCH)
    found = read_scores(tmp_path, ["original"])["forgotten_test"]
    assert (len(found.example_ids), len(found.labels), len(found.yes["original"])) == (0, 0, 0)
