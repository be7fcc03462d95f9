"""Measures the unlearned recommender against Original and Retrain."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import ForgetRequest, Original, Retold, Retrained, Scores, Tokens, Unlearned
from e2urec_core.settings import Seat
from tasks._stage import Work, stage


@stage("evaluate", writes=Scores)
def evaluate(
    work: Work,
    method: str,
    unlearned: Unlearned,
    original: Original,
    retrained: Retrained,
    further: list[Retrained],
    tokens: Tokens,
    request: ForgetRequest,
    seat: Seat,
    retold: Retold | None = None,
) -> int:
    """Score every model on the test, forgotten and never-seen rows, and measure utility and distance to Retrain."""
    models = [("original", original), ("retrain", retrained), (method, unlearned)]
    models += [(f"retrain_{number}", other) for number, other in enumerate(further, 1)]
    opened = [(name, work.open(handle)) for name, handle in models]
    folders = work.folders(tokens=tokens, request=request, retold=retold)
    rows = work.perform(seat, "evaluate", models=opened, subject=method, **folders)
    for name, row in stages.facts(work.place)["rows"].items():
        work.metrics.final({f"{name}.{measure}": value for measure, value in row.items() if value is not None})
    return rows
