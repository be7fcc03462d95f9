"""Reads from the ledger how far the champion has drifted since it was last trained, and notes there what shadow Retrains have shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from e2urec_core.deletion.drift import Drift, drift_of
from e2urec_core.deletion.rule import NightRule
from tasks._desk import Desk
from tasks._snapshot import Snapshot

if TYPE_CHECKING:
    from e2urec_core.ledger.records import ReleaseRecord

EVENT = "shadow measured"


def drift(desk: Desk, champion: ReleaseRecord, snapshot: Snapshot) -> Drift:
    """What has happened since the champion was last trained.

    Args:
        desk: Where releases are made.
        champion: The release in production.
        snapshot: The data that it stands on.
    """
    releases = desk.releases
    line = [champion]
    while (base := line[-1].base) is not None:
        line.append(releases.release(base))
    forgotten = [len(releases.forgotten_by(release.bundle)) for release in line]
    return drift_of(line, forgotten, snapshot.num_users(desk.store), _measured(desk, {release.bundle for release in line}))


def is_due(desk: Desk, champion: ReleaseRecord, snapshot: Snapshot, rule: NightRule) -> bool:
    """Whether the recommender is to be trained anew, whatever is asked for."""
    return rule.always_train or bool(drift(desk, champion, snapshot).spent(rule.drift))


def note_shadow(desk: Desk, champion: ReleaseRecord, distance: float) -> None:
    """Note what shadow Retrains have shown of a release."""
    with desk.ledger.writing() as connection:
        desk.ledger.append(connection, EVENT, champion.bundle, {"distance": distance, "run": desk.run})


def _measured(desk: Desk, line: set[str]) -> float | None:
    shadows = [event for event in desk.ledger.events() if event.event == EVENT and event.subject in line]
    return float(json.loads(shadows[-1].facts)["distance"]) if shadows else None
