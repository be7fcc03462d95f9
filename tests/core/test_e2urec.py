"""E2URec as a whole: what it draws, what it trains, what it leaves alone. Its arithmetic is in `tests/paper`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from pydantic import ValidationError

from e2urec_core.artifacts import Original, TeacherLogits
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.engine import Bench
from e2urec_core.errors import BadRequest
from e2urec_core.methods.base import Outcome, Problem
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.reader import AnswerReader
from e2urec_core.settings import CacheRule, Lora, Training

MERGED = 1e-5
PIECES = 1e-5
"""A step in pieces sums in another order; half a dozen steps let 1e-7 grow."""
SHORT = Training(num_epochs=2, batch_size=8, learning_rate=1e-2, schedule="constant", warmup_share=0)


def unlearned(problem: Problem, bench: Bench, **knobs: object) -> Outcome:
    return E2URec.model_validate({"training": SHORT, "lora": Lora(rank=4), **knobs}).unlearn(problem, bench)


@pytest.fixture(scope="module")
def outcome(tiny_problem: Problem, bench: Bench) -> Outcome:
    return unlearned(tiny_problem, bench)


def steps_a_pass(problem: Problem) -> int:
    assert problem.teachers is not None
    return problem.teachers.num_batches("forgotten", SHORT.batch_size)


def test_a_pass_is_one_over_the_forgotten_rows(tiny_problem: Problem, outcome: Outcome) -> None:
    # Row groups of 16 are cut into batches of 8: 2 a full group, and what the last group needs.
    full, rest = divmod(len(tiny_problem.forgotten), 16)
    assert steps_a_pass(tiny_problem) == 2 * full + -(-rest // 8)
    assert len(outcome.fitted.curve) == 2 * steps_a_pass(tiny_problem)


def test_the_loss_has_three_named_parts_which_sum_to_it(outcome: Outcome) -> None:
    assert {frozenset(point.parts) for point in outcome.fitted.curve} == {frozenset({"forget", "answer", "remember"})}
    assert all(point.loss == sum(point.parts.values()) for point in outcome.fitted.curve)
    assert all(part >= -1e-6 for point in outcome.fitted.curve for part in point.parts.values())


def test_at_first_the_student_is_the_original_so_there_is_nothing_to_remember_yet(outcome: Outcome) -> None:
    first = outcome.fitted.curve[0].parts
    assert first["remember"] == pytest.approx(0, abs=1e-6)
    assert first["forget"] > 1e-4


def test_the_student_comes_nearer_to_the_forgetting_teacher(tiny_problem: Problem, bench: Bench) -> None:
    training = SHORT.model_copy(update={"num_epochs": 8})
    curve = unlearned(tiny_problem, bench, training=training, losses="without_remembering", suppression=8).fitted.curve
    size = steps_a_pass(tiny_problem)
    first, last = (numpy.mean([point.loss for point in part]) for part in (curve[:size], curve[-size:]))
    assert last < 0.7 * first


@pytest.mark.parametrize(
    ("losses", "parts"),
    [("without_forgetting", {"answer", "remember"}), ("without_remembering", {"forget"}), ("both", {"forget", "answer", "remember"})],
)
def test_an_ablation_drops_the_loss_it_names_from_every_step(tiny_problem: Problem, bench: Bench, losses: str, parts: set[str]) -> None:
    curve = unlearned(tiny_problem, bench, losses=losses).fitted.curve
    assert all(set(point.parts) == parts for point in curve)
    assert len(curve) == 2 * steps_a_pass(tiny_problem)


def test_forget_first_spends_the_first_pass_on_forgetting_alone(tiny_problem: Problem, bench: Bench) -> None:
    curve = unlearned(tiny_problem, bench, warm_start="forget_first").fitted.curve
    size = steps_a_pass(tiny_problem)
    assert all(set(point.parts) == {"forget"} for point in curve[:size])
    assert all(set(point.parts) == {"forget", "answer", "remember"} for point in curve[size:])
    assert len(curve) == 2 * size


def test_to_forget_first_and_never_is_refused_when_it_is_set() -> None:
    with pytest.raises(ValidationError, match="forget_first"):
        E2URec(losses="without_forgetting", warm_start="forget_first")


def rows_of_pass(problem: Problem, bench: Bench, method: E2URec, number: int) -> tuple[list[int], list[int]]:
    """Forgotten and retained rows that a pass draws, in turn."""
    assert problem.teachers is not None
    drawn = list(method._draws(problem.teachers, bench, number))
    return tuple(  # type: ignore[return-value]
        [int(place) for draw in drawn if part in draw.parts for place in draw.parts[part].index] for part in ("forgotten", "retained")
    )


def test_every_forgotten_row_is_learned_once_a_pass_and_beside_it_as_many_retained_rows(tiny_problem: Problem, bench: Bench) -> None:
    forgotten, retained = rows_of_pass(tiny_problem, bench, E2URec(training=SHORT), 0)
    assert sorted(forgotten) == list(range(len(tiny_problem.forgotten)))
    # Batches are cut from row groups of 16 on both sides, so sides differ by a short batch here and there.
    assert len(retained) == pytest.approx(len(forgotten), abs=2 * SHORT.batch_size)
    again, _ = rows_of_pass(tiny_problem, bench, E2URec(training=SHORT), 1)
    assert sorted(again) == sorted(forgotten)
    assert again != forgotten


def test_no_retained_row_is_drawn_twice_in_any_pass_while_others_were_not_drawn(tiny_problem: Problem, bench: Bench) -> None:
    # 47 forgotten rows, and 4 cached retained rows for each: three passes need three quarters of them.
    retained = [place for number in range(3) for place in rows_of_pass(tiny_problem, bench, E2URec(training=SHORT), number)[1]]
    assert len(set(retained)) == len(retained) > 2.5 * len(tiny_problem.forgotten)


def test_after_forgetting_first_the_retained_rows_come_as_they_would_have_come(tiny_problem: Problem, bench: Bench) -> None:
    plain, waiting = E2URec(training=SHORT), E2URec(training=SHORT, warm_start="forget_first")
    assert rows_of_pass(tiny_problem, bench, waiting, 0)[1] == []
    assert rows_of_pass(tiny_problem, bench, waiting, 1)[1] == rows_of_pass(tiny_problem, bench, plain, 0)[1]


@pytest.mark.parametrize(
    ("knobs", "draws"),
    # One retained row for each forgotten one in each of 3 passes; none in a first pass of forgetting, none without remembering.
    [({}, 3.0), ({"warm_start": "forget_first"}, 2.0), ({"losses": "without_remembering"}, 0.0), ({"losses": "without_forgetting"}, 3.0)],
)
def test_it_says_how_many_retained_rows_it_draws_for_each_forgotten_one(knobs: dict[str, str], draws: float) -> None:
    training = SHORT.model_copy(update={"num_epochs": 3})
    assert E2URec.model_validate({"training": training, **knobs}).retained_draws() == draws


def test_the_originals_weights_and_answers_are_untouched(tiny_problem: Problem, bench: Bench) -> None:
    original = tiny_problem.original
    before = {name: weight.clone() for name, weight in original.network.state_dict().items()}
    scores = original.score(tiny_problem.forgotten)
    gradients = {name: weight.requires_grad for name, weight in original.network.named_parameters()}
    unlearned(tiny_problem, bench).recommender.merged()
    after = original.network.state_dict()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert {name: weight.requires_grad for name, weight in original.network.named_parameters()} == gradients
    assert numpy.array_equal(original.score(tiny_problem.forgotten), scores)


def test_only_the_adapter_is_trained_and_the_weights_under_it_are_the_originals(tiny_problem: Problem, outcome: Outcome) -> None:
    originals = dict(tiny_problem.original.network.named_parameters())
    num_adapter = 0
    for name, weight in outcome.recommender.network.named_parameters():
        if "lora_" in name:
            assert weight.requires_grad
            num_adapter += weight.numel()
        else:
            assert not weight.requires_grad
            assert torch.equal(weight, originals[name.removeprefix("base_model.model.").replace(".base_layer", "")]), name
    assert outcome.recommender.count()["trainable_parameters"] == num_adapter > 0


def test_every_factor_of_the_adapter_has_moved(tiny_problem: Problem, outcome: Outcome, bench: Bench) -> None:
    fresh = dict(tiny_problem.original.with_adapter(Lora(rank=4), bench.seed).network.named_parameters())
    still = [
        name for name, weight in outcome.recommender.network.named_parameters() if "lora_" in name and torch.equal(weight, fresh[name])
    ]
    # With one decoder position its self-attention has one key: its query has no say, and its gradient is 0.
    assert [name for name in still if "decoder.block.0.layer.0.SelfAttention.q" not in name] == []


def test_targets_and_rank_reach_the_network(tiny_problem: Problem, bench: Bench) -> None:
    few, more, many = (
        unlearned(tiny_problem, bench, lora=Lora(rank=rank, targets=targets)).recommender.count()["trainable_parameters"]
        for rank, targets in ((2, "attention"), (4, "attention"), (4, "all_linear"))
    )
    assert more == 2 * few
    assert many > more


def test_the_merged_recommender_gives_the_adapters_scores_and_cannot_be_switched_off(tiny_problem: Problem, outcome: Outcome) -> None:
    rows = tiny_problem.forgotten
    expected = outcome.recommender.score(rows)
    assert numpy.abs(expected - tiny_problem.original.score(rows)).max() > 100 * MERGED, "unlearning must have changed the answers"
    merged = outcome.recommender.merged()
    assert merged.score(rows) == pytest.approx(expected, abs=MERGED)
    assert not hasattr(merged.network, "disable_adapter")
    assert [name for name in merged.network.state_dict() if "lora" in name] == []


def test_switching_the_adapter_off_would_bring_the_original_back_which_is_why_it_is_merged(tiny_problem: Problem, outcome: Outcome) -> None:
    rows = tiny_problem.forgotten
    with outcome.recommender.network.disable_adapter():  # type: ignore[operator]
        assert numpy.array_equal(outcome.recommender.score(rows), tiny_problem.original.score(rows))


def test_with_no_suppression_the_forgetting_teacher_is_the_original(tiny_problem: Problem) -> None:
    assert tiny_problem.teachers is not None
    for batch in tiny_problem.teachers.batches("forgotten", 8, 0, 0):
        assert torch.equal(E2URec(suppression=0).forgetting_teacher(batch.beside), batch.beside["original"])
        assert not torch.equal(E2URec(suppression=2).forgetting_teacher(batch.beside), batch.beside["original"])


def test_with_no_suppression_and_no_noise_there_is_nothing_to_forget_at_first(tiny_problem: Problem, bench: Bench) -> None:
    first = unlearned(tiny_problem, bench, suppression=0).fitted.curve[0].parts
    assert first["forget"] == pytest.approx(0, abs=1e-6)


def test_the_forget_weight_shares_the_loss_between_both_sides(tiny_problem: Problem, bench: Bench) -> None:
    one, other = (unlearned(tiny_problem, bench, forget_weight=weight).fitted.curve[0].parts for weight in (0.25, 0.75))
    # The first step sees the same student and rows: .25 * F against .75 * F, and .75 * A against .25 * A.
    assert other["forget"] == pytest.approx(3 * one["forget"], rel=1e-5)
    assert one["answer"] == pytest.approx(3 * other["answer"], rel=1e-5)


def test_both_sides_share_one_forward_pass_and_no_teacher_is_run(
    tiny_problem: Problem, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[torch.nn.Module, int]] = []
    forward = AnswerReader.forward

    def counted(reader: AnswerReader, token_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        asked.append((reader.network, len(token_ids)))
        return forward(reader, token_ids, *rest)

    monkeypatch.setattr(AnswerReader, "forward", counted)
    outcome = unlearned(tiny_problem, bench)
    assert len(asked) == len(outcome.fitted.curve)
    assert all(network is outcome.recommender.network for network, _ in asked)
    # Rows of both sides: 8 forgotten and 8 retained ones at most.
    assert max(count for _, count in asked) == 16


@pytest.mark.parametrize("support", ["full", "top", "answers"])
def test_every_support_forgets_and_a_small_budget_changes_only_the_last_digits(
    tiny_problem: Problem, bench: Bench, cache_teachers: Callable[..., TeacherCache], tmp_path: Path, support: str
) -> None:
    rule = CacheRule.model_validate({"support": support, "top": 5, "rows_per_group": 16, "retained_per_forgotten": 1})
    augmented = tiny_problem.original.with_adapter(Lora(rank=2), 0).merged()
    with torch.no_grad():
        augmented.network.get_output_embeddings().weight.mul_(1.1)  # type: ignore[operator]
    problem = dataclasses.replace(tiny_problem, teachers=cache_teachers(tmp_path, tiny_problem.original, augmented, rule, bench))
    # Dropout draws for each piece anew.
    knobs = {"training": SHORT.model_copy(update={"num_epochs": 1}), "lora": Lora(rank=2, dropout=0)}
    whole, small = (unlearned(problem, dataclasses.replace(bench, token_budget=budget), **knobs).fitted.curve for budget in (32768, 300))
    assert whole[0].parts["remember"] == pytest.approx(0, abs=1e-6)
    assert whole[0].parts["forget"] > 1e-4
    assert [point.loss for point in small] == pytest.approx([point.loss for point in whole], rel=PIECES)
    assert [point.loss for point in small] != [point.loss for point in whole]


def test_in_bf16_it_trains_near_32_bits_and_its_adapter_stays_in_them(tiny_problem: Problem, bench: Bench, outcome: Outcome) -> None:
    rounded = unlearned(tiny_problem, dataclasses.replace(bench, precision="bf16"))
    losses, exact = ([point.loss for point in each.fitted.curve] for each in (rounded, outcome))
    # A brain float steps by 2^-8 = 0.4 % of its value; over these dozen steps the losses came apart by 0.15 % at most.
    assert losses == pytest.approx(exact, rel=2**-8)
    assert losses != exact
    assert {weight.dtype for weight in rounded.recommender.network.parameters()} == {torch.float32}


def test_early_stopping_is_judged_on_the_validation_rows(tiny_problem: Problem, bench: Bench) -> None:
    training = SHORT.model_copy(update={"num_epochs": 4, "patience": 1, "learning_rate": 0.3})
    fitted = unlearned(tiny_problem, bench, training=training).fitted
    assert 1 <= len(fitted.validation) <= 4
    assert fitted.validation[fitted.best_check - 1] == min(fitted.validation)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tiny_problem: Problem, bench: Bench, outcome: Outcome) -> None:
    torch.rand(5)
    again, other = unlearned(tiny_problem, bench), unlearned(tiny_problem, dataclasses.replace(bench, seed=bench.seed + 1))
    assert again.fitted.curve == outcome.fitted.curve
    assert all(
        torch.equal(*pair) for pair in zip(again.recommender.network.parameters(), outcome.recommender.network.parameters(), strict=True)
    )
    assert [point.loss for point in other.fitted.curve] != [point.loss for point in outcome.fitted.curve]


def test_it_needs_the_teachers_outputs_and_says_so() -> None:
    assert E2URec().wants(TeacherLogits)
    assert not E2URec().wants(Original)


def test_a_missing_cache_is_our_own_bug(tiny_problem: Problem, bench: Bench) -> None:
    with pytest.raises(AssertionError, match="cached first"):
        unlearned(dataclasses.replace(tiny_problem, teachers=None), bench)


def test_nothing_to_forget_is_refused(tiny_problem: Problem, bench: Bench) -> None:
    rows = tiny_problem.forgotten
    empty = dataclasses.replace(rows, example_ids=rows.example_ids[:0], labels=rows.labels[:0], flat=rows.flat[:0], starts=rows.starts[:1])
    with pytest.raises(BadRequest, match="0 rows to forget"):
        unlearned(dataclasses.replace(tiny_problem, forgotten=empty), bench)


def test_a_pass_draws_the_least_of_retained_rows_however_few_are_forgotten(tiny_problem: Problem, bench: Bench) -> None:
    training = Training(num_epochs=2, batch_size=8)
    few, many = E2URec(training=training), E2URec(training=training, least_retained=84)
    assert (few.retained_at_least(), many.retained_at_least()) == (0, 168)
    assert tiny_problem.teachers is not None
    drawn = [
        sum(draw.parts["retained"].total for draw in method._draws(tiny_problem.teachers, bench, 0) if "retained" in draw.parts)
        for method in (few, many)
    ]
    # The last rows of a round over the cache may be fewer than a step asks for.
    assert drawn[0] <= 48
    assert drawn[1] >= 75
