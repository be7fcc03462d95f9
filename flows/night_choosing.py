"""Which of several candidates a night of polluted data takes: the one that recommends best to whoever stays, on validation rows.

Test rows are for the gates and for people; a candidate that was chosen by them would be reported by what it was chosen by.
"""

from __future__ import annotations

from collections.abc import Sequence

from e2urec_core.artifacts import Bundle
from e2urec_core.judging import SCORED
from e2urec_core.metrics.utility import auc
from e2urec_core.plugins import word
from e2urec_core.report.wording import UNDEFINED
from e2urec_core.scoring import read_scores
from e2urec_core.settings import ScoreRule
from flows.releasing import Judged, chapter, score_released
from flows.runs import Run
from flows.story import Prepared
from tasks._progress import say
from tasks._room import ROOM

VALIDATION = "validation"


def validation_auc(run: Run, prepared: Prepared, released: Bundle, title: str) -> float | None:
    """AUC of a release on validation rows of users who stay; None where these have one label alone.

    Args:
        run: Its prompt and its seat.
        prepared: The rows, and the request, which says who stays.
        released: Who is asked.
        title: What the stage is called.
    """
    with chapter(f"{VALIDATION}, {title}"):
        scores = score_released(run, prepared, released, ScoreRule(groups=(VALIDATION,)))
    rows = read_scores(ROOM.get().store.open(scores), [SCORED], [VALIDATION])[VALIDATION]
    return auc(rows.labels, rows.yes[SCORED])


def best(champion: float | None, passing: Sequence[tuple[Judged, float | None]]) -> Judged | None:
    """The first of those with the best validation AUC; None where nobody passed the gates.

    Args:
        champion: Validation AUC of the champion, which is said beside it.
        passing: Candidates that passed, each with its own.
    """
    if not passing:
        return None
    judged, value = max(passing, key=lambda each: each[1] or 0.0)
    told = [UNDEFINED if number is None else f"{number:.4f}" for number in (value, champion)]
    say(f"{word(judged.candidate.method) or 'training anew'} is taken: AUC on validation rows {told[0]}, of the champion {told[1]}")
    return judged
