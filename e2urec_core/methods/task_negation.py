"""Learn the forgotten rows better, and go as far the other way.

A copy is trained further on the forgotten rows; the change of its weights is subtracted from the original. No loss is ascended, and no
retained row is looked at.

Source: Task arithmetic (Ilharco et al., arXiv 2212.04089); E2URec (Wang et al., arXiv 2403.03536) subtracts the same training in
its outputs.
Differs: the schedule is that of E2URec's augmented model, as it is the same training; with `trains` set to `adapter` the adapter's product
is negated, which is the same subtraction over fewer weights.
Cost: one forward and backward a step over forgotten rows alone; the original is never run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from e2urec_core.methods.base import Outcome, Problem, Trainer, refuse_nothing_to_forget
from e2urec_core.settings import Training

if TYPE_CHECKING:
    from e2urec_core.engine import Bench
    from e2urec_core.recommender import Recommender


class TaskNegation(Trainer):
    """The original, less what it would have learned."""

    title: ClassVar[str] = "Task negation"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "scale")

    kind: Literal["task_negation"] = "task_negation"
    """Name of the method."""
    scale: float = Field(1.0, ge=0, le=100)
    """How many times the change of the weights is subtracted; at 0 the original comes back. Paper: lambda."""
    training: Training = Training(num_epochs=2, batch_size=16, learning_rate=5e-5, schedule="constant", warmup_share=0.0)
    """Schedule of the training on forgotten rows."""

    @model_validator(mode="after")
    def _trains_to_the_end(self) -> TaskNegation:
        if self.training.patience:
            raise ValueError("training.patience judges weights before they are negated, so it cannot tell when to stop")
        return self

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.training import fit_answers

        refuse_nothing_to_forget(problem)
        student = self.student(problem.original, bench)
        fitted = fit_answers(student, problem.forgotten, problem.validation, self.training, bench, purpose=self.kind)
        self.negate(student, problem.original)
        return Outcome(student, fitted)

    def negate(self, student: Recommender, original: Recommender) -> None:
        """Put what was trained in `student` on the other side of `original`, in place."""
        import torch

        from e2urec_core.ops.forgetting import negated

        before = dict(original.network.named_parameters())
        with torch.no_grad():
            for name, weight in student.network.named_parameters():
                if "lora_B" in name:
                    # An adapter's product changes its sign with this factor, which began at 0.
                    weight.copy_(negated(torch.zeros_like(weight), weight, self.scale))
                elif weight.requires_grad and "lora_" not in name:
                    weight.copy_(negated(before[name], weight, self.scale))
