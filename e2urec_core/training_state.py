"""Everything that a training changes while it runs, and how that is kept in a checkpoint and brought back.

What is not in here must not decide anything: a training that is brought back from a checkpoint ends in the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor

from e2urec_core.checkpoints import Saved
from e2urec_core.errors import TooLarge
from e2urec_core.settings import Training

# Steps whose losses are averaged before they are said to have risen.
BLOCK = 20
# Plain values of the state that a checkpoint keeps as they are.
KEPT = ("number", "in_pass", "token_budget", "halved_at", "best_check", "losses")


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
        validation: Validation loss after each check, nats; empty without early stopping.
        best_check: Check whose weights were kept, counted from 1; 0 without early stopping: the last weights.
        token_budget: Most tokens of a forward pass at the end.
        halved_at: Steps at which the device's memory ran out and the budget was halved, counted from 1.
        seconds: Wall-clock time of the loop.
    """

    curve: tuple[CurvePoint, ...]
    validation: tuple[float, ...]
    best_check: int
    token_budget: int
    halved_at: tuple[int, ...]
    seconds: float


@dataclass
class TrainingState:
    """Everything that a training changes, and how it is kept and brought back.

    Args:
        trained: The weights that are trained, by name.
        optimiser: Their AdamW.
        token_budget: Most tokens of one forward pass.
        patience: Checks without a better validation loss after which the training stops; 0 never stops it.
        number: Pass under way, counted from 0.
        in_pass: Steps of that pass that are done.
        halved_at: Steps at which the budget was halved, counted from 1.
        best_check: Validation loss that was the smallest, counted from 1; 0 while there is none.
    """

    trained: dict[str, torch.nn.Parameter]
    optimiser: torch.optim.AdamW
    token_budget: int
    patience: int = 0
    number: int = 0
    in_pass: int = 0
    halved_at: list[int] = field(default_factory=list)
    best_check: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    lowest: float = math.inf

    @property
    def stopped(self) -> bool:
        """Whether the validation loss has not become better for too long."""
        return self.patience > 0 and len(self.losses) - self.best_check >= self.patience

    def risen(self, above: float) -> bool:
        """Whether the last block of steps has a mean loss over `above` times the smallest block's, and one nat more.

        Parts that are ascended are left out; see `descended`.
        """
        if len(self.curve) % BLOCK:
            return False
        mean = _mean(self.curve[-BLOCK:])
        self.lowest = min(self.lowest, mean)
        return mean > self.lowest + (above - 1) * abs(self.lowest) + 1

    def saved(self, random: Mapping[str, Sequence[Tensor]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts of a checkpoint; `random` is each process's random states, by name and rank."""
        tensors: dict[str, Tensor] = {f"{name}.{rank}": state for name, states in random.items() for rank, state in enumerate(states)}
        for name, weight in self.trained.items():
            tensors[f"weight.{name}"] = weight
            for kind, moment in self.optimiser.state[weight].items():
                tensors[f"{kind}.{name}"] = moment
        tensors |= {f"best.{name}": weight for name, weight in self.best_weights.items()}
        facts = {name: getattr(self, name) for name in KEPT}
        facts["curve"] = [[point.loss, dict(point.parts)] for point in self.curve]
        return tensors, facts

    def restore(self, saved: Saved, rank: int) -> None:
        """Bring back what `saved` kept, the random state of process `rank` included."""
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(saved.tensors[f"weight.{name}"])
        moments = [{kind: saved.tensors[f"{kind}.{name}"] for kind in ("step", "exp_avg", "exp_avg_sq")} for name in self.trained]
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": dict(enumerate(moments)), "param_groups": groups})
        for name in KEPT:
            setattr(self, name, saved.facts[name])
        self.best_weights = {name: saved.tensors[f"best.{name}"].to(weight) for name, weight in self.trained.items() if self.losses}
        self.curve = [CurvePoint(at, loss, parts) for at, (loss, parts) in enumerate(saved.facts["curve"], 1)]
        self.lowest = min((_mean(self.curve[at : at + BLOCK]) for at in range(0, len(self.curve) - BLOCK + 1, BLOCK)), default=math.inf)
        torch.set_rng_state(saved.tensors[f"random.{rank}"])
        if f"random.cuda.{rank}" in saved.tensors:
            torch.cuda.set_rng_state(saved.tensors[f"random.cuda.{rank}"])

    def judge(self, loss: float) -> None:
        """Keep the weights if `loss`, taken on validation, is the smallest so far."""
        best = self.losses[self.best_check - 1] if self.losses else math.inf
        self.losses = [*self.losses, loss]
        if loss < best:
            self.best_check = len(self.losses)
            self.best_weights = {name: weight.detach().clone() for name, weight in self.trained.items()}

    def return_to_best(self) -> None:
        """Put the best weights back, if a validation loss chose any."""
        with torch.no_grad():
            for name, weight in self.best_weights.items():
                self.trained[name].copy_(weight)

    def halve(self, lengths: numpy.ndarray, at: int) -> None:
        """Halve the budget, because the device's memory ran out at step `at` over rows of these lengths.

        Raises:
            TooLarge: The pieces were single rows already.
        """
        longest = int(lengths.max())
        if self.token_budget <= longest:
            raise TooLarge(
                f"the device's memory does not hold one row of {longest} tokens at step {at}",
                facts={"token budget": self.token_budget},
                hint="take a device with more memory, a smaller backbone, or a smaller `--backbone.max-tokens`",
            )
        # A budget far above what the step needed would have to be halved several times to change anything.
        self.token_budget = min(self.token_budget, len(lengths) * longest) // 2
        self.halved_at = [*self.halved_at, at]


def _mean(points: Sequence[CurvePoint]) -> float:
    return sum(map(descended, points)) / len(points)


def descended(point: CurvePoint) -> float:
    """A step's loss without its negative parts: those are ascended, and sink without end because they are meant to."""
    return point.loss - sum(min(part, 0.0) for part in point.parts.values())


def rate_factor(at: int, num_steps: int, training: Training) -> float:
    """Share of the peak learning rate at step `at` of `num_steps`, counted from 0."""
    warmup = round(training.warmup_share * num_steps)
    if at < warmup:
        return (at + 1) / (warmup + 1)
    if training.schedule == "constant":
        return 1.0
    return max(0.0, (num_steps - at) / max(1, num_steps - warmup))
