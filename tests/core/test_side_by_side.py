"""What methods without a teacher cache draw, what they ask the original, and how they stop when they run away."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy
import pytest
import torch

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.errors import BadRequest, Diverged
from e2urec_core.methods.base import Method, Outcome, Problem
from e2urec_core.recommender import Recommender
from e2urec_core.settings import Training
from e2urec_core.side_by_side import FORGOTTEN, RETAINED, Term, planned, right_answers, train_side_by_side
from e2urec_core.training_state import CurvePoint, descended

SHORT = Training(num_epochs=3, batch_size=8, learning_rate=1e-2, schedule="constant", warmup_share=0)
Drawn = list[int]


def drawn(problem: Problem, kinds: set[str], kind: str, training: Training = SHORT) -> list[Drawn]:
    """Rows of a kind that each pass draws, in turn."""
    plan = planned(problem, kinds, training, 1)
    return [[int(place) for step in steps for place in step.get(kind, ())] for steps in plan]


def none_of(rows: Prompts) -> Prompts:
    return rows.select(numpy.arange(0))


def test_every_forgotten_row_comes_once_a_pass_in_another_order(tiny_problem: Problem) -> None:
    passes = drawn(tiny_problem, {FORGOTTEN, RETAINED}, FORGOTTEN)
    assert [sorted(one) for one in passes] == [list(range(len(tiny_problem.forgotten)))] * 3
    assert passes[0] != passes[1]


def test_a_batch_of_retained_rows_stands_beside_each_and_none_comes_twice_before_all_came_once(tiny_problem: Problem) -> None:
    # 47 forgotten rows are 6 steps of at most 8; 3 passes draw 18 batches of the 197 retained rows.
    plan = planned(tiny_problem, {FORGOTTEN, RETAINED}, SHORT, 1)
    assert [len(steps) for steps in plan] == [6, 6, 6]
    assert {len(step[RETAINED]) for steps in plan for step in steps} <= {8, len(tiny_problem.retained) % 8}
    places = list(itertools.chain.from_iterable(drawn(tiny_problem, {FORGOTTEN, RETAINED}, RETAINED)))
    assert len(set(places)) == len(places) > 2.5 * len(tiny_problem.forgotten)


def test_the_retained_rows_are_the_same_whatever_else_is_drawn(tiny_problem: Problem) -> None:
    assert drawn(tiny_problem, {RETAINED}, RETAINED) == drawn(tiny_problem, {FORGOTTEN, RETAINED}, RETAINED)
    assert drawn(tiny_problem, {RETAINED}, FORGOTTEN) == [[], [], []]


def test_when_all_retained_rows_have_come_they_come_again(tiny_problem: Problem) -> None:
    few = dataclasses.replace(tiny_problem, retained=tiny_problem.retained.select(numpy.arange(10)))
    places = list(itertools.chain.from_iterable(drawn(few, {FORGOTTEN, RETAINED}, RETAINED)))
    assert sorted(places[:10]) == sorted(places[10:20]) == list(range(10))


def test_nobody_left_is_refused_only_where_retained_rows_are_drawn(tiny_problem: Problem, bench: Bench) -> None:
    alone = dataclasses.replace(tiny_problem, retained=none_of(tiny_problem.retained))
    with pytest.raises(BadRequest, match="0 rows to keep"):
        method("neg_grad").unlearn(alone, bench)
    assert method("grad_diff", retain_weight=0).unlearn(alone, bench).fitted.curve[0].parts.keys() == {"ascent"}


def method(kind: str, **knobs: object) -> Method:
    built: Method = Method.model_validate({"kind": kind, "training": SHORT.canonical(), **knobs})
    return built


@pytest.mark.parametrize(
    ("kind", "knobs", "parts", "asks"),
    # 47 forgotten rows; neg_kl also asks about the retained rows that its 18 steps draw, each once.
    [
        ("retain_only", {}, {"answer"}, 0),
        ("neg_grad", {}, {"answer", "ascent"}, 0),
        ("grad_diff", {}, {"answer", "ascent"}, 0),
        ("neg_kl", {}, {"remember", "ascent"}, None),
        ("bad_t", {}, {"answer", "forget"}, 0),
        ("npo", {}, {"answer", "forget"}, 47),
        ("npo", {"retain_weight": 0}, {"forget"}, 47),
        ("simnpo", {}, {"answer", "forget"}, 0),
        ("undial", {}, {"answer", "forget"}, 47),
        ("task_negation", {}, {"answer"}, 0),
    ],
)
def test_the_original_is_asked_once_about_the_rows_that_are_drawn_and_its_loss_has_the_named_parts(
    tiny_problem: Problem, bench: Bench, asked: object, kind: str, knobs: dict[str, float], parts: set[str], asks: int | None
) -> None:
    assert len(tiny_problem.forgotten) == 47
    outcome = method(kind, **knobs).unlearn(tiny_problem, bench)
    assert all(point.parts.keys() == parts for point in outcome.fitted.curve)
    if asks is None:
        asks = 47 + len(set(itertools.chain.from_iterable(drawn_with(tiny_problem, bench.seed))))
    assert asked.by(tiny_problem.original) == asks  # type: ignore[attr-defined]


def drawn_with(problem: Problem, seed: int) -> list[Drawn]:
    return [[int(place) for step in steps for place in step[RETAINED]] for steps in planned(problem, {FORGOTTEN, RETAINED}, SHORT, seed)]


def test_a_small_budget_of_tokens_changes_only_the_last_digits(tiny_problem: Problem, bench: Bench) -> None:
    for kind in ("npo", "undial", "neg_kl", "bad_t"):
        once = method(kind, training={**SHORT.canonical(), "num_epochs": 1})
        whole, small = (
            once.unlearn(tiny_problem, dataclasses.replace(bench, token_budget=budget)).fitted.curve[0].loss for budget in (32768, 300)
        )
        # A divergence near 0 is what is left of numbers near 1, which are summed in another order.
        assert small == pytest.approx(whole, rel=1e-5, abs=1e-6), kind


def test_a_term_is_the_mean_over_the_steps_rows_times_its_weight(tiny_problem: Problem, bench: Bench) -> None:
    student: Recommender = tiny_problem.original.trainable()
    terms = {"one": Term(FORGOTTEN, 1.0, right_answers), "turned": Term(FORGOTTEN, -3.0, right_answers), "none": Term(RETAINED, 0, broken)}
    outcome: Outcome = train_side_by_side(student, tiny_problem, terms, SHORT, bench, "test")
    for point in outcome.fitted.curve:
        assert point.parts["turned"] == pytest.approx(-3 * point.parts["one"], rel=1e-6)
        assert point.parts.keys() == {"one", "turned"}


def broken(seen: object) -> torch.Tensor:
    raise AssertionError("a term of weight 0 is never asked")


@pytest.mark.parametrize("warmup_share", [0, 0.5], ids=["at once", "slowly"])
@pytest.mark.parametrize("kind", ["neg_grad", "neg_kl", "grad_diff"])
def test_an_ascent_that_runs_away_ends_in_an_error_that_names_the_method(
    tiny_problem: Problem, bench: Bench, kind: str, warmup_share: float
) -> None:
    # The rate is, or comes to be, a hundred times what trains well; the sunken loss itself is never over any bound.
    wild = {"num_epochs": 100, "batch_size": 8, "learning_rate": 1.0, "warmup_share": warmup_share}
    with pytest.raises(Diverged, match=f"of {kind} is ") as stopped:
        method(kind, training=wild, ascent_weight=5.0).unlearn(tiny_problem, bench)
    assert "learning rate" in stopped.value.hint


def test_what_is_ascended_is_left_out_of_what_must_not_rise() -> None:
    assert descended(CurvePoint(1, -4.0, {"answer": 1.0, "ascent": -5.0})) == 1.0
    assert descended(CurvePoint(1, 3.0, {"answer": 1.0, "remember": 2.0})) == 3.0


def test_an_ascent_that_only_sinks_is_no_divergence(tiny_problem: Problem, bench: Bench) -> None:
    patient = {**SHORT.canonical(), "num_epochs": 20, "learning_rate": 3e-3}
    curve = method("grad_diff", training=patient, retain_weight=0).unlearn(tiny_problem, bench).fitted.curve
    assert curve[-1].loss < curve[0].loss - 3


@pytest.mark.parametrize("kind", ["npo", "neg_kl", "task_negation"])
def test_a_run_that_was_broken_off_goes_on_to_the_same_bits(tiny_problem: Problem, bench: Bench, tmp_path: Path, kind: str) -> None:
    def broken_off(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        if done == 10:
            raise KeyboardInterrupt

    whole = method(kind).unlearn(tiny_problem, bench)
    kept = dataclasses.replace(bench, checkpoints=Checkpoints(tmp_path, every_s=1e9, every_steps=4))
    with pytest.raises(KeyboardInterrupt):
        method(kind).unlearn(tiny_problem, dataclasses.replace(kept, watch=broken_off))
    again = method(kind).unlearn(tiny_problem, kept)
    assert again.fitted.curve == whole.fitted.curve
    ours, theirs = (outcome.recommender.network.state_dict() for outcome in (again, whole))
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
