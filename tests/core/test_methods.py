"""Each method without teachers on the tiny problem: that it forgets in its way, and what it becomes where a knob is turned to 0."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
import pytest
import torch
from pydantic import ValidationError

from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.methods.bad_t import BadT
from e2urec_core.methods.base import Method, Outcome, Problem
from e2urec_core.ops.answers import answer_nll
from e2urec_core.recommender import Recommender
from e2urec_core.settings import Training
from e2urec_core.training import fit_answers
from tests.by_default import few

SHORT = Training(num_epochs=3, batch_size=8, learning_rate=5e-3, schedule="constant", warmup_share=0)
SAME_STEP = 1e-6
"""Two ways to one number in 32 bits."""
ASCENDING = ["neg_grad", "grad_diff", "npo", "simnpo", "undial", "task_negation"]
TRAINERS = [*ASCENDING, "neg_kl", "bad_t", "retain_only"]


def unlearned(kind: str, problem: Problem, bench: Bench, **knobs: Any) -> Outcome:
    method: Method = Method.model_validate({"kind": kind, "training": SHORT.canonical(), **knobs})
    return method.unlearn(problem, bench)


def nll(recommender: Recommender, rows: Prompts) -> float:
    batch = rows.batch(numpy.arange(len(rows)))
    with torch.inference_mode():
        return answer_nll(recommender.logits(batch), recommender.answer_ids(batch)).item()


def weights(recommender: Recommender) -> dict[str, torch.Tensor]:
    return dict(recommender.network.state_dict())


def same_bits(one: Recommender, other: Recommender) -> bool:
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.fixture(scope="module")
def known(tiny_problem: Problem, bench: Bench) -> Problem:
    """The tiny problem with an original that knows its rows; that of the session still learns which words are answers at all."""
    original = tiny_problem.original.trainable()
    training = Training(num_epochs=20, batch_size=16, learning_rate=5e-3)
    for rows in (tiny_problem.retained, tiny_problem.forgotten):
        fit_answers(original, rows, rows, training, bench, purpose="known")
    original.network.requires_grad_(False).eval()
    return dataclasses.replace(tiny_problem, original=original, teachers=None)


@pytest.mark.parametrize("trains", ["network", "adapter"])
@pytest.mark.parametrize("kind", ASCENDING)
def test_forgotten_answers_get_less_likely(known: Problem, bench: Bench, kind: str, trains: str) -> None:
    strong = {"forget_weight": 1.0} if kind == "simnpo" else {}
    outcome = unlearned(kind, known, bench, trains=trains, **strong)
    assert nll(outcome.recommender, known.forgotten) > nll(known.original, known.forgotten) + 0.02


@pytest.mark.parametrize("kind", TRAINERS)
def test_an_adapter_is_all_that_is_trained_where_it_is_asked_for_and_every_weight_otherwise(
    tiny_problem: Problem, bench: Bench, kind: str
) -> None:
    whole = unlearned(kind, tiny_problem, bench).recommender
    assert whole.count()["trainable_parameters"] == whole.count()["total_parameters"] == tiny_problem.original.count()["total_parameters"]
    adapted = unlearned(kind, tiny_problem, bench, trains="adapter", lora={"rank": 2}).recommender
    assert adapted.has_adapter
    trained = {name for name, weight in adapted.network.named_parameters() if weight.requires_grad}
    assert trained == {name for name in dict(adapted.network.named_parameters()) if "lora_" in name} != set()


def test_doing_nothing_gives_the_original_to_the_bit_and_a_copy_of_it(tiny_problem: Problem, bench: Bench) -> None:
    outcome = unlearned_nothing(tiny_problem, bench)
    assert same_bits(outcome.recommender, tiny_problem.original)
    assert outcome.recommender.network is not tiny_problem.original.network
    assert outcome.fitted.curve == ()


def unlearned_nothing(problem: Problem, bench: Bench) -> Outcome:
    method: Method = Method.model_validate({"kind": "do_nothing"})
    return method.unlearn(problem, bench)


@pytest.mark.parametrize(("kind", "weight"), [("neg_grad", "ascent_weight"), ("bad_t", "forget_weight")])
def test_without_its_forgetting_it_is_further_training_on_retained_rows_to_the_bit(
    tiny_problem: Problem, bench: Bench, kind: str, weight: str
) -> None:
    plain, without = unlearned("retain_only", tiny_problem, bench), unlearned(kind, tiny_problem, bench, **{weight: 0})
    assert same_bits(plain.recommender, without.recommender)
    assert [point.parts for point in plain.fitted.curve] == [point.parts for point in without.fitted.curve]
    assert not same_bits(plain.recommender, unlearned(kind, tiny_problem, bench).recommender)


def test_retained_rows_alone_are_learned_and_all_of_them_where_that_is_asked_for(tiny_problem: Problem, bench: Bench) -> None:
    # 47 forgotten rows are 6 steps of 8 a pass; 197 retained rows are 25.
    few, every = (unlearned("retain_only", tiny_problem, bench, rows=rows) for rows in ("as_many", "all"))
    assert (len(few.fitted.curve), len(every.fitted.curve)) == (18, 75)
    assert nll(every.recommender, tiny_problem.retained) < nll(tiny_problem.original, tiny_problem.retained)


def test_gradient_difference_with_neggrads_weights_is_neggrad(tiny_problem: Problem, bench: Bench) -> None:
    one = unlearned("neg_grad", tiny_problem, bench, ascent_weight=0.3).fitted.curve
    other = unlearned("grad_diff", tiny_problem, bench, ascent_weight=0.3).fitted.curve
    assert [point.loss for point in other] == pytest.approx([point.loss for point in one], rel=1e-5)


def test_negkl_leaves_the_original_further_on_forgotten_rows_than_on_retained_ones(known: Problem, bench: Bench) -> None:
    longer = {**SHORT.canonical(), "num_epochs": 12, "learning_rate": 2e-3}
    curve = unlearned("neg_kl", known, bench, ascent_weight=0.2, training=longer).fitted.curve
    last = {part: numpy.mean([point.parts[part] for point in curve[-6:]]) for part in ("remember", "ascent")}
    assert 0 <= curve[0].parts["remember"] < 0.05
    assert -last["ascent"] / 0.2 > 2 * last["remember"]
    assert last["ascent"] < curve[0].parts["ascent"]


def test_negkl_without_a_nudge_has_no_loss_at_first(tiny_problem: Problem, bench: Bench) -> None:
    still, nudged = (unlearned("neg_kl", tiny_problem, bench, nudge=share).fitted.curve[0].parts for share in (0, 0.05))
    assert still["remember"] == pytest.approx(0, abs=SAME_STEP)
    assert nudged["remember"] > 100 * SAME_STEP


def test_npos_first_step_is_gradient_differences_and_with_a_small_beta_so_are_the_others(tiny_problem: Problem, bench: Bench) -> None:
    plain, soft, sharp = (
        unlearned(kind, tiny_problem, bench, **knobs)
        for kind, knobs in (("grad_diff", {}), ("npo", {"sharpness": 1e-3}), ("npo", {"sharpness": 10.0}))
    )
    rows = tiny_problem.forgotten
    moved = numpy.abs(plain.recommender.score(rows) - tiny_problem.original.score(rows)).max()
    near, far = (numpy.abs(each.recommender.score(rows) - plain.recommender.score(rows)).max() for each in (soft, sharp))
    assert near < 0.02 * moved < far
    # At first both likelihoods are the original's: (2 / beta) log 2.
    assert sharp.fitted.curve[0].parts["forget"] == pytest.approx(0.2 * numpy.log(2), rel=1e-5)


def test_a_sharp_push_ends_earlier_than_a_soft_one(tiny_problem: Problem, bench: Bench) -> None:
    for kind in ("npo", "simnpo"):
        soft, sharp = (unlearned(kind, tiny_problem, bench, sharpness=each, forget_weight=1.0).recommender for each in (0.1, 10.0))
        assert nll(sharp, tiny_problem.forgotten) < nll(soft, tiny_problem.forgotten), kind


def test_undial_that_lowers_nothing_holds_forgotten_rows_at_the_original(tiny_problem: Problem, bench: Bench) -> None:
    still, lowered = (unlearned("undial", tiny_problem, bench, strength=strength).fitted.curve[0].parts for strength in (0, 2.0))
    assert still["forget"] == pytest.approx(0, abs=SAME_STEP)
    assert lowered["forget"] > 0.01


def test_negating_nothing_gives_the_original_and_negating_twice_goes_twice_as_far(tiny_problem: Problem, bench: Bench) -> None:
    none, once, twice = (unlearned("task_negation", tiny_problem, bench, scale=scale).recommender for scale in (0, 1.0, 2.0))
    before = weights(tiny_problem.original)
    assert same_bits(none, tiny_problem.original)
    for name, weight in weights(once).items():
        assert torch.allclose(weights(twice)[name] - before[name], 2 * (weight - before[name]), atol=SAME_STEP), name


@pytest.mark.parametrize("trains", ["network", "adapter"])
def test_the_original_lies_half_way_between_what_was_tuned_and_what_was_negated(tiny_problem: Problem, bench: Bench, trains: str) -> None:
    negated = unlearned("task_negation", tiny_problem, bench, trains=trains).recommender.merged()
    method = Method.model_validate({"kind": "task_negation", "trains": trains})
    tuned = method.student(tiny_problem.original, bench)  # type: ignore[attr-defined]
    fit_answers(tuned, tiny_problem.forgotten, tiny_problem.validation, SHORT, bench, purpose="task_negation")
    there, before, moved = weights(tuned.merged()), weights(tiny_problem.original), 0.0
    for name, weight in weights(negated).items():
        assert torch.allclose((weight + there[name]) / 2, before[name], atol=SAME_STEP), name
        moved = max(moved, (weight - before[name]).abs().max().item())
    assert moved > 100 * SAME_STEP


def test_early_stopping_of_a_negation_is_refused() -> None:
    with pytest.raises(ValidationError, match="before they are negated"):
        Method.model_validate({"kind": "task_negation", "training": {"patience": 1}})


def test_flipped_labels_are_all_wrong_and_random_ones_every_other_time_and_fixed_by_the_seed(tiny_problem: Problem) -> None:
    rows, answers = tiny_problem.retained, tiny_problem.original.answers
    right = numpy.where(rows.labels == 1, answers.yes_id, answers.no_id)
    flipped = BadT(labels="flipped").wrong(rows, answers, 1)["wrong"].numpy()
    assert set(flipped) == {answers.yes_id, answers.no_id}
    assert not (flipped == right).any()
    one, again, other = (BadT().wrong(rows, answers, seed)["wrong"].numpy() for seed in (1, 1, 2))
    assert numpy.array_equal(one, again)
    assert not numpy.array_equal(one, other)
    # 197 fair coins: half of them, give or take four standard deviations of sqrt(1 / 4 / 197) = 0.036.
    assert (one == right).mean() == pytest.approx(0.5, abs=0.143)


@pytest.mark.parametrize("knobs", [{}, {"labels": "flipped"}, {"teacher": "incompetent"}], ids=["random", "flipped", "incompetent"])
def test_wrong_answers_make_the_right_ones_less_likely(known: Problem, bench: Bench, knobs: dict[str, str]) -> None:
    outcome = unlearned("bad_t", known, bench, forget_weight=1.0, **knobs)
    assert nll(outcome.recommender, known.forgotten) > nll(known.original, known.forgotten) + 0.02


def test_an_incompetent_teacher_is_followed_on_forgotten_rows_and_the_original_on_retained_ones(
    tiny_problem: Problem, bench: Bench
) -> None:
    curve = unlearned("bad_t", tiny_problem, bench, teacher="incompetent", forget_weight=1.0).fitted.curve
    assert curve[0].parts["remember"] == pytest.approx(0, abs=SAME_STEP)
    # A network with random weights knows no answer: whatever the original has learned must go.
    assert curve[0].parts["forget"] > 0.1
    assert curve[-1].parts["forget"] < 0.8 * curve[0].parts["forget"]


# What they share draws the rows.
@pytest.mark.parametrize("kind", few({"undial", "npo", "neg_kl"}, TRAINERS))
def test_another_seed_draws_other_rows(tiny_problem: Problem, bench: Bench, kind: str) -> None:
    one, other = (unlearned(kind, tiny_problem, dataclasses.replace(bench, seed=seed)).fitted.curve for seed in (3, 4))
    assert [point.loss for point in one] != [point.loss for point in other]


@pytest.mark.parametrize(
    ("kind", "knob", "value"),
    [
        ("neg_grad", "ascent_weight", -0.1),
        ("neg_kl", "nudge", 2),
        ("bad_t", "forget_weight", float("nan")),
        ("grad_diff", "ascent_weight", 0),
        ("npo", "sharpness", 0),
        ("simnpo", "margin", -1),
        ("undial", "strength", float("inf")),
        ("task_negation", "scale", -1),
        ("retain_only", "rows", "none"),
        ("neg_grad", "trains", "nothing"),
    ],
)
def test_a_knob_out_of_its_bounds_is_refused_by_name(kind: str, knob: str, value: object) -> None:
    with pytest.raises(ValidationError, match=knob):
        Method.model_validate({"kind": kind, knob: value})
