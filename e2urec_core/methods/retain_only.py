"""Train the original further on retained rows alone, and hope that the others fade.

Source: Plain fine-tuning, the baseline of most papers on unlearning; among E2URec's ablations (Wang et al., arXiv 2403.03536) it
is the one without the forgetting loss, less the remembering teacher.
Differs: a pass draws as many retained rows as there are forgotten ones, so that it costs and draws what the other methods do; set
`rows` to `all` for passes over all of them.
Cost: one forward and backward a step over retained rows; the original is never run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from e2urec_core.methods.base import Outcome, Problem, Trainer, refuse_nothing_to_forget
from e2urec_core.settings import Training

if TYPE_CHECKING:
    from e2urec_core.engine import Bench


class RetainOnly(Trainer):
    """More of the same, without the forgotten rows."""

    title: ClassVar[str] = "Retain only"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate",)

    kind: Literal["retain_only"] = "retain_only"
    """Name of the method."""
    rows: Literal["as_many", "all"] = "as_many"
    """Retained rows in a pass: as many as there are forgotten rows, or all."""
    training: Training = Training(num_epochs=4, batch_size=16, learning_rate=5e-5, schedule="constant", warmup_share=0.0)
    """Schedule, that of the reference's other baselines; a pass has as many steps as one over the forgotten rows, or over all retained."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.side_by_side import RETAINED, Term, right_answers, train_side_by_side
        from e2urec_core.training import fit_answers

        refuse_nothing_to_forget(problem)
        student = self.student(problem.original, bench)
        if self.rows == "all":
            return Outcome(student, fit_answers(student, problem.retained, problem.validation, self.training, bench, purpose=self.kind))
        terms = {"answer": Term(RETAINED, 1.0, right_answers)}
        return train_side_by_side(student, problem, terms, self.training, bench, self.kind)
