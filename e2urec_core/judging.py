"""The stages that score recommenders and measure them; see `stages.py`, where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.notes import kept, note

if TYPE_CHECKING:
    from e2urec_core.engine import Bench
    from e2urec_core.settings import ScoreRule

SCORED = "model"
"""What `score` calls the recommender that it scores."""


def score(model: Path, tokens: Path, request: Path, asked: ScoreRule, bench: Bench, place: Path, *, retold: Path | None = None) -> int:
    """Score one recommender on the groups of rows that are asked for."""
    from e2urec_core.data.tokens import prompts_of_part
    from e2urec_core.scoring import write_scores

    rows = {str(group): prompts_of_part(tokens, request, group, retold) for group in asked.groups}
    return write_scores(place, [(SCORED, model)], rows, bench, kept(bench))


def evaluate(
    models: Sequence[tuple[str, Path]], subject: str, tokens: Path, request: Path, bench: Bench, place: Path, *, retold: Path | None = None
) -> int:
    """Score every model on every group of rows and measure them against the paired Retrain.

    Args:
        models: Name and folder of each: `original`, `retrain`, the method's kind, then further Retrains.
        subject: The method's kind.
        tokens: Folder of the tokens.
        request: Folder of the forget request.
        bench: Seed, device, watcher.
        place: Where `scores.parquet` and `facts.json` go.
        retold: Folder of the rows that the request tells anew, if any.
    """
    from e2urec_core.data.tokens import prompts_of_part
    from e2urec_core.evaluation import GROUPS, ORIGINAL, RETRAIN, histogram, measure, measure_apart, seed_floor
    from e2urec_core.scoring import read_scores, write_scores

    rows = {group: prompts_of_part(tokens, request, group, retold) for group in GROUPS}
    scored = write_scores(place, models, rows, bench, kept(bench))
    if not bench.workers.is_main:
        return scored
    groups = read_scores(place, [name for name, _ in models])
    compared = [ORIGINAL, RETRAIN, subject]
    further = [name for name, _ in models if name not in compared]
    floor = seed_floor(groups, further)
    note(
        place,
        rows={name: measure(groups, name) for name in compared},
        forgotten_test=[{"method": name, **measure_apart(groups, name)} for name in compared] if len(rows["forgotten_test"]) else [],
        seed_floor=floor.canonical() if floor else None,
        probabilities=histogram(groups, compared).canonical(),
    )
    return scored
