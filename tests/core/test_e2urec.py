"""E2URec as a whole: what it draws, what it trains, what it leaves alone. Its arithmetic is in `tests/paper`."""

from __future__ import annotations

import dataclasses

import numpy
import pytest
import torch
from pydantic import ValidationError

from e2urec_core.artifacts import Original, TeacherLogits
from e2urec_core.data.batches import Batch
from e2urec_core.errors import BadRequest
from e2urec_core.methods.base import Outcome, Problem
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.recommender import Recommender
from e2urec_core.settings import Lora, Training
from e2urec_core.training import Bench

MERGED = 1e-5
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


def test_every_forgotten_row_is_learned_once_a_pass_and_beside_it_as_many_retained_rows(tiny_problem: Problem, bench: Bench) -> None:
    assert tiny_problem.teachers is not None
    drawn = list(E2URec(training=SHORT)._draws(tiny_problem.teachers, bench, 0))
    forgotten = numpy.concatenate([pair[0].index for pair in drawn if pair[0] is not None])
    assert sorted(forgotten.tolist()) == list(range(len(tiny_problem.forgotten)))
    retained = numpy.concatenate([pair[1].index for pair in drawn if pair[1] is not None])
    assert len(set(retained.tolist())) == len(retained), "no retained row twice while others were not drawn"
    # Batches are cut from row groups of 16 on both sides, so sides differ by a short batch here and there.
    assert len(retained) == pytest.approx(len(forgotten), abs=2 * SHORT.batch_size)
    other = numpy.concatenate(
        [pair[1].index for pair in E2URec(training=SHORT)._draws(tiny_problem.teachers, bench, 1) if pair[1] is not None]
    )
    assert set(other.tolist()) != set(retained.tolist())


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
        assert torch.equal(E2URec(suppression=0).forgetting_teacher(batch), batch.original)
        assert not torch.equal(E2URec(suppression=2).forgetting_teacher(batch), batch.original)


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
    asked: list[tuple[Recommender, int]] = []
    forward = Recommender.logits

    def counted(recommender: Recommender, batch: Batch) -> torch.Tensor:
        asked.append((recommender, len(batch.labels)))
        return forward(recommender, batch)

    monkeypatch.setattr(Recommender, "logits", counted)
    outcome = unlearned(tiny_problem, bench)
    assert len(asked) == len(outcome.fitted.curve)
    assert all(recommender is outcome.recommender for recommender, _ in asked)
    # Rows of both sides: 8 forgotten and 8 retained ones at most.
    assert max(count for _, count in asked) == 16


def test_early_stopping_is_judged_on_the_validation_rows(tiny_problem: Problem, bench: Bench) -> None:
    training = SHORT.model_copy(update={"num_epochs": 4, "patience": 1, "learning_rate": 0.3})
    fitted = unlearned(tiny_problem, bench, training=training).fitted
    assert 1 <= len(fitted.validation) <= 4
    assert fitted.validation[fitted.best_pass - 1] == min(fitted.validation)


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
