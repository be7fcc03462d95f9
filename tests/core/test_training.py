"""The one optimisation loop. The tests train a single number, so that every step can be followed by hand.

AdamW's first steps under a constant gradient of 1: both moments, once their bias is mended, are exactly 1, so a step moves the number by
the learning rate of that step (`ADAM_EPSILON` 1e-8 aside).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy
import pytest
import torch

from e2urec_core.engine import Bench, Read
from e2urec_core.errors import Diverged
from e2urec_core.recommender import Answers, Recommender
from e2urec_core.settings import Training
from e2urec_core.training import Fitted, Loss, fit, rate_factor

FLOAT32 = 1e-6
ANSWERS = Answers(yes_id=0, no_id=1, decoder_prefix=(0,), attention_targets=(), linear_targets=())


class Number(torch.nn.Module):
    """A network of one number."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(start))
        self.frozen = torch.nn.Parameter(torch.tensor(7.0), requires_grad=False)


@dataclass(frozen=True)
class Slope:
    """A step of one row of one token: how steep the loss is."""

    slope: float

    @property
    def lengths(self) -> numpy.ndarray:
        return numpy.ones(1, dtype=numpy.int64)

    def take(self, places: numpy.ndarray) -> Slope:
        return self

    def load(self) -> Slope:
        return self

    def to(self, device: torch.device) -> Slope:
        return self


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

    def passes(number: int) -> Iterable[Slope]:
        return map(Slope, slopes)

    def step(read: Read, drawn: Slope) -> Loss:
        return Loss(loss(recommender.network.value, drawn.slope))  # type: ignore[union-attr, arg-type]

    return fit(
        recommender,
        passes,
        step,  # type: ignore[arg-type]
        ("only", "one", "two", "wrong"),
        training,
        bench or Bench(seed=0),
        num_steps=len(slopes) * training.num_epochs,
        purpose="test",
        validate=validate and (lambda read: validate()),
    )


CONSTANT = Training(num_epochs=1, learning_rate=0.01, schedule="constant", warmup_share=0, max_gradient_norm=10)


def test_each_step_moves_against_the_gradient_by_the_learning_rate() -> None:
    recommender = one_number()
    fitted = train(recommender, [1.0, 1.0, 1.0], CONSTANT)
    # 3 steps of -.01
    assert value(recommender) == pytest.approx(-0.03, abs=FLOAT32)
    assert (len(fitted.curve), fitted.best_check) == (3, 0)
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
        loss=lambda number, slope: {"one": number * slope, "two": 0.5 * number},
    )
    # 3 + .5 * 3 = 4.5, then the number is 2.99: 2.99 + 1.495 = 4.485
    assert [point.loss for point in fitted.curve] == pytest.approx([4.5, 4.485], abs=FLOAT32 * 10)
    assert [point.step for point in fitted.curve] == [1, 2]
    assert all(point.loss == sum(point.parts.values()) for point in fitted.curve)
    assert [set(point.parts) for point in fitted.curve] == [{"one", "two"}] * 2
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
        train(stopped, [1.0, 1.0, wrong, 1.0], CONSTANT, loss=lambda number, slope: {"one": number, "wrong": number * 0 + slope})
    train(before, [1.0, 1.0], CONSTANT, loss=lambda number, slope: {"one": number, "wrong": number * 0 + slope})
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
    with pytest.raises(Diverged, match="the gradient of test is nan at step 1"):
        train(recommender, [0.0, 1.0], CONSTANT, loss=lambda number, slope: {"only": torch.sqrt((number - number) * slope)})
    assert value(recommender) == 1.0


def test_a_validation_loss_that_is_no_number_is_refused() -> None:
    losses = iter([1.0, math.nan, 0.5])
    # One step a pass: the second check comes after step 2.
    with pytest.raises(Diverged, match="the validation loss of test is nan at step 2"):
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
    assert fitted.best_check == 2
    assert value(recommender) == seen[1]
    # 2 passes of 2 steps of .01
    assert seen[1] == pytest.approx(-0.04, abs=FLOAT32)
    # 4 passes of 2 steps were run
    assert len(fitted.curve) == 8


def test_an_equal_validation_loss_is_not_a_better_one() -> None:
    losses = iter([1.0, 1.0, 1.0, 1.0])
    fitted = train(one_number(), [1.0], CONSTANT.model_copy(update={"num_epochs": 4, "patience": 1}), validate=lambda: next(losses))
    assert (fitted.best_check, fitted.validation) == (1, (1.0, 1.0))


def test_a_late_best_check_is_kept_though_the_end_came_before_the_patience() -> None:
    recommender = one_number()
    losses = iter([1.0, 0.5, 0.7])
    fitted = train(recommender, [1.0], CONSTANT.model_copy(update={"num_epochs": 3, "patience": 5}), validate=lambda: next(losses))
    assert fitted.best_check == 2
    assert value(recommender) == pytest.approx(-0.02, abs=FLOAT32)


def test_without_patience_nothing_is_validated_and_the_last_weights_stay() -> None:
    def never() -> float:
        raise AssertionError("validated")

    recommender = one_number()
    fitted = train(recommender, [1.0], CONSTANT.model_copy(update={"num_epochs": 3}), validate=never)
    assert (fitted.validation, fitted.best_check) == ((), 0)
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
            one_number(), [1.0] * 3, CONSTANT, bench=Bench(seed=seed), loss=lambda number, slope: {"only": number + torch.rand(())}
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
