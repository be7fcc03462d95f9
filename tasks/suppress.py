"""Notes whom the gate must not let in again: whoever was forgotten, up to the time that they asked for."""

from __future__ import annotations

from collections.abc import Sequence

from tasks._desk import Desk
from tasks.claims import Asked


def suppress(desk: Desk, asked: Sequence[Asked]) -> None:
    """Put everybody who is asked for on the suppression list; whoever is on it stays, and the later time counts."""
    from e2urec_core.ledger.suppressions import Suppressions, open_suppressions

    suppressions: Suppressions = open_suppressions(desk.workspace, desk.ledger)
    suppressions.add(
        users={each.user_id: each.record.covers_until for each in asked if not each.items},
        pairs={(each.user_id, item): each.record.covers_until for each in asked for item in each.items},
    )
