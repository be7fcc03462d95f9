"""Give the original back: what every other method must be better than.

A distance to Retrain says nothing by itself. This row says how far off the recommender in production is that has forgotten nobody.

Source: The measures' own zero; E2URec (Wang et al., arXiv 2403.03536) reports no such row.
Differs: in nothing.
Cost: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from e2urec_core.methods.base import Method, Outcome, Problem, unchanged

if TYPE_CHECKING:
    from e2urec_core.engine import Bench


class DoNothing(Method):
    """The original as it is."""

    title: ClassVar[str] = "Do nothing"
    trains_nothing: ClassVar[bool] = True

    kind: Literal["do_nothing"] = "do_nothing"
    """Name of the method."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        return unchanged(problem, bench)
