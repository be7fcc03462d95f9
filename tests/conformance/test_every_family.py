"""Every method on a network of every family: encoder and decoder with and without absolute positions, and a decoder alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy
import pytest

from e2urec_core.data.batches import Prompts
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.engine import Bench
from e2urec_core.methods.base import Method, Problem
from e2urec_core.plugins import load as member_of
from e2urec_core.recommender import Recommender, load
from e2urec_core.settings import CacheRule, Training
from e2urec_core.sharding.system import ShardsFolder, write_shards
from e2urec_core.training import fit_answers

# The whole battery of `test_every_method.py` runs on the first.
FAMILIES = [pytest.param("tiny_t5", marks=pytest.mark.long), "tiny_bart", "causal_lm:gpt2"]
SHORT = Training(num_epochs=1, batch_size=16, learning_rate=1e-2)
MERGED = 1e-5
"""Folding an adapter into the weights rounds them once more in 32 bits."""


class Family(NamedTuple):
    """A tiny problem of one family, and all of its training rows."""

    problem: Problem
    train: Prompts


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest,
    build_tiny: Callable[..., Recommender],
    rows_of: Callable[[Recommender, str], Prompts],
    cache_teachers: Callable[..., TeacherCache],
    bench: Bench,
    tmp_path_factory: pytest.TempPathFactory,
) -> Family:
    """An original that was trained for one pass, with the outputs of two teachers."""
    original = build_tiny(request.param)
    parts = {part: rows_of(original, part) for part in ("retained", "forgotten", "validation")}
    train = rows_of(original, "train")
    fit_answers(original, train, parts["validation"], SHORT, bench, purpose="original")
    rule = CacheRule(rows_per_group=16, retained_per_forgotten=4)
    teachers = cache_teachers(tmp_path_factory.mktemp("teachers"), original, original, rule, bench)
    return Family(Problem(original, **parts, teachers=teachers, fresh=lambda seed: build_tiny(request.param, seed), training=SHORT), train)


def short(kind: str) -> Method:
    """The method with one pass of large steps, in two shards."""
    member = member_of(Method.package, kind)
    changed = {"training": {"num_epochs": 1, "batch_size": 16, "learning_rate": 1e-2}, "num_shards": 2}
    usual = member().canonical()
    small = {name: {**usual[name], **value} if isinstance(value, dict) else value for name, value in changed.items() if name in usual}
    method: Method = member(**small)
    return method


def test_it_forgets_is_saved_and_answers(method_kind: str, family: Family, bench: Bench, tmp_path: Path) -> None:
    method, problem = short(method_kind), family.problem
    if (sharding := method.sharding(SHORT)) is not None:
        assert problem.fresh is not None
        (tmp_path / "shards").mkdir()
        _, told = write_shards(tmp_path / "shards", family.train, problem.validation, sharding, problem.fresh, problem.original, bench)
        (tmp_path / "shards" / "facts.json").write_text(json.dumps(told))
        problem = dataclasses.replace(problem, shards=ShardsFolder(tmp_path / "shards"))
    made = method.unlearn(problem, bench).recommender
    scores = made.score(problem.forgotten)
    assert bool(numpy.isfinite(scores).all())
    moved = numpy.abs(scores - problem.original.score(problem.forgotten)).max()
    assert (moved == 0) == method.trains_nothing
    (tmp_path / "saved").mkdir()
    made.merged().save(tmp_path / "saved")
    assert load(tmp_path / "saved").score(problem.forgotten) == pytest.approx(scores, abs=MERGED)
