"""The mean of several copies of one recommender, each trained in an order of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.engine import Bench
from e2urec_core.methods.base import Method, Outcome, Problem
from e2urec_core.methods.retain_only import RetainOnly
from e2urec_core.recommender import Recommender
from e2urec_core.seeding import derived_seed
from e2urec_core.settings import Training

SHORT = Training(num_epochs=1, batch_size=16, learning_rate=3e-3)
SAME_MEAN = 1e-7
"""Two orders of one sum of weights below 1, in 32 bits."""


def trained(problem: Problem, bench: Bench, **knobs: Any) -> Outcome:
    return RetainOnly(rows="all", training=SHORT, **knobs).unlearn(problem, bench)


def weights(recommender: Recommender) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in recommender.network.parameters()])


def test_copies_begin_with_the_runs_seed_and_go_on_with_others_and_the_weights_are_their_mean(tiny_problem: Problem, bench: Bench) -> None:
    before = weights(tiny_problem.original).clone()
    outcome = trained(tiny_problem, bench, num_copies=3)
    seeds = (bench.seed, derived_seed(bench.seed, "copy-1"), derived_seed(bench.seed, "copy-2"))
    alone = [trained(tiny_problem, Bench(seed)) for seed in seeds]
    one, two, three = (weights(each.recommender) for each in alone)
    assert not torch.equal(one, two)
    assert torch.allclose(weights(outcome.recommender), (one + two + three) / 3, rtol=0, atol=SAME_MEAN)
    # 197 retained rows in batches of 16 are 13 steps a copy.
    assert [len(each.fitted.curve) for each in (*alone, outcome)] == [13, 13, 13, 39]
    assert torch.equal(weights(tiny_problem.original), before)


def test_one_copy_is_what_the_method_was_without_copies_and_several_are_the_same_bits_twice(tiny_problem: Problem, bench: Bench) -> None:
    twice = [weights(trained(tiny_problem, bench, num_copies=2).recommender) for _ in range(2)]
    assert torch.equal(*twice)
    assert torch.equal(weights(trained(tiny_problem, bench, num_copies=1).recommender), weights(trained(tiny_problem, bench).recommender))


def test_copies_keep_checkpoints_apart_and_a_killed_training_ends_in_the_same_bits(
    tiny_problem: Problem, bench: Bench, tmp_path: Path
) -> None:
    kept = dataclasses.replace(bench, checkpoints=Checkpoints(tmp_path, every_s=1e9, every_steps=5))
    first = weights(trained(tiny_problem, kept, num_copies=2).recommender)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy-0", "copy-1"]
    # What is left after a kill: both go on from their tenth step of 13.
    again = dataclasses.replace(bench, checkpoints=Checkpoints(tmp_path, every_s=1e9, every_steps=5))
    assert torch.equal(first, weights(trained(tiny_problem, again, num_copies=2).recommender))
    assert torch.equal(first, weights(trained(tiny_problem, bench, num_copies=2).recommender))


def test_the_watcher_sees_one_training_of_all_copies(tiny_problem: Problem, bench: Bench) -> None:
    seen: list[tuple[int, int]] = []
    trained(tiny_problem, dataclasses.replace(bench, watch=lambda done, total, unit, numbers: seen.append((done, total))), num_copies=2)
    assert seen == [(step, 26) for step in range(1, 27)]


def test_the_mean_of_adapters_is_refused() -> None:
    with pytest.raises(ValidationError, match="2 copies are averaged weight by weight"):
        Method.model_validate({"kind": "retain_only", "num_copies": 2, "trains": "adapter"})
