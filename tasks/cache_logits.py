"""Scores the rows that unlearning may draw with both teachers, once."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Augmented, Examples, ForgetRequest, Original, TeacherLogits
from e2urec_core.settings import CacheRule
from tasks._stage import Seat, Work, stage


@stage("cache-teachers", writes=TeacherLogits)
def cache_teacher_logits(
    work: Work, original: Original, augmented: Augmented, examples: Examples, request: ForgetRequest, rule: CacheRule, seat: Seat
) -> int:
    """Keep both teachers' outputs at the answer position in Parquet."""
    folders = work.open(original), work.open(augmented), work.open(examples), work.open(request)
    return stages.cache_teachers(*folders, rule, work.bench(seat), work.place)
