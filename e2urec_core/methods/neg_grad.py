"""Descend on retained rows and ascend on forgotten ones.

The loss of the right answers, among all words of the vocabulary: as it is on retained rows, with its sign turned on forgotten rows.
Nothing bounds the ascent, so the weight and the number of steps decide how far it goes.

Source: NegGrad (Golatkar et al., arXiv 1911.04933) as E2URec (Wang et al., arXiv 2403.03536) and its public code run it:
lambda 0.2, learning rate 5e-5, 16 rows of each kind, 3000 steps.
Differs: both kinds of rows share one forward pass; the answer is one token, where the code also learns the full stop after it; 3000
steps over the reference's 12,982 forgotten rows are the 4 passes of the default.
Cost: one forward and backward a step over as many retained as forgotten rows; the original is never run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.methods.base import Outcome, Problem, Trainer, refuse_nothing_to_forget
from e2urec_core.settings import Training

if TYPE_CHECKING:
    from e2urec_core.engine import Bench


class NegGrad(Trainer):
    """The gradient on forgotten rows, turned around."""

    title: ClassVar[str] = "NegGrad"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "ascent_weight")

    kind: Literal["neg_grad"] = "neg_grad"
    """Name of the method."""
    ascent_weight: float = Field(0.2, ge=0, le=100)
    """Weight of the ascent on forgotten rows; at 0 they are not drawn. Paper: lambda."""
    training: Training = Training(num_epochs=4, batch_size=16, learning_rate=5e-5, schedule="constant", warmup_share=0.0)
    """Schedule; a pass is one over the forgotten rows, with as many retained rows beside them."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.side_by_side import FORGOTTEN, RETAINED, Term, right_answers, train_side_by_side

        refuse_nothing_to_forget(problem)
        terms = {"answer": Term(RETAINED, 1.0, right_answers), "ascent": Term(FORGOTTEN, -self.ascent_weight, right_answers)}
        return train_side_by_side(self.student(problem.original, bench), problem, terms, self.training, bench, self.kind)
