"""Lets the chosen method forget."""

from __future__ import annotations

from e2urec_core.artifacts import (
    Augmented,
    ForgetRequest,
    Original,
    OriginalLogits,
    Retold,
    Shards,
    TeacherLogits,
    Tokens,
    Unlearned,
)
from e2urec_core.backbones.base import Backbone
from e2urec_core.methods.base import Method
from e2urec_core.settings import CacheRule, Seat, Training
from tasks._stage import Work, stage


@stage("unlearn", writes=Unlearned)
def unlearn_users(
    work: Work,
    method: Method,
    original: Original,
    tokens: Tokens,
    request: ForgetRequest,
    augmented: Augmented | None,
    remembering: OriginalLogits | None,
    teachers: TeacherLogits | None,
    shards: Shards | None,
    rule: CacheRule,
    backbone: Backbone,
    training: Training,
    seat: Seat,
    retold: Retold | None = None,
) -> int:
    """Make a recommender that no longer knows the forgotten rows, and merge its adapter."""
    before = work.folders(original=original, tokens=tokens, request=request, retold=retold)
    made = work.folders(augmented=augmented, remembering=remembering, teachers=teachers, shards=shards)
    return work.perform(seat, "unlearn", method=method, **before, **made, rule=rule, backbone=backbone, training=training)
