"""Train the original further on retained rows alone, and hope that the others fade.

Source: Plain fine-tuning, the baseline of most papers on unlearning; among E2URec's ablations (Wang et al., arXiv 2403.03536) it
is the one without the forgetting loss, less the remembering teacher.
Differs: a pass draws as many retained rows as there are forgotten ones, so that it costs and draws what the other methods do; set
`rows` to `all` for passes over all of them. `num_copies` above 1 averages the weights of several such trainings (model soups, Wortsman
et al., arXiv 2203.05482): what a night of polluted users tries.
Cost: one forward and backward a step over retained rows, for every copy; the original is never run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

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
    num_copies: int = Field(1, ge=1, le=32)
    """Copies of the original that are trained, each with an order of rows of its own; the mean of their weights is given back."""
    training: Training = Training(num_epochs=4, batch_size=16, learning_rate=5e-5, schedule="constant", warmup_share=0.0)
    """Schedule, that of the reference's other baselines; a pass has as many steps as one over the forgotten rows, or over all retained."""

    @model_validator(mode="after")
    def _averages_whole_networks(self) -> RetainOnly:
        if self.num_copies > 1 and self.trains == "adapter":
            raise ValueError(f"{self.num_copies} copies are averaged weight by weight, and the mean of adapters' factors is not their mean")
        return self

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.averaging import average_of_copies

        refuse_nothing_to_forget(problem)
        return average_of_copies(self.num_copies, lambda own: self._copy(problem, own), bench)

    def _copy(self, problem: Problem, bench: Bench) -> Outcome:
        """The original, trained further on retained rows."""
        from e2urec_core.side_by_side import RETAINED, Term, right_answers, train_side_by_side
        from e2urec_core.training import fit_answers

        student = self.student(problem.original, bench)
        if self.rows == "all":
            return Outcome(student, fit_answers(student, problem.retained, problem.validation, self.training, bench, purpose=self.kind))
        terms = {"answer": Term(RETAINED, 1.0, right_answers)}
        return train_side_by_side(student, problem, terms, self.training, bench, self.kind)
