"""Counts what was found."""

from __future__ import annotations

import numpy

from e2urec_core.pollution.proposal import Found
from e2urec_core.pollution.rule import FindRule, FoldRule
from e2urec_core.report.pollution.schema import PollutionDocument, ScoreBar

NUM_BARS = 40


def assemble(found: Found, num_set_aside: int, folds: FoldRule, rule: FindRule) -> PollutionDocument:
    """The document of what was found.

    Args:
        found: What is proposed, and what speaks against everybody.
        num_set_aside: Users who trained no network in the last round.
        folds: How rows were scored.
        rule: Who is proposed.
    """
    told, users = found.evidence, found.users
    edges = numpy.linspace(0, 1, NUM_BARS + 1)
    everybody, proposed = (numpy.histogram(scores, edges)[0].tolist() for scores in (told.score, told.score[users]))
    bars = zip(edges[:-1].tolist(), edges[1:].tolist(), everybody, proposed, strict=True)
    return PollutionDocument(
        num_users=len(told.users),
        num_rows=len(found.quality),
        num_set_aside=num_set_aside,
        num_doubted=int((told.q < rule.level).sum()),
        num_proposed_users=len(users),
        num_proposed_rows=int(told.rows[users].sum()),
        expected_precision=float(1 - told.q[users].mean()) if len(users) else None,
        num_proposed_interactions=len(found.interactions),
        expected_interaction_precision=float(1 - found.false_alarms[-1]) if len(found.interactions) else None,
        bars=tuple(ScoreBar(low=low, high=high, users=count, proposed=those) for low, high, count, those in bars),
        settings={"folds": folds.canonical(), "finder": rule.canonical()},
    )
