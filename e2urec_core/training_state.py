"""Everything that a training changes while it runs, and how that is kept in a checkpoint and brought back.

What is not in here must not decide anything: a training that is brought back from a checkpoint ends in the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from e2urec_core.checkpoints import Saved
from e2urec_core.errors import Diverged
from e2urec_core.settings import Training


@dataclass(frozen=True)
class CurvePoint:
    """One step of a loss curve; losses in nats."""

    step: int
    loss: float
    parts: Mapping[str, float]


@dataclass
class TrainingState:
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
            raise diverged(f"the validation loss of {purpose}", loss, self.curve, training)
        self.losses = [*self.losses, loss]
        if loss < self.best_loss:
            self.best_loss, self.best_pass = loss, self.number
            self.best_weights = {name: weight.detach().clone() for name, weight in self.trained.items()}

    def return_to_best(self) -> None:
        """Put the best weights back, if a validation loss chose any."""
        with torch.no_grad():
            for name, weight in self.best_weights.items():
                self.trained[name].copy_(weight)


def diverged(what: str, value: float, curve: list[CurvePoint], training: Training) -> Diverged:
    """The error that stops a training whose loss, gradient or validation loss is no number."""
    before = f"{curve[-1].loss:.4g} at step {curve[-1].step}" if curve else "none: this was the first step"
    return Diverged(
        f"{what} is {value} at step {len(curve) + 1}",
        facts={"last finite loss": before, "learning rate": training.learning_rate},
        hint="lower the learning rate; nothing of this stage was published",
    )
