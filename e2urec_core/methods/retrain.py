"""Train a new network on the rows that stay: the yardstick of every other method, and what a nightly run falls back to.

Source: E2URec (Wang et al., arXiv 2403.03536) and most papers on unlearning: exact by definition.
Differs: the Retrain of the report draws the original's batches less the forgotten rows, to be comparable row by row; this one draws the
retained rows as if the others had never been there, so that it lies as far from the report's as another order of rows does.
Cost: all passes over all retained rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from e2urec_core.methods.base import Method, Outcome, Problem, refuse_nothing_to_forget

if TYPE_CHECKING:
    from e2urec_core.engine import Bench


class Retrain(Method):
    """From the beginning, with the original's schedule."""

    title: ClassVar[str] = "Retrain as a method"

    kind: Literal["retrain"] = "retrain"
    """Name of the method."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.training import fit_answers

        refuse_nothing_to_forget(problem)
        assert problem.fresh is not None, "a way to build an untrained network is needed"
        student = problem.fresh(bench.seed)
        return Outcome(student, fit_answers(student, problem.retained, problem.validation, problem.training, bench, purpose=self.kind))
