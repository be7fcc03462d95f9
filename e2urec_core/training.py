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

from e2urec_core.checkpoints import Checkpoints, Saved
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
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained, f"{purpose}: nothing to train"
    optimiser = torch.optim.AdamW(trained.values(), lr=training.learning_rate, weight_decay=training.weight_decay)
    state = _State(trained, optimiser, best_pass=training.num_epochs)
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


@dataclass
class _State:
    """Everything that a training changes, and how it is kept and brought back.

    Args:
        trained: The weights that are trained, by name.
        optimiser: Their AdamW.
        best_pass: Pass whose weights are the best so far, counted from 1.
        number: Pass under way, counted from 0.
        in_pass: Steps of that pass that are done.
    """

    trained: dict[str, torch.nn.Parameter]
    optimiser: torch.optim.AdamW
    best_pass: int
    number: int = 0
    in_pass: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts of a checkpoint."""
        tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        for name, weight in self.trained.items():
            tensors[f"weight.{name}"] = weight
            for kind, moment in self.optimiser.state[weight].items():
                tensors[f"{kind}.{name}"] = moment
        tensors |= {f"best.{name}": weight for name, weight in self.best_weights.items()}
        facts = {name: getattr(self, name) for name in ("number", "in_pass", "best_pass", "losses")}
        facts["best_loss"] = self.best_loss if self.losses else None
        facts["curve"] = [[point.loss, dict(point.parts)] for point in self.curve]
        return tensors, facts

    def restore(self, saved: Saved) -> None:
        """Bring back what `saved` kept, random state included."""
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(saved.tensors[f"weight.{name}"])
        moments = [{kind: saved.tensors[f"{kind}.{name}"] for kind in ("step", "exp_avg", "exp_avg_sq")} for name in self.trained]
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": dict(enumerate(moments)), "param_groups": groups})
        for name in ("number", "in_pass", "best_pass", "losses"):
            setattr(self, name, saved.facts[name])
        self.best_loss = math.inf if saved.facts["best_loss"] is None else saved.facts["best_loss"]
        self.best_weights = {name: saved.tensors[f"best.{name}"].to(weight) for name, weight in self.trained.items() if self.losses}
        self.curve = [CurvePoint(at, loss, parts) for at, (loss, parts) in enumerate(saved.facts["curve"], 1)]
        torch.set_rng_state(saved.tensors["random"])
        if torch.cuda.is_available() and "random.cuda" in saved.tensors:
            torch.cuda.set_rng_state(saved.tensors["random.cuda"])

    def judge(self, loss: float, purpose: str, training: Training) -> None:
        """Keep the weights if `loss`, taken on validation after a pass, is the smallest so far."""
        if not math.isfinite(loss):
            raise _diverged(f"the validation loss of {purpose}", loss, self.curve, training)
        self.losses = [*self.losses, loss]
        if loss < self.best_loss:
            self.best_loss, self.best_pass = loss, self.number
            self.best_weights = {name: weight.detach().clone() for name, weight in self.trained.items()}

    def return_to_best(self) -> None:
        """Put the best weights back, if a validation loss chose any."""
        with torch.no_grad():
            for name, weight in self.best_weights.items():
                self.trained[name].copy_(weight)


def _take_step(state: _State, loss: Loss, training: Training, num_steps: int, purpose: str) -> None:
    """Descend once; nothing is changed when the loss or its gradient is no number."""
    parts = {name: part.item() for name, part in loss.parts.items()}
    point = CurvePoint(len(state.curve) + 1, sum(parts.values()), parts)
    if not math.isfinite(point.loss):
        raise _diverged(f"the loss of {purpose}", point.loss, state.curve, training)
    state.optimiser.zero_grad(set_to_none=True)
    loss.total().backward()
    norm = torch.nn.utils.clip_grad_norm_(state.trained.values(), training.max_gradient_norm).item()
    if not math.isfinite(norm):
        raise _diverged(f"the gradient of {purpose}", norm, state.curve, training)
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


def _diverged(what: str, value: float, curve: list[CurvePoint], training: Training) -> Diverged:
    before = f"{curve[-1].loss:.4g} at step {curve[-1].step}" if curve else "none: this was the first step"
    return Diverged(
        f"{what} is {value} at step {len(curve) + 1}",
        facts={"last finite loss": before, "learning rate": training.learning_rate},
        hint="lower the learning rate; nothing of this stage was published",
    )
