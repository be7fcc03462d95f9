"""Lets the chosen method forget."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Augmented, Examples, ForgetRequest, Original, TeacherLogits, Unlearned
from e2urec_core.methods.base import Method
from tasks._stage import Seat, Work, stage


@stage("unlearn", writes=Unlearned)
def unlearn_users(
    work: Work,
    method: Method,
    original: Original,
    examples: Examples,
    request: ForgetRequest,
    augmented: Augmented | None,
    teachers: TeacherLogits | None,
    seat: Seat,
) -> int:
    """Make a recommender that no longer knows the forgotten rows, and merge its adapter."""
    inputs = work.open(original), work.open(examples), work.open(request)
    made = work.open(augmented) if augmented else None, work.open(teachers) if teachers else None
    return stages.unlearn(method, *inputs, *made, work.bench(seat), work.place)
