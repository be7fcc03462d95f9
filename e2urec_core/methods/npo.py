"""Push forgotten answers down, the less the further they are below what the original gave them.

Gradient ascent whose strength fades row by row, so that it does not run away. The likelihoods are those of the right answers among all
words of the vocabulary; the original's are asked once, before.

Source: NPO (Zhang et al., arXiv 2404.05868), with its retained term; as run on TOFU: beta 0.1, 10 passes, learning rate
1e-5, 32 rows, weight decay 0.01, the first pass as warm-up.
Differs: one answer token in place of a sentence; the retained loss is on by default, which the paper calls NPO+RT.
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


class NPO(Trainer):
    """Negative preference optimisation."""

    title: ClassVar[str] = "NPO"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "sharpness")

    kind: Literal["npo"] = "npo"
    """Name of the method."""
    sharpness: float = Field(0.1, gt=0, le=1000)
    """How quickly the push on a row fades as its answer gets less likely than the original had it; near 0 never. Paper: beta."""
    forget_weight: float = Field(1.0, gt=0, le=100)
    """Weight of the push on forgotten rows."""
    retain_weight: float = Field(1.0, ge=0, le=100)
    """Weight of the right answers of retained rows; at 0 they are not drawn."""
    training: Training = Training(num_epochs=10, batch_size=32, learning_rate=1e-5, weight_decay=0.01, warmup_share=0.1)
    """Schedule; a pass is one over the forgotten rows, with as many retained rows beside them."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.ops.forgetting import answer_nlls, saturating_ascent
        from e2urec_core.side_by_side import FORGOTTEN, RETAINED, Seen, Term, right_answers, said_by, train_side_by_side

        def push(seen: Seen) -> Tensor:
            original = answer_nlls(seen.beside["original"], seen.columns())
            return saturating_ascent(answer_nlls(seen.logits, seen.answers), original, self.sharpness)

        refuse_nothing_to_forget(problem)
        terms = {"forget": Term(FORGOTTEN, self.forget_weight, push), "answer": Term(RETAINED, self.retain_weight, right_answers)}
        beside = {FORGOTTEN: said_by(problem.original, bench)}
        return train_side_by_side(self.student(problem.original, bench), problem, terms, self.training, bench, self.kind, beside)
