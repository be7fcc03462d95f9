"""Give the original as it is: the pole that every table starts from, as a method.

Source: E2URec (Wang et al., arXiv 2403.03536), the row Original of its tables.
Differs: in nothing; `do-nothing` is the same under the name of what was done.
Cost: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from e2urec_core.methods.base import Method, Outcome, Problem, unchanged

if TYPE_CHECKING:
    from e2urec_core.engine import Bench


class Original(Method):
    """The recommender in production."""

    title: ClassVar[str] = "Original as a method"
    trains_nothing: ClassVar[bool] = True

    kind: Literal["original"] = "original"
    """Name of the method."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        return unchanged(problem, bench)
