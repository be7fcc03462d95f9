"""The one optimisation loop: every training stage and every method that trains goes through `fit`.

A caller hands over a recommender, a plan (which rows each step draws) and a step that turns drawn rows into a `Loss` with named
parts. The loop owns what is the same for all: the optimiser, its schedule, clipping, the watch for a loss that is no number,
progress, and early stopping on a validation loss with the best weights restored.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.data.batches import Batch, Prompts, pass_order
from e2urec_core.ops.answers import answer_nll
from e2urec_core.recommender import Recommender
from e2urec_core.seeding import seeded
from e2urec_core.settings import Training
from e2urec_core.training_state import CurvePoint, TrainingState, diverged


class Watcher(Protocol):
    """Told how far a stage has come."""

    def __call__(self, done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        """`done` of `total` `unit`s are through; `numbers` are the latest measures."""


def silent(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
    """A watcher that says nothing."""


@dataclass(frozen=True)
class Bench:
    """Where work is done.

    Args:
        seed: The run's seed.
        device: Device of the network.
        watch: Told how far the work has come.
        checkpoints: Where a training keeps its state, so that it can be continued after a kill; None keeps none.
    """

    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    watch: Watcher = silent
    checkpoints: Checkpoints | None = None


@dataclass(frozen=True)
class Loss:
    """A loss with named parts, each already weighted: the loop descends on their sum, and logs and plots them under these names."""

    parts: Mapping[str, Tensor]

    def total(self) -> Tensor:
        """Sum of the parts."""
        return torch.stack(list(self.parts.values())).sum()


@dataclass(frozen=True)
class Fitted:
    """What a call of `fit` did.

    Args:
        curve: Loss of every step.
        validation: Validation loss after each pass, nats; empty without early stopping.
        best_pass: Pass whose weights were kept, counted from 1.
        seconds: Wall-clock time of the loop.
    """

    curve: tuple[CurvePoint, ...]
    validation: tuple[float, ...]
    best_pass: int
    seconds: float


def fit(
    recommender: Recommender,
    passes: Callable[[int], Iterable[Any]],
    step: Callable[[Any], Loss],
    training: Training,
    bench: Bench,
    *,
    num_steps: int,
    purpose: str,
    validate: Callable[[], float] | None = None,
) -> Fitted:
    """Train the weights of `recommender` that require a gradient, in place.

    Args:
        recommender: Network to train; left in evaluation mode.
        passes: Gives what each step of pass 0, 1, ... is handed.
        step: Forward pass of one step.
        training: Schedule.
        bench: Seed, device and watcher.
        num_steps: Steps of all passes together; the learning rate falls over these.
        purpose: Names the dropout's generator and the curve.
        validate: Loss that decides when to stop, nats; needed when `training.patience` is above 0.

    Raises:
        Diverged: A loss was not a finite number; no weight has been touched by it.
    """
    network = recommender.network
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained, f"{purpose}: nothing to train"
    optimiser = torch.optim.AdamW(trained.values(), lr=training.learning_rate, weight_decay=training.weight_decay)
    state = TrainingState(trained, optimiser, best_pass=training.num_epochs)
    started = time.perf_counter()
    with seeded(bench.seed, f"dropout-{purpose}"):
        if bench.checkpoints is not None and (saved := bench.checkpoints.newest()) is not None:
            state.restore(saved)
        for number in range(state.number, training.num_epochs):
            network.train()
            for drawn in itertools.islice(passes(number), state.in_pass, None):
                _take_step(state, step(drawn), training, num_steps, purpose)
                bench.watch(len(state.curve), num_steps, "steps", {"loss": state.curve[-1].loss, **state.curve[-1].parts})
                if bench.checkpoints is not None and bench.checkpoints.due(len(state.curve)):
                    bench.checkpoints.save(len(state.curve), *state.saved())
            state.number, state.in_pass = number + 1, 0
            if training.patience:
                assert validate is not None, f"{purpose}: early stopping needs a validation loss"
                network.eval()
                state.judge(validate(), purpose, training)
                if state.number - state.best_pass >= training.patience:
                    break
    state.return_to_best()
    network.eval()
    return Fitted(tuple(state.curve), tuple(state.losses), state.best_pass, time.perf_counter() - started)


def _take_step(state: TrainingState, loss: Loss, training: Training, num_steps: int, purpose: str) -> None:
    """Descend once; nothing is changed when the loss or its gradient is no number."""
    parts = {name: part.item() for name, part in loss.parts.items()}
    point = CurvePoint(len(state.curve) + 1, sum(parts.values()), parts)
    if not math.isfinite(point.loss):
        raise diverged(f"the loss of {purpose}", point.loss, state.curve, training)
    state.optimiser.zero_grad(set_to_none=True)
    loss.total().backward()
    norm = torch.nn.utils.clip_grad_norm_(state.trained.values(), training.max_gradient_norm).item()
    if not math.isfinite(norm):
        raise diverged(f"the gradient of {purpose}", norm, state.curve, training)
    for group in state.optimiser.param_groups:
        group["lr"] = training.learning_rate * rate_factor(len(state.curve), num_steps, training)
    state.optimiser.step()
    state.curve.append(point)
    state.in_pass += 1


def fit_answers(
    recommender: Recommender,
    rows: Prompts,
    validation: Prompts,
    training: Training,
    bench: Bench,
    *,
    purpose: str,
    left_out: numpy.ndarray | None = None,
) -> Fitted:
    """Fine-tune on the right answers of `rows` (E2URec, equation 2), in place; see `fit`.

    Args:
        recommender: Network to train.
        rows: Rows to draw.
        validation: Rows for early stopping.
        training: Schedule.
        bench: Seed, device and watcher.
        purpose: Names the dropout's generator and the curve.
        left_out: True for rows that are never drawn, (row,). The others come in the order and in the batches they would have with
            them: a Retrain is paired with its original this way.
    """
    order = [pass_order(rows.lengths, training.batch_size, bench.seed, number) for number in range(training.num_epochs)]
    if left_out is not None:
        kept = [[index[~left_out[index]] for index in batches] for batches in order]
        order = [[index for index in batches if len(index)] for batches in kept]

    def passes(number: int) -> Iterable[Batch]:
        return (rows.batch(index).to(bench.device) for index in order[number])

    def step(batch: Batch) -> Loss:
        return Loss({"answer": answer_nll(recommender.logits(batch), recommender.answer_ids(batch))})

    return fit(
        recommender,
        passes,
        step,
        training,
        bench,
        num_steps=sum(map(len, order)),
        purpose=purpose,
        validate=lambda: mean_answer_nll(recommender, validation, bench),
    )


def mean_answer_nll(recommender: Recommender, rows: Prompts, bench: Bench, batch_size: int = 256) -> float:
    """Mean negative log-likelihood of the right answers of `rows`, nats, without gradients."""
    total = 0.0
    with torch.inference_mode():
        for batch in rows.in_order(batch_size):
            there = batch.to(bench.device)
            total += answer_nll(recommender.logits(there), recommender.answer_ids(there)).item() * len(batch.labels)
    return total / max(1, len(rows))


def rate_factor(at: int, num_steps: int, training: Training) -> float:
    """Share of the peak learning rate at step `at` of `num_steps`, counted from 0."""
    warmup = round(training.warmup_share * num_steps)
    if at < warmup:
        return (at + 1) / (warmup + 1)
    if training.schedule == "constant":
        return 1.0
    return max(0.0, (num_steps - at) / max(1, num_steps - warmup))
