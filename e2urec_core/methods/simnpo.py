"""Push forgotten answers down, the less the unlikelier they are, whatever the original gave them.

NPO without a reference: a row that the original hardly knew is pushed no more than it needs. The likelihoods are those of the right
answers among all words of the vocabulary.

Source: SimNPO (Fan et al., arXiv 2410.07163), and the values that the Open-Unlearning framework ships: beta 4.5, margin 0,
weights 0.125 on the push and 1 on retained rows; 10 passes, learning rate 1e-5, 32 rows.
Differs: an answer is one token, so dividing by its length changes nothing.
Cost: one forward and backward a step over as many retained as forgotten rows; the original is never run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.methods.base import Outcome, Problem, Trainer, refuse_nothing_to_forget
from e2urec_core.settings import Training

if TYPE_CHECKING:
    from torch import Tensor

    from e2urec_core.engine import Bench


class SimNPO(Trainer):
    """Negative preference optimisation without a reference."""

    title: ClassVar[str] = "SimNPO"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "forget_weight")

    kind: Literal["simnpo"] = "simnpo"
    """Name of the method."""
    sharpness: float = Field(4.5, gt=0, le=1000)
    """How quickly the push on a row fades as its answer gets unlikely. Paper: beta."""
    margin: float = Field(0.0, ge=0, le=100)
    """Raises the loss of the answer at which the push has half its strength, to margin / sharpness nats. Paper: gamma."""
    forget_weight: float = Field(0.125, gt=0, le=100)
    """Weight of the push on forgotten rows. The framework calls this one gamma."""
    retain_weight: float = Field(1.0, ge=0, le=100)
    """Weight of the right answers of retained rows; at 0 they are not drawn."""
    training: Training = Training(num_epochs=10, batch_size=32, learning_rate=1e-5)
    """Schedule; a pass is one over the forgotten rows, with as many retained rows beside them."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        import torch

        from e2urec_core.ops.forgetting import answer_nlls, saturating_ascent
        from e2urec_core.side_by_side import FORGOTTEN, RETAINED, Seen, Term, right_answers, train_side_by_side

        def push(seen: Seen) -> Tensor:
            nlls = answer_nlls(seen.logits, seen.answers)
            return saturating_ascent(nlls, torch.full_like(nlls, self.margin / self.sharpness), self.sharpness)

        refuse_nothing_to_forget(problem)
        terms = {"forget": Term(FORGOTTEN, self.forget_weight, push), "answer": Term(RETAINED, self.retain_weight, right_answers)}
        return train_side_by_side(self.student(problem.original, bench), problem, terms, self.training, bench, self.kind)
