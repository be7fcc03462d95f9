"""The one optimisation loop: every training stage and every method that trains goes through `fit`.

A caller hands over a recommender, a plan (which rows each step draws) and a step that turns drawn rows into a `Loss` with named
parts. The loop owns what is the same for all: the optimiser, its schedule, clipping, the watch for a loss that is no number,
progress, and early stopping on a validation loss with the best weights restored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor

from e2urec_core.data.batches import Batch, Prompts, pass_order
from e2urec_core.errors import Diverged
from e2urec_core.ops.answers import answer_nll
from e2urec_core.recommender import Recommender
from e2urec_core.seeding import seeded
from e2urec_core.settings import Training


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
    """

    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    watch: Watcher = silent


@dataclass(frozen=True)
class Loss:
    """A loss with named parts, each already weighted: the loop descends on their sum, and logs and plots them under these names."""

    parts: Mapping[str, Tensor]

    def total(self) -> Tensor:
        """Sum of the parts."""
        return torch.stack(list(self.parts.values())).sum()


@dataclass(frozen=True)
class CurvePoint:
    """One step of a loss curve; losses in nats."""

    step: int
    loss: float
    parts: Mapping[str, float]


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
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    assert trained, f"{purpose}: nothing to train"
    optimiser = torch.optim.AdamW(trained, lr=training.learning_rate, weight_decay=training.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda at: rate_factor(at, num_steps, training))
    curve: list[CurvePoint] = []
    losses: list[float] = []
    best, best_pass, best_weights = math.inf, training.num_epochs, None
    started = time.perf_counter()
    with seeded(bench.seed, f"dropout-{purpose}"):
        for number in range(training.num_epochs):
            network.train()
            for drawn in passes(number):
                loss = step(drawn)
                parts = {name: part.item() for name, part in loss.parts.items()}
                point = CurvePoint(len(curve) + 1, sum(parts.values()), parts)
                if not math.isfinite(point.loss):
                    raise _diverged(f"the loss of {purpose}", point.loss, curve, training)
                optimiser.zero_grad(set_to_none=True)
                loss.total().backward()
                norm = torch.nn.utils.clip_grad_norm_(trained, training.max_gradient_norm)
                if not math.isfinite(norm.item()):
                    raise _diverged(f"the gradient of {purpose}", norm.item(), curve, training)
                optimiser.step()
                rate.step()
                curve.append(point)
                bench.watch(point.step, num_steps, "steps", {"loss": point.loss, **parts})
            if training.patience:
                assert validate is not None, f"{purpose}: early stopping needs a validation loss"
                network.eval()
                losses.append(validate())
                if not math.isfinite(losses[-1]):
                    raise _diverged(f"the validation loss of {purpose}", losses[-1], curve, training)
                if losses[-1] < best:
                    best, best_pass = losses[-1], number + 1
                    best_weights = {name: weight.detach().clone() for name, weight in network.named_parameters() if weight.requires_grad}
                elif number + 1 - best_pass >= training.patience:
                    break
    if best_weights is not None:
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if name in best_weights:
                    weight.copy_(best_weights[name])
    network.eval()
    return Fitted(tuple(curve), tuple(losses), best_pass, time.perf_counter() - started)


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


def _diverged(what: str, value: float, curve: list[CurvePoint], training: Training) -> Diverged:
    before = f"{curve[-1].loss:.4g} at step {curve[-1].step}" if curve else "none: this was the first step"
    return Diverged(
        f"{what} is {value} at step {len(curve) + 1}",
        facts={"last finite loss": before, "learning rate": training.learning_rate},
        hint="lower the learning rate; nothing of this stage was published",
    )
