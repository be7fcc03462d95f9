"""The one optimisation loop. Most tests train a single number, so that every step can be followed by hand.

AdamW's first steps under a constant gradient of 1: both moments, once their bias is mended, are exactly 1, so a step moves the number by
the learning rate of that step (`ADAM_EPSILON` 1e-8 aside).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy
import pytest
import torch

from e2urec_core.data.batches import Batch, Prompts
from e2urec_core.errors import Diverged
from e2urec_core.recommender import Answers, Recommender
from e2urec_core.settings import Training
from e2urec_core.training import Bench, Fitted, Loss, fit, fit_answers, mean_answer_nll, rate_factor

FLOAT32 = 1e-6
ANSWERS = Answers(yes_id=0, no_id=1, decoder_prefix=(0,), attention_targets=(), linear_targets=())


class Number(torch.nn.Module):
    """A network of one number."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(start))
        self.frozen = torch.nn.Parameter(torch.tensor(7.0), requires_grad=False)


def one_number(start: float = 0.0) -> Recommender:
    return Recommender(Number(start), None, ANSWERS)  # type: ignore[arg-type]


def value(recommender: Recommender) -> float:
    return recommender.network.value.item()  # type: ignore[union-attr]


def train(
    recommender: Recommender,
    slopes: list[float],
    training: Training,
    validate: Callable[[], float] | None = None,
    bench: Bench | None = None,
    loss: Callable[[torch.Tensor, float], Mapping[str, torch.Tensor]] = lambda number, slope: {"only": slope * number},
) -> Fitted:
    """Descend with the given slopes, one a step; every pass has them all."""

    def passes(number: int) -> Iterable[float]:
        return slopes

    def step(slope: float) -> Loss:
        return Loss(loss(recommender.network.value, slope))  # type: ignore[union-attr, arg-type]

    return fit(
        recommender,
        passes,
        step,
        training,
        bench or Bench(seed=0),
        num_steps=len(slopes) * training.num_epochs,
        purpose="test",
        validate=validate,
    )


CONSTANT = Training(num_epochs=1, learning_rate=0.01, schedule="constant", warmup_share=0, max_gradient_norm=10)


def test_each_step_moves_against_the_gradient_by_the_learning_rate() -> None:
    recommender = one_number()
    fitted = train(recommender, [1.0, 1.0, 1.0], CONSTANT)
    # 3 steps of -.01
    assert value(recommender) == pytest.approx(-0.03, abs=FLOAT32)
    assert (len(fitted.curve), fitted.best_pass) == (3, 1)
    assert fitted.seconds > 0


def test_weights_that_need_no_gradient_stay() -> None:
    recommender = one_number()
    train(recommender, [1.0], CONSTANT.model_copy(update={"weight_decay": 0.5}))
    assert recommender.network.frozen.item() == 7.0  # type: ignore[union-attr]


def test_weight_decay_pulls_towards_zero() -> None:
    recommender = one_number(start=2.0)
    train(recommender, [1.0], CONSTANT.model_copy(update={"weight_decay": 0.5}))
    # 2 * (1 - .01 * .5) - .01 = 1.98
    assert value(recommender) == pytest.approx(1.98, abs=FLOAT32)


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_zero_after_it() -> None:
    training = Training(num_epochs=1, warmup_share=0.4, schedule="linear")
    # 10 steps, 4 of warm-up: 1/5, 2/5, 3/5, 4/5, then (10 - 4)/6, (10 - 5)/6, ..., (10 - 9)/6
    expected = [1 / 5, 2 / 5, 3 / 5, 4 / 5, 6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert [rate_factor(at, 10, training) for at in range(10)] == pytest.approx(expected, abs=1e-12)
    assert rate_factor(10, 10, training) == 0


def test_without_warm_up_a_constant_schedule_is_constant_and_a_linear_one_starts_at_its_peak() -> None:
    assert [rate_factor(at, 4, CONSTANT) for at in range(4)] == [1, 1, 1, 1]
    linear = Training(warmup_share=0, schedule="linear")
    # 4/4, 3/4, 2/4, 1/4
    assert [rate_factor(at, 4, linear) for at in range(4)] == [1, 0.75, 0.5, 0.25]


def test_after_its_warm_up_a_constant_schedule_stays_at_the_peak() -> None:
    training = Training(warmup_share=0.5, schedule="constant")
    assert [rate_factor(at, 4, training) for at in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_the_loop_follows_the_schedule() -> None:
    recommender = one_number()
    training = Training(num_epochs=2, learning_rate=0.01, warmup_share=0.4, schedule="linear", max_gradient_norm=10)
    train(recommender, [1.0] * 5, training)
    # .01 * (1/5 + 2/5 + 3/5 + 4/5 + 6/6 + 5/6 + 4/6 + 3/6 + 2/6 + 1/6) = .01 * (2 + 3.5) = .055
    assert value(recommender) == pytest.approx(-0.055, abs=FLOAT32)


def test_a_gradient_above_the_norm_is_clipped_to_it() -> None:
    clipped, plain, free = one_number(), one_number(), one_number()
    train(clipped, [1.0, 1000.0, 1.0], CONSTANT.model_copy(update={"max_gradient_norm": 1.0}))
    train(plain, [1.0, 1.0, 1.0], CONSTANT)
    train(free, [1.0, 1000.0, 1.0], CONSTANT.model_copy(update={"max_gradient_norm": 1e6}))
    # Clipped to 1 the gradients are 1, 1, 1, so the number moves by .01 each time.
    assert value(clipped) == pytest.approx(value(plain), abs=FLOAT32) == pytest.approx(-0.03, abs=FLOAT32)
    # Not clipped: AdamW's moments are thrown off, and the number ends elsewhere.
    assert abs(value(free) - value(plain)) > 1e-3


def test_the_curve_holds_every_part_and_its_sum_and_the_watcher_is_told_the_same() -> None:
    told: list[tuple[int, int, str, Mapping[str, float]]] = []
    bench = Bench(seed=0, watch=lambda done, total, unit, numbers: told.append((done, total, unit, dict(numbers))))
    fitted = train(
        one_number(start=3.0),
        [1.0, 1.0],
        CONSTANT,
        bench=bench,
        loss=lambda number, slope: {"forget": number * slope, "retain": 0.5 * number},
    )
    # 3 + .5 * 3 = 4.5, then the number is 2.99: 2.99 + 1.495 = 4.485
    assert [point.loss for point in fitted.curve] == pytest.approx([4.5, 4.485], abs=FLOAT32 * 10)
    assert [point.step for point in fitted.curve] == [1, 2]
    assert all(point.loss == sum(point.parts.values()) for point in fitted.curve)
    assert [set(point.parts) for point in fitted.curve] == [{"forget", "retain"}] * 2
    assert told == [(point.step, 2, "steps", {"loss": point.loss, **point.parts}) for point in fitted.curve]


def test_the_loop_descends_on_the_sum_of_the_parts() -> None:
    number = torch.tensor(2.0, requires_grad=True)
    total = Loss({"one": 3 * number, "two": number**2}).total()
    total.backward()
    # 3 * 2 + 4 = 10; d/dx (3x + x^2) = 3 + 2 * 2 = 7
    assert total.item() == 10
    assert number.grad == 7


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_loop_before_it_touches_a_weight(wrong: float) -> None:
    stopped, before = one_number(), one_number()
    with pytest.raises(Diverged, match=r"the loss of test is .* at step 3") as refused:
        train(stopped, [1.0, 1.0, wrong, 1.0], CONSTANT, loss=lambda number, slope: {"fine": number, "wrong": number * 0 + slope})
    train(before, [1.0, 1.0], CONSTANT, loss=lambda number, slope: {"fine": number, "wrong": number * 0 + slope})
    assert value(stopped) == value(before) != 0
    assert "step 2" in str(refused.value.facts["last finite loss"])
    assert "learning rate" in refused.value.hint


def test_a_first_loss_that_is_no_number_says_that_there_was_none_before() -> None:
    with pytest.raises(Diverged) as refused:
        train(one_number(), [math.nan], CONSTANT)
    assert "first step" in str(refused.value.facts["last finite loss"])


def test_a_gradient_that_is_no_number_stops_the_loop_before_it_touches_a_weight() -> None:
    recommender = one_number(start=1.0)
    # sqrt has an infinite slope at 0: the loss is 0, a finite number, and its gradient is 0 * inf = NaN.
    with pytest.raises(Diverged):
        train(recommender, [0.0, 1.0], CONSTANT, loss=lambda number, slope: {"only": torch.sqrt((number - number) * slope)})
    assert value(recommender) == 1.0


def test_a_validation_loss_that_is_no_number_is_refused() -> None:
    losses = iter([1.0, math.nan, 0.5])
    with pytest.raises(Diverged):
        train(one_number(), [1.0], CONSTANT.model_copy(update={"num_epochs": 3, "patience": 2}), validate=lambda: next(losses))


def test_early_stopping_ends_after_its_patience_and_brings_back_the_best_weights() -> None:
    recommender, seen = one_number(), []
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.1])

    def validate() -> float:
        assert not recommender.network.training
        seen.append(value(recommender))
        return next(losses)

    fitted = train(recommender, [1.0, 1.0], CONSTANT.model_copy(update={"num_epochs": 5, "patience": 2}), validate=validate)
    # Best after pass 2; passes 3 and 4 are not better, so pass 5 with its .1 is never run.
    assert fitted.validation == (3.0, 1.0, 2.0, 2.5)
    assert fitted.best_pass == 2
    assert value(recommender) == seen[1]
    # 2 passes of 2 steps of .01
    assert seen[1] == pytest.approx(-0.04, abs=FLOAT32)
    # 4 passes of 2 steps were run
    assert len(fitted.curve) == 8


def test_an_equal_validation_loss_is_not_a_better_one() -> None:
    losses = iter([1.0, 1.0, 1.0, 1.0])
    fitted = train(one_number(), [1.0], CONSTANT.model_copy(update={"num_epochs": 4, "patience": 1}), validate=lambda: next(losses))
    assert (fitted.best_pass, fitted.validation) == (1, (1.0, 1.0))


def test_a_late_best_pass_is_kept_though_the_end_came_before_the_patience() -> None:
    recommender = one_number()
    losses = iter([1.0, 0.5, 0.7])
    fitted = train(recommender, [1.0], CONSTANT.model_copy(update={"num_epochs": 3, "patience": 5}), validate=lambda: next(losses))
    assert fitted.best_pass == 2
    assert value(recommender) == pytest.approx(-0.02, abs=FLOAT32)


def test_without_patience_nothing_is_validated_and_the_last_weights_stay() -> None:
    def never() -> float:
        raise AssertionError("validated")

    recommender = one_number()
    fitted = train(recommender, [1.0], CONSTANT.model_copy(update={"num_epochs": 3}), validate=never)
    assert (fitted.validation, fitted.best_pass) == ((), 3)
    assert value(recommender) == pytest.approx(-0.03, abs=FLOAT32)


def test_patience_without_a_validation_loss_is_our_own_bug() -> None:
    with pytest.raises(AssertionError, match="needs a validation loss"):
        train(one_number(), [1.0], CONSTANT.model_copy(update={"patience": 1}))


def test_the_network_trains_while_it_trains_and_rests_afterwards() -> None:
    recommender, modes = one_number(), []

    def loss(number: torch.Tensor, slope: float) -> Mapping[str, torch.Tensor]:
        modes.append(recommender.network.training)
        return {"only": number}

    recommender.network.eval()
    train(recommender, [1.0], CONSTANT.model_copy(update={"num_epochs": 3, "patience": 5}), validate=lambda: 1.0, loss=loss)
    assert modes == [True, True, True]
    assert not recommender.network.training


def test_nothing_to_train_is_our_own_bug() -> None:
    recommender = one_number()
    recommender.network.requires_grad_(False)
    with pytest.raises(AssertionError, match="nothing to train"):
        train(recommender, [1.0], CONSTANT)


def test_noise_while_training_is_drawn_from_the_seed_and_the_global_state_is_left_alone() -> None:
    def noisy(seed: int) -> list[float]:
        fitted = train(
            one_number(), [1.0] * 3, CONSTANT, bench=Bench(seed=seed), loss=lambda number, slope: {"noise": number + torch.rand(())}
        )
        return [point.loss for point in fitted.curve]

    torch.manual_seed(1)
    first = noisy(0)
    after = torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2), after)
    torch.manual_seed(2)
    assert noisy(0) == first
    assert noisy(1) != first


def trained(
    build_tiny: Callable[..., Recommender], rows_of: Callable[[Recommender, str], Prompts], seed: int
) -> tuple[Recommender, Fitted]:
    recommender = build_tiny("tiny_t5", dropout=0.1)
    rows, validation = rows_of(recommender, "retained"), rows_of(recommender, "validation")
    training = Training(num_epochs=2, batch_size=32, learning_rate=5e-3)
    return recommender, fit_answers(recommender, rows, validation, training, Bench(seed=seed), purpose="original")


def test_the_same_seed_gives_the_same_bits_and_another_does_not(build_tiny, rows_of) -> None:
    (one, first), (two, second), (three, third) = (trained(build_tiny, rows_of, seed) for seed in (1, 1, 2))
    assert all(torch.equal(*pair) for pair in zip(one.network.parameters(), two.network.parameters(), strict=True))
    assert first.curve == second.curve
    assert not all(torch.equal(*pair) for pair in zip(one.network.parameters(), three.network.parameters(), strict=True))
    assert [point.loss for point in first.curve] != [point.loss for point in third.curve]


def test_fine_tuning_on_answers_visits_every_row_each_pass_and_lowers_the_loss(build_tiny, rows_of) -> None:
    recommender = build_tiny("tiny_t5")
    rows = rows_of(recommender, "retained")
    bench = Bench(seed=0)
    before = mean_answer_nll(recommender, rows, bench)
    training = Training(num_epochs=3, batch_size=32, learning_rate=1e-2)
    fitted = fit_answers(recommender, rows, rows, training, bench, purpose="original")
    # 3 passes of ceil(rows / 32) steps
    assert len(fitted.curve) == 3 * -(-len(rows) // 32)
    assert {name for point in fitted.curve for name in point.parts} == {"answer"}
    assert mean_answer_nll(recommender, rows, bench) < 0.8 * before


class Witness(Recommender):
    """Notes the rows of every batch it answers."""

    def logits(self, batch: Batch) -> torch.Tensor:
        self.seen.append(batch.index.tolist())
        return super().logits(batch)


def drawn_rows(recommender: Recommender, rows: Prompts, left_out: numpy.ndarray | None) -> tuple[list[list[int]], Fitted]:
    witness = Witness(recommender.network, recommender.tokenizer, recommender.answers)
    witness.seen = []
    training = Training(num_epochs=2, batch_size=8, learning_rate=1e-3)
    return witness.seen, fit_answers(witness, rows, rows, training, Bench(seed=0), purpose="test", left_out=left_out)


def test_each_pass_draws_every_row_once(build_tiny, rows_of) -> None:
    recommender = build_tiny("tiny_t5")
    rows = rows_of(recommender, "forgotten")
    seen, _ = drawn_rows(recommender, rows, None)
    half = len(seen) // 2
    for batches in (seen[:half], seen[half:]):
        assert sorted(place for batch in batches for place in batch) == list(range(len(rows)))
    assert seen[:half] != seen[half:]


def test_rows_left_out_are_never_drawn_and_the_others_keep_their_order_and_their_batches(build_tiny, rows_of) -> None:
    recommender = build_tiny("tiny_t5")
    rows = rows_of(recommender, "forgotten")
    whole, _ = drawn_rows(recommender, rows, None)
    left_out = numpy.zeros(len(rows), dtype=bool)
    # Two of three rows, and one batch in whole, which then is no step at all.
    left_out[::3] = left_out[1::3] = True
    left_out[whole[1]] = True
    kept, fitted = drawn_rows(build_tiny("tiny_t5"), rows, left_out)
    expected = [[place for place in batch if not left_out[place]] for batch in whole]
    assert [] in expected
    assert kept == [batch for batch in expected if batch]
    assert len(fitted.curve) == len(kept)


def test_leaving_nothing_out_changes_no_bit(build_tiny, rows_of) -> None:
    (one, first), (two, second) = (
        (recommender, drawn_rows(recommender, rows_of(recommender, "forgotten"), left_out)[1])
        for recommender, left_out in (
            (build_tiny("tiny_t5"), None),
            (build_tiny("tiny_t5"), numpy.zeros(len(rows_of(build_tiny("tiny_t5"), "forgotten")), dtype=bool)),
        )
    )
    assert first.curve == second.curve
    assert all(torch.equal(*pair) for pair in zip(one.network.parameters(), two.network.parameters(), strict=True))


def test_the_mean_loss_of_rows_weighs_every_row_alike_whatever_the_batch(build_tiny, rows_of, bench: Bench) -> None:
    recommender = build_tiny("tiny_t5")
    rows = rows_of(recommender, "forgotten")
    recommender.network.eval()
    with torch.inference_mode():
        logits = torch.cat([recommender.logits(rows.batch(numpy.array([place])))[0:1] for place in range(len(rows))])
    right = [recommender.answers.yes_id if label else recommender.answers.no_id for label in rows.labels]
    # -log softmax(z)[right] of every row by itself, and their plain mean
    expected = numpy.mean([-torch.log_softmax(row.double(), 0)[token].item() for row, token in zip(logits, right, strict=True)])
    assert len(rows) % 7, "the last batch must be a short one"
    assert mean_answer_nll(recommender, rows, bench, batch_size=7) == pytest.approx(expected, abs=1e-5)
    assert mean_answer_nll(recommender, rows, bench) == pytest.approx(expected, abs=1e-5)


def test_early_stopping_of_fine_tuning_follows_the_validation_rows(build_tiny, rows_of, bench: Bench) -> None:
    recommender = build_tiny("tiny_t5")
    rows, validation = rows_of(recommender, "retained"), rows_of(recommender, "validation")
    training = Training(num_epochs=6, batch_size=32, learning_rate=2e-2, patience=2, schedule="constant")
    fitted = fit_answers(recommender, rows, validation, training, bench, purpose="original")
    assert mean_answer_nll(recommender, validation, bench) == pytest.approx(min(fitted.validation), abs=1e-6)
    assert fitted.validation[fitted.best_pass - 1] == min(fitted.validation)
