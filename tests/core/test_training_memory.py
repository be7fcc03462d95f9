"""What the loop does when memory runs out, when a loss climbs, and when it is checked within a pass.

One number is trained, from 1 on. Every step draws the same rows and has the loss `slope * number`, to which each piece adds its share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy
import pytest
import torch

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.data.batches import Prompts
from e2urec_core.data.draws import Draw, Loaded, Part
from e2urec_core.engine import Bench, Read
from e2urec_core.errors import Diverged, TooLarge
from e2urec_core.recommender import Answers, Recommender
from e2urec_core.settings import Training
from e2urec_core.training import Fitted, Loss, fit

FLOAT32 = 1e-6
CONSTANT = Training(num_epochs=1, learning_rate=0.01, schedule="constant", warmup_share=0, max_gradient_norm=1e6)
STILL = CONSTANT.model_copy(update={"learning_rate": 1e-9})
BENCH = Bench(seed=0)
EIGHT_ROWS = [4] * 8


class Number(torch.nn.Module):
    """A network of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(1.0))


class Trained:
    """A training of the number; `runs_out` says for which step and padded tokens of a piece the memory does not suffice."""

    def __init__(
        self, lengths: list[int], slopes: list[float] | None = None, runs_out: Callable[[int, int], bool] = lambda step, tokens: False
    ) -> None:
        answers = Answers(yes_id=0, no_id=1, decoder_prefix=(0,), attention_targets=(), linear_targets=())
        self.recommender = Recommender(Number(), None, answers)  # type: ignore[arg-type]
        self.slopes, self.runs_out = slopes or [1.0] * 4, runs_out
        starts = numpy.concatenate([[0], numpy.cumsum(lengths)]).astype(numpy.int64)
        count = numpy.arange(len(lengths))
        self.rows = Prompts(count, count % 2, numpy.ones(int(starts[-1]), dtype=numpy.int32), starts)
        self.tried: list[tuple[int, int]] = []

    @property
    def value(self) -> float:
        return self.recommender.network.value.item()  # type: ignore[union-attr, return-value, operator]

    def passes(self, number: int) -> Iterable[Draw]:
        everyone = numpy.arange(len(self.rows))
        for step, slope in enumerate(self.slopes, 1):
            beside = {"slope": torch.full((len(everyone),), slope), "step": torch.full((len(everyone),), step)}
            yield Draw({"rows": Part(self.rows, everyone, len(everyone), beside)})

    def loss(self, read: Read, piece: Loaded) -> Loss:
        beside, tokens = piece.beside["rows"], piece.batch.token_ids.numel()
        step = int(beside["step"][0])
        self.tried.append((step, tokens))
        if self.runs_out(step, tokens):
            raise torch.OutOfMemoryError("invented")
        number: torch.Tensor = self.recommender.network.value  # type: ignore[union-attr, assignment]
        return Loss({"rows": piece.share("rows") * number * beside["slope"].mean()})

    def run(self, bench: Bench = BENCH, training: Training = CONSTANT, validate: Callable[[], float] | None = None) -> Fitted:
        return fit(
            self.recommender,
            self.passes,
            self.loss,
            ("rows",),
            training,
            bench,
            num_steps=len(self.slopes) * training.num_epochs,
            purpose="test",
            validate=validate and (lambda read: validate()),
        )


def budget(tokens: int) -> Bench:
    return dataclasses.replace(BENCH, token_budget=tokens)


def test_when_memory_runs_out_the_budget_is_halved_and_the_step_is_done_again() -> None:
    trained = Trained(EIGHT_ROWS, slopes=[1.0, 1.0], runs_out=lambda step, tokens: tokens > 10)
    fitted = trained.run()
    # 8 rows of 4 tokens: 32 is too much, so is 32 / 2 = 16; 16 / 2 = 8 holds two rows. Step 2 is cut small from the start.
    assert trained.tried == [(1, 32), (1, 16), *[(1, 8)] * 4, *[(2, 8)] * 4]
    assert (fitted.token_budget, fitted.halved_at) == (8, (1, 1))


def test_a_training_that_ran_out_of_memory_has_the_losses_of_one_that_began_small() -> None:
    tight, small = Trained(EIGHT_ROWS, [3.0, 1.0, 2.0], lambda step, tokens: tokens > 10), Trained(EIGHT_ROWS, [3.0, 1.0, 2.0])
    halved, plain = tight.run(), small.run(budget(8))
    assert halved.curve == plain.curve
    assert tight.value == small.value
    assert (plain.token_budget, plain.halved_at) == (8, ())


def test_memory_that_runs_out_later_leaves_earlier_steps_whole_and_cuts_later_ones() -> None:
    trained = Trained(EIGHT_ROWS, runs_out=lambda step, tokens: step == 3 and tokens > 16)
    fitted = trained.run()
    # Step 4 would fit, but was not tried: what ran out once will again.
    assert trained.tried == [(1, 32), (2, 32), (3, 32), (3, 16), (3, 16), (4, 16), (4, 16)]
    assert (fitted.token_budget, fitted.halved_at) == (16, (3,))


def test_what_a_step_had_done_when_memory_ran_out_is_not_counted_twice() -> None:
    tight, plain = Trained(EIGHT_ROWS, [3.0, 1.0, 2.0]), Trained(EIGHT_ROWS, [3.0, 1.0, 2.0])
    # The first piece of the first step has added its gradient when the second finds no room, once.
    tight.runs_out = lambda step, tokens: len(tight.tried) == 2
    fitted = tight.run(budget(16))
    plain.run(budget(16))
    assert fitted.halved_at == (1,)
    assert fitted.curve[0].loss == 3.0
    assert tight.value == pytest.approx(plain.value, abs=FLOAT32)


def test_a_row_that_does_not_fit_by_itself_is_refused_with_its_length_and_no_weight_is_touched() -> None:
    trained = Trained([30, 4], runs_out=lambda step, tokens: step == 2 and tokens > 20)
    # 2 rows of 30 at most, halved: 30, which is one row already.
    with pytest.raises(TooLarge, match="the device's memory does not hold one row of 30 tokens at step 2") as refused:
        trained.run()
    assert refused.value.facts == {"token budget": 30}
    assert "--backbone.max-tokens" in refused.value.hint
    # One step of .01 was done.
    assert trained.value == pytest.approx(0.99, abs=FLOAT32)


class Killed(Exception):
    """Ends a training as a kill would."""


def checkpointed(folder: Path, every_steps: int = 1, kill_at: int = 0) -> Bench:
    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        if done == kill_at:
            raise Killed

    return dataclasses.replace(BENCH, watch=watch, checkpoints=Checkpoints(folder, every_s=1e9, every_steps=every_steps))


def test_a_training_that_goes_on_after_a_kill_keeps_the_budget_that_its_memory_held(tmp_path: Path) -> None:
    tight = {"lengths": EIGHT_ROWS, "runs_out": lambda step, tokens: tokens > 10}
    with pytest.raises(Killed):
        Trained(**tight).run(checkpointed(tmp_path, kill_at=3))
    again = Trained(**tight)
    fitted = again.run(checkpointed(tmp_path))
    # The kill came before step 3 was written down.
    assert again.tried == [*[(3, 8)] * 4, *[(4, 8)] * 4]
    assert (fitted.token_budget, fitted.halved_at) == (8, (1, 1))


def test_a_loss_that_climbs_stops_the_training_with_step_loss_and_last_checkpoint(tmp_path: Path) -> None:
    # Twenty steps of 1, then twenty of 11.1: over 1 + 9 * 1 and one nat more.
    trained = Trained([1], [1.0] * 20 + [11.1] * 20)
    with pytest.raises(Diverged, match=r"the loss of test is 11\.1 at step 40") as refused:
        trained.run(checkpointed(tmp_path, every_steps=16), STILL)
    assert refused.value.facts == {
        "last finite loss": "11.1 at step 40",
        "learning rate": 1e-9,
        "last good checkpoint": "after step 32",
    }


def test_without_checkpoints_a_loss_that_climbs_says_that_there_is_none() -> None:
    with pytest.raises(Diverged) as refused:
        Trained([1], [1.0] * 20 + [11.1] * 20).run(BENCH, STILL)
    assert refused.value.facts["last good checkpoint"] == "none"


@pytest.mark.parametrize(
    "slopes",
    [
        # 10.9 is under 1 + 9 * 1 + 1.
        [1.0] * 20 + [10.9] * 20,
        # One wild step of a block: (19 * 1 + 100) / 20 = 5.95.
        [1.0] * 20 + [1.0] * 19 + [100.0],
        # Five hundred times as much, but less than a nat.
        [0.001] * 20 + [0.5] * 20,
        # A block that is not whole yet is not judged.
        [1.0] * 20 + [50.0] * 19,
    ],
    ids=["a little less", "one wild step", "near zero", "half a block"],
)
def test_a_loss_that_rises_less_does_not_stop_the_training(slopes: list[float]) -> None:
    assert len(Trained([1], slopes).run(BENCH, STILL).curve) == len(slopes)


def test_how_far_a_loss_may_climb_is_a_setting_and_is_counted_from_the_lowest_block() -> None:
    careful = STILL.model_copy(update={"diverged_above": 2})
    # The lowest block is the second: 2 * 1 + 1 = 3 is the bound for the third.
    with pytest.raises(Diverged, match="at step 60"):
        Trained([1], [5.0] * 20 + [1.0] * 20 + [3.1] * 20).run(BENCH, careful)
    assert len(Trained([1], [5.0] * 20 + [1.0] * 20 + [2.9] * 20).run(BENCH, careful).curve) == 60


CHECKED = CONSTANT.model_copy(update={"num_epochs": 5, "check_every": 3, "patience": 2})


def test_a_check_every_three_steps_stops_in_the_middle_of_a_pass_and_brings_back_the_best_weights() -> None:
    trained, seen, losses = Trained([1], [1.0] * 5), [], iter([3.0, 1.0, 2.0, 2.5, 0.1])

    def validate() -> float:
        assert not trained.recommender.network.training
        seen.append(trained.value)
        return next(losses)

    fitted = trained.run(BENCH, CHECKED, validate)
    # Checks after steps 3, 6, 9 and 12 of passes of 5; the best was the second.
    assert seen == pytest.approx([0.97, 0.94, 0.91, 0.88], abs=FLOAT32)
    assert (len(fitted.curve), fitted.validation, fitted.best_check) == (12, (3.0, 1.0, 2.0, 2.5), 2)
    assert trained.value == seen[1]


def test_the_last_weights_are_checked_too_though_their_step_is_none_of_the_checks() -> None:
    trained, losses = Trained([1], [1.0] * 5), iter([3.0, 1.0, 0.5])
    fitted = trained.run(BENCH, CHECKED.model_copy(update={"num_epochs": 1, "check_every": 2}), lambda: next(losses))
    assert (fitted.validation, fitted.best_check) == ((3.0, 1.0, 0.5), 3)


def test_after_a_check_within_a_pass_the_network_trains_on() -> None:
    trained, modes = Trained([1], [1.0] * 5), []
    loss = trained.loss

    def noted(read: Read, piece: Loaded) -> Loss:
        modes.append(trained.recommender.network.training)
        return loss(read, piece)

    trained.loss = noted  # type: ignore[method-assign]
    trained.run(BENCH, CHECKED.model_copy(update={"num_epochs": 1}), lambda: 1.0)
    assert modes == [True] * 5


def test_a_training_that_had_stopped_is_not_continued_when_it_is_started_again(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5])
    first, again = Trained([1], [1.0] * 5), Trained([1], [1.0] * 5)
    stopped = first.run(checkpointed(tmp_path), CHECKED, lambda: next(losses))
    started_again = again.run(checkpointed(tmp_path), CHECKED)
    assert again.tried == []
    assert (started_again.curve, started_again.validation) == (stopped.curve, stopped.validation)
    assert again.value == first.value


def test_a_training_killed_between_two_checks_goes_on_to_the_same_end(tmp_path: Path) -> None:
    first, again = Trained([1], [1.0] * 5), Trained([1], [1.0] * 5)
    fitted = first.run(BENCH, CHECKED, iter([3.0, 1.0, 2.0, 2.5]).__next__)
    with pytest.raises(Killed):
        Trained([1], [1.0] * 5).run(checkpointed(tmp_path, kill_at=8), CHECKED, iter([3.0, 1.0]).__next__)
    went_on = again.run(checkpointed(tmp_path), CHECKED, iter([2.0, 2.5]).__next__)
    assert (went_on.curve, went_on.validation, went_on.best_check) == (fitted.curve, fitted.validation, fitted.best_check)
    assert again.value == first.value
