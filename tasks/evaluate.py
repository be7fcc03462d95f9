"""Measures the unlearned recommender against Original and Retrain."""

from __future__ import annotations

from e2urec_core import stages
from e2urec_core.artifacts import Examples, ForgetRequest, Original, Retrained, Scores, Unlearned
from tasks._stage import Seat, Work, stage


@stage("evaluate", writes=Scores)
def evaluate(
    work: Work,
    method: str,
    unlearned: Unlearned,
    original: Original,
    retrained: Retrained,
    further: list[Retrained],
    examples: Examples,
    request: ForgetRequest,
    seat: Seat,
) -> int:
    """Score every model on the test, forgotten and never-seen rows, and measure utility and distance to Retrain."""
    models = [("original", original), ("retrain", retrained), (method, unlearned)]
    models += [(f"retrain_{number}", other) for number, other in enumerate(further, 1)]
    opened = [(name, work.open(handle)) for name, handle in models]
    rows = stages.evaluate(opened, method, work.open(examples), work.open(request), work.bench(seat), work.place)
    for name, row in stages.facts(work.place)["rows"].items():
        work.metrics.final({f"{name}.{measure}": value for measure, value in row.items() if value is not None})
    return rows
