"""Ascend on the forgotten answers and descend on the retained ones with the same weight.

Both losses are of the right answers, among all words of the vocabulary. It is NegGrad's loss with the weights and the schedule that
work on unlearning in language models takes as its baseline.

Source: GradDiff (Liu et al., arXiv 2203.12817) as TOFU (Maini et al., arXiv 2401.06121, section 4) runs it: weights 1 and 1, 5 passes,
learning rate 1e-5, 32 rows, weight decay 0.01, the first pass as warm-up.
Differs: one answer token in place of a sentence; 32 rows of each kind share one forward pass.
Cost: one forward and backward a step over as many retained as forgotten rows; the original is never run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.methods.base import Outcome, Problem, Trainer, refuse_nothing_to_forget
from e2urec_core.settings import Training

if TYPE_CHECKING:
    from e2urec_core.engine import Bench


class GradDiff(Trainer):
    """The difference of two gradients."""

    title: ClassVar[str] = "GradDiff"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "ascent_weight")

    kind: Literal["grad_diff"] = "grad_diff"
    """Name of the method."""
    ascent_weight: float = Field(1.0, gt=0, le=100)
    """Weight of the ascent on forgotten rows."""
    retain_weight: float = Field(1.0, ge=0, le=100)
    """Weight of the descent on retained rows; at 0 they are not drawn, which is plain gradient ascent."""
    training: Training = Training(num_epochs=5, batch_size=32, learning_rate=1e-5, weight_decay=0.01, warmup_share=0.2)
    """Schedule; a pass is one over the forgotten rows, with as many retained rows beside them."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.side_by_side import FORGOTTEN, RETAINED, Term, right_answers, train_side_by_side

        refuse_nothing_to_forget(problem)
        terms = {
            "ascent": Term(FORGOTTEN, -self.ascent_weight, right_answers),
            "answer": Term(RETAINED, self.retain_weight, right_answers),
        }
        return train_side_by_side(self.student(problem.original, bench), problem, terms, self.training, bench, self.kind)
