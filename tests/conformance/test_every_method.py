"""What holds of every way to unlearn, run on the tiny problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from e2urec_core.artifacts import KINDS, file_digest
from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.errors import UserError
from e2urec_core.methods.base import Method, Outcome, Problem
from e2urec_core.recommender import load

MERGED = 1e-5
"""Folding an adapter into the weights rounds them once more in 32 bits."""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """What every method made of the tiny problem, each run once."""
    return {}


@pytest.fixture
def problem(
    method_kind: str,
    small_method: Callable[[str], Method],
    tiny_problem: Problem,
    bench: Bench,
    with_shards: Callable[[Method, Problem, Bench], Problem],
) -> Problem:
    """The tiny problem, with the shards of the method that needs some."""
    return with_shards(small_method(method_kind), tiny_problem, bench)


@pytest.fixture
def outcome(
    method_kind: str, small_method: Callable[[str], Method], problem: Problem, bench: Bench, outcomes: dict[str, Outcome]
) -> Outcome:
    if method_kind not in outcomes:
        outcomes[method_kind] = small_method(method_kind).unlearn(problem, bench)
    return outcomes[method_kind]


def test_it_says_what_it_is_called_and_needs_known_artifacts(method_kind: str, small_method: Callable[[str], Method]) -> None:
    method = small_method(method_kind)
    assert method.title
    assert method.needs <= set(KINDS.values())
    assert [kind for kind in KINDS.values() if method.wants(kind)] == [kind for kind in KINDS.values() if kind in method.needs]


def test_it_gives_a_recommender_that_answers_every_row(outcome: Outcome, problem: Problem) -> None:
    scores = outcome.recommender.score(problem.forgotten)
    assert scores.shape == (len(problem.forgotten),)
    assert bool(numpy.isfinite(scores).all())
    assert bool(((scores >= 0) & (scores <= 1)).all())


def test_it_changes_the_answers_on_forgotten_rows_unless_it_says_that_it_trains_nothing(
    method_kind: str, small_method: Callable[[str], Method], outcome: Outcome, problem: Problem
) -> None:
    moved = numpy.abs(outcome.recommender.score(problem.forgotten) - problem.original.score(problem.forgotten))
    if small_method(method_kind).trains_nothing:
        assert moved.max() == 0
    else:
        assert moved.max() > 1e-4


def test_it_reports_seconds_steps_and_trained_parameters(method_kind: str, small_method: Callable[[str], Method], outcome: Outcome) -> None:
    counts, idle = outcome.recommender.count(), small_method(method_kind).trains_nothing
    trained = (outcome.fitted.seconds > 0, len(outcome.fitted.curve) > 0, counts["trainable_parameters"] > 0)
    assert set(trained) == {not idle}
    assert counts["trainable_parameters"] <= counts["total_parameters"]
    assert [point.step for point in outcome.fitted.curve] == list(range(1, len(outcome.fitted.curve) + 1))
    assert all(numpy.isfinite(point.loss) for point in outcome.fitted.curve)


def test_the_same_seed_gives_the_same_bits(
    method_kind: str, small_method: Callable[[str], Method], outcome: Outcome, problem: Problem, bench: Bench
) -> None:
    torch.rand(3)
    again = small_method(method_kind).unlearn(problem, bench)
    one, other = outcome.recommender.network.state_dict(), again.recommender.network.state_dict()
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert again.fitted.curve == outcome.fitted.curve


def test_it_leaves_its_inputs_untouched(
    method_kind: str, small_method: Callable[[str], Method], problem: Problem, bench: Bench, tiny_teachers_folder: Path
) -> None:
    def state() -> dict[str, bytes]:
        weights = {name: weight.numpy().tobytes() for name, weight in problem.original.network.state_dict().items()}
        rows = {"retained": problem.retained, "forgotten": problem.forgotten, "validation": problem.validation}
        arrays = {
            f"{part}.{field.name}": getattr(prompts, field.name).tobytes()
            for part, prompts in rows.items()
            for field in dataclasses.fields(Prompts)
        }
        folders = [tiny_teachers_folder, *([problem.shards.folder] if problem.shards else [])]
        kept = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        files = {f"{path.parent.name}/{path.name}": file_digest(path).encode() for path in kept}
        trainable = {name: bytes([weight.requires_grad]) for name, weight in problem.original.network.named_parameters()}
        return {**weights, **arrays, **files, **{f"{name} trains": flag for name, flag in trainable.items()}}

    before = state()
    assert {"forgotten.parquet", "original.parquet"} <= {name.split("/")[-1] for name in before}
    assert not problem.shards or any(name.endswith("weights.safetensors") for name in before)
    small_method(method_kind).unlearn(problem, bench)
    after = state()
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []


def test_what_is_saved_answers_like_what_was_made(outcome: Outcome, problem: Problem, tmp_path: Path) -> None:
    expected = outcome.recommender.score(problem.forgotten)
    merged = outcome.recommender.merged()
    assert merged.score(problem.forgotten) == pytest.approx(expected, abs=MERGED)
    merged.save(tmp_path)
    assert numpy.array_equal(load(tmp_path).score(problem.forgotten), merged.score(problem.forgotten))
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_it_refuses_an_empty_forget_set(method_kind: str, small_method: Callable[[str], Method], problem: Problem, bench: Bench) -> None:
    rows = problem.forgotten
    empty = dataclasses.replace(rows, example_ids=rows.example_ids[:0], labels=rows.labels[:0], flat=rows.flat[:0], starts=rows.starts[:1])
    with pytest.raises(UserError) as refused:
        small_method(method_kind).unlearn(dataclasses.replace(problem, forgotten=empty), bench)
    assert refused.value.hint


def test_it_tells_the_watcher_of_every_step(
    method_kind: str, small_method: Callable[[str], Method], problem: Problem, outcome: Outcome, bench: Bench
) -> None:
    told: list[tuple[int, int]] = []
    watched = dataclasses.replace(bench, watch=lambda done, total, unit, numbers: told.append((done, total)))
    method = small_method(method_kind)
    method.unlearn(problem, watched)
    assert bool(told) != method.trains_nothing
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert all(done <= total for done, total in told)
