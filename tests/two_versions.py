"""Two made-up versions and their answers, for tests of the comparison of versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from e2urec_core.evaluation import Scored
from e2urec_core.report.difference import DifferenceDocument, DifferenceRule, Gate, PairedRows, VersionFacts, assemble

RULE = DifferenceRule(num_draws=50, fewest_users=2)
TITLES = [f"Film {place}" for place in range(40)]


def pseudonym(user: int) -> str:
    """What a user is called: 20 hex digits that hold no number of the user."""
    return f"{user % 997 + 1:020x}"


def rows(
    labels: Sequence[int], a: Sequence[float], b: Sequence[float], users: Sequence[int], items: Sequence[int] | None = None, **more: Any
) -> PairedRows:
    """Rows with the answers of both versions; without items, every row is of an item of its own."""
    scored = Scored(numpy.arange(len(labels)), numpy.array(labels, dtype=int), {"a": numpy.array(a, float), "b": numpy.array(b, float)})
    places = numpy.array(range(len(labels)) if items is None else items, dtype=int)
    return PairedRows(scored, numpy.array(users, dtype=numpy.int64), places, [pseudonym(user) for user in users], **more)


def many_rows(seed: int = 0, num_rows: int = 300, noise: float = 0.4, num_users: int = 30) -> PairedRows:
    """Rows of users with 63-bit numbers; version B answers like version A with some noise."""
    random = numpy.random.default_rng(seed)
    labels = random.integers(0, 2, num_rows)
    margin = 1.5 * (labels - 0.5) + random.normal(0, 1, num_rows)
    a, b = (1 / (1 + numpy.exp(-margins)) for margins in (margin, margin + random.normal(0, noise, num_rows)))
    users = 2**62 + random.integers(0, num_users, num_rows) * 7_777_777_777
    return rows(labels, a, b, users, random.integers(0, len(TITLES), num_rows))


def facts(version: int, **changes: Any) -> VersionFacts:
    """The card of a version that passed two gates."""
    told: dict[str, Any] = {
        "version": version,
        "kind": "Unlearned",
        "method": "e2urec",
        "run": f"night-{version}",
        "made_at": "2026-11-20 02:14:05",
        "digest": f"{version:064x}",
        "measures": {"auc": 0.71},
        "gates": [
            Gate(name="auc_fall", value=-0.001, bound="at most 0.01", margin=0.011, passed=True),
            Gate(name="loss_attack", value=0.53, bound="0.45 to 0.55", margin=0.02, passed=True, remark="Blind: one user."),
        ],
        "num_forgotten_requests": version,
    }
    return VersionFacts(**(told | changes))


def compared(
    test: PairedRows | None = None, rule: DifferenceRule = RULE, titles: Sequence[str] = TITLES, **more: Any
) -> DifferenceDocument:
    """Version 4 against version 3 on `test`."""
    return assemble(facts(3), facts(4), many_rows() if test is None else test, titles, rule, **more)
