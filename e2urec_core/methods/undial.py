"""Follow the original with the right answer's logit lowered, on forgotten rows.

E2URec's forgetting teacher without an augmented model: what is taken from the original is not what further training adds, but a constant
from the answer that it was taught. The student follows it over the original's 32 likeliest words and all others together, so that what
the answer loses goes to the other words in their proportions.

Source: UNDIAL (Dong et al., arXiv 2402.10052), and the values that the Open-Unlearning framework ships: strength 10, no retained loss,
10 passes, learning rate 1e-4, 16 rows.
Differs: the loss is a divergence, which has the gradient of the source's cross-entropy; one answer token in place of a sentence; with two
answers a strength of 10 all but flips them, so the default is 2, and retained rows are learned with weight 1.
Cost: one forward pass of the original over the forgotten rows, then one forward and backward a step over as many retained as forgotten
rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.methods.base import Outcome, Problem, Trainer, refuse_nothing_to_forget
from e2urec_core.settings import Training

if TYPE_CHECKING:
    from torch import Tensor

    from e2urec_core.engine import Bench


class Undial(Trainer):
    """Self-distillation with an adjusted answer."""

    title: ClassVar[str] = "UNDIAL"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "strength")

    kind: Literal["undial"] = "undial"
    """Name of the method."""
    strength: float = Field(2.0, ge=0, le=1000)
    """How far the right answer's logit is lowered; at 0 forgotten rows hold the student at the original. Framework: beta."""
    forget_weight: float = Field(1.0, gt=0, le=100)
    """Weight of following the adjusted original on forgotten rows."""
    retain_weight: float = Field(1.0, ge=0, le=100)
    """Weight of the right answers of retained rows; at 0 they are not drawn, as in the source."""
    training: Training = Training(num_epochs=10, batch_size=16, learning_rate=1e-4)
    """Schedule; a pass is one over the forgotten rows, with as many retained rows beside them."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.ops.distil import teacher_divergence
        from e2urec_core.ops.forgetting import lowered_answer
        from e2urec_core.side_by_side import FORGOTTEN, RETAINED, Seen, Term, right_answers, said_by, train_side_by_side

        def follow(seen: Seen) -> Tensor:
            return teacher_divergence(lowered_answer(seen.beside["original"], seen.columns(), self.strength), seen.compared())

        refuse_nothing_to_forget(problem)
        terms = {"forget": Term(FORGOTTEN, self.forget_weight, follow), "answer": Term(RETAINED, self.retain_weight, right_answers)}
        beside = {FORGOTTEN: said_by(problem.original, bench)}
        return train_side_by_side(self.student(problem.original, bench), problem, terms, self.training, bench, self.kind, beside)
