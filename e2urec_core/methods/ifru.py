"""Take back, in one step, what the forgotten rows have done to the weights.

At the end of training the rows' gradients hold each other in balance. Without some rows the balance lies elsewhere, and to first order
the way there is the inverse curvature of the loss times the gradients that fall away. Where single interactions are forgotten, these
are not only the gradients of their own rows: every later row of the user that told them was learned with another prompt. The
difference of the gradients of its old and its new prompt is the interaction's spillover.

Source: IFRU (Zhang et al., Recommendation Unlearning via Influence Function, arXiv 2307.02147), equations for direct and spillover
influence and the pruning by importance; its code is for matrix factorisation and LightGCN.
Differs: the spillover runs through prompts that tell a history, not through neighbours in a graph; the curvature is that of Gauss and
Newton on a panel of retained rows, not the Hessian of all, so that no eigenvalue is negative; the system is damped and solved by
conjugate gradients, not by Adam, and no iterate is picked on validation; a row of a tensor takes the place of a user or item, and its
importance is its part of the gradient that falls away, not a count of interactions: the words that only other users' prompts tell
come last, as users do who share nothing with the forgotten. That keeps the others as they are, and saves no work as it does in the
source. Of an adapter only the factors that begin at 0 move, because the drawn ones have no gradient there.
Cost: one backward pass over the forgotten rows and two over the changed ones; then up to 52 products, each about as much as three
backward passes over the panel, whatever the size of the request. For a small network that is as much as a Retrain. Nothing is kept
while it runs: after a kill it starts again and ends in the same bits.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from e2urec_core.methods.base import Outcome, Problem, Trainer, refuse_nothing_to_forget

if TYPE_CHECKING:
    from e2urec_core.engine import Bench
    from e2urec_core.recommender import Recommender


class Ifru(Trainer):
    """The original, moved by the influence of what is forgotten."""

    title: ClassVar[str] = "IFRU"
    tuned: ClassVar[tuple[str, ...]] = ("scale", "damping_share")

    kind: Literal["ifru"] = "ifru"
    """Name of the method."""
    scale: float = Field(1.0, ge=0, le=1e6)
    """How many times the step is taken; 1 is the formula, at 0 the original comes back."""
    panel_rows: int = Field(512, ge=1, le=1_000_000)
    """Retained rows, drawn by the seed, on which the curvature is taken."""
    power_iterations: int = Field(12, ge=1, le=1000)
    """Products that estimate the largest eigenvalue of the curvature."""
    damping_share: float = Field(0.01, gt=0, le=1e6)
    """What is added to the curvature in every direction, as a share of its largest eigenvalue."""
    max_iterations: int = Field(40, ge=1, le=10_000)
    """Iterations of conjugate gradients at most."""
    tolerance: float = Field(1e-4, gt=0, lt=1)
    """Residual, as a share of the right side's length, at which the system is solved."""
    accept_residual: float = Field(0.01, gt=0, lt=1)
    """Residual up to which the last iteration is taken as good enough; above, the method refuses to answer."""
    keep_share: float = Field(0.6, gt=0, le=1)
    """Share of the rows of all tensors that may change, the most important first; the others stay. Paper: 0.6 on LightGCN, 1 on MF."""

    @model_validator(mode="after")
    def _accepts_what_it_asks_for(self) -> Ifru:
        if self.accept_residual < self.tolerance:
            raise ValueError(f"accept_residual {self.accept_residual} is below tolerance {self.tolerance}, at which iterations end")
        return self

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`.

        Raises:
            NotSolved: The conjugate gradients did not come near enough.
        """
        from e2urec_core.influence import Influence, drawn_panel, drawn_start, fallen_away
        from e2urec_core.ops.influence import conjugate_gradient, largest_eigenvalue
        from e2urec_core.training_state import CurvePoint, Fitted

        refuse_nothing_to_forget(problem)
        started, total = time.perf_counter(), self.power_iterations + self.max_iterations
        influence = Influence(self.student(problem.original, bench), drawn_panel(problem, self.panel_rows, bench.seed), bench)
        wanted = influence.pruned(fallen_away(influence, problem), self.keep_share)
        refuse_no_number("length of the gradient that falls away", wanted.norm().item())
        largest = largest_eigenvalue(
            influence.curvature,
            drawn_start(influence, bench),
            self.power_iterations,
            lambda done, value: bench.watch(done, total, "products", {"eigenvalue": value}),
        )
        refuse_no_number("largest eigenvalue of the curvature", largest)
        damping = self.damping_share * largest
        solved = conjugate_gradient(
            lambda direction: influence.curvature(direction) + damping * direction,
            wanted,
            self.max_iterations,
            self.tolerance,
            lambda done, value: bench.watch(self.power_iterations + done, total, "products", {"residual": value}),
        )
        self.refuse_unsolved(solved.residuals[-1], len(solved.residuals))
        influence.step(self.scale / (len(problem.retained) + len(problem.forgotten)) * solved.solution)
        curve = tuple(CurvePoint(at, value, {"residual": value}) for at, value in enumerate(solved.residuals, 1))
        fitted = Fitted(curve, (), 0, bench.token_budget, (), time.perf_counter() - started)
        return Outcome(influence.recommender, fitted, num_changed=influence.num_movable)

    def student(self, original: Recommender, bench: Bench) -> Recommender:
        """See `Trainer.student`; of an adapter, the factors that begin at 0 change, and the drawn ones stay."""
        student = super().student(original, bench)
        if student.has_adapter:
            for name, weight in student.network.named_parameters():
                weight.requires_grad_("lora_B" in name)
        return student

    def refuse_unsolved(self, residual: float, iterations: int) -> None:
        """Make sure that the last residual is good enough.

        Raises:
            NotSolved: It is too large, or no number.
        """
        from e2urec_core.errors import NotSolved

        if not residual <= self.accept_residual:
            raise NotSolved(
                f"the step of {self.kind} is solved to a residual of {residual:.2g} after {iterations} iterations",
                facts={"asked for": self.tolerance, "taken as good enough": self.accept_residual, "damping share": self.damping_share},
                hint="raise `--method.damping-share` or `--method.max-iterations`, or take it with `--method.accept-residual`",
            )


def refuse_no_number(what: str, value: float) -> None:
    """Make sure that a number of the step is finite and above 0.

    Raises:
        Diverged: It is not.
    """
    from e2urec_core.errors import Diverged

    if not 0 < value < math.inf:
        raise Diverged(f"the {what} of ifru is {value:.4g}", hint="look at the original's training: its gradients are no numbers, or all 0")
