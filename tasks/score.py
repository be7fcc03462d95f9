"""Scores one recommender, so that many can be compared without scoring any of them twice."""

from __future__ import annotations

from e2urec_core.artifacts import ForgetRequest, Model, Retold, Scores, Tokens
from e2urec_core.settings import ScoreRule, Seat
from tasks._stage import Work, stage


@stage("score", writes=Scores)
def score(
    work: Work, model: Model, tokens: Tokens, request: ForgetRequest, asked: ScoreRule, seat: Seat, retold: Retold | None = None
) -> int:
    """Score one recommender on the groups of rows that are asked for."""
    folders = work.folders(model=model, tokens=tokens, request=request, retold=retold)
    return work.perform(seat, "score", **folders, asked=asked)
