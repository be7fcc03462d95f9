"""Scores the rows that unlearning may draw with both teachers, once."""

from __future__ import annotations

from pathlib import Path

from e2urec_core.artifacts import Augmented, ForgetRequest, Original, OriginalLogits, Retold, TeacherLogits, Tokens
from e2urec_core.errors import DamagedArtifact
from e2urec_core.settings import CacheRule, Seat
from tasks._stage import Work, stage

# Outputs of earlier requests that are looked through for row groups to take.
EARLIER = 4


@stage("cache-original", writes=OriginalLogits)
def cache_original_logits(
    work: Work, original: Original, tokens: Tokens, request: ForgetRequest, rule: CacheRule, seat: Seat, retold: Retold | None = None
) -> int:
    """Keep the original's outputs on retained rows; what an earlier request against the same original has kept is taken over."""
    folders = work.folders(original=original, tokens=tokens, request=request, retold=retold)
    return work.perform(seat, "cache_original", **folders, rule=rule, earlier=_earlier(work, original))


@stage("cache-teachers", writes=TeacherLogits)
def cache_teacher_logits(
    work: Work, original: Original, augmented: Augmented, tokens: Tokens, request: ForgetRequest, rule: CacheRule, seat: Seat
) -> int:
    """Keep both teachers' outputs on the rows to forget."""
    folders = work.folders(original=original, augmented=augmented, tokens=tokens, request=request)
    return work.perform(seat, "cache_teachers", **folders, rule=rule)


def _earlier(work: Work, original: Original) -> list[Path]:
    found = []
    for handle in work.room.store.made_from(OriginalLogits, original)[:EARLIER]:
        try:
            found.append(work.open(handle))
        except DamagedArtifact:
            continue
    return found
