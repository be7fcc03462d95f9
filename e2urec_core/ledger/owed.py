"""Deletions that a restored back-up has undone, and the requests by which they are carried out again.

A back-up knows people who were forgotten after it was taken. Whoever restores it notes, in one event, whom champions had forgotten and the
restored one may know again, and which new requests stand for them. Until those are carried out, no release counts as having forgotten them.
"""

from __future__ import annotations

import json
from collections.abc import Set

from pydantic import AwareDatetime, Field
from sqlalchemy import Connection, select

from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.records import DIGEST
from e2urec_core.ledger.request_records import CLOSED
from e2urec_core.ledger.schema import events, requests
from e2urec_core.settings import Settings

EVENT = "workspace restored"
# No stored data is about them any more.
_GONE = ("purged", "certified", "no_data")


class Restored(Settings):
    """What was noted when a back-up was restored; it names nobody."""

    backup: str = Field(pattern=DIGEST)
    """Digest of the back-up's manifest."""
    taken_at: AwareDatetime
    """When the back-up was taken, UTC."""
    owed: tuple[str, ...] = ()
    """Subjects whom champions had forgotten and whom the restored one may know again."""
    again: tuple[str, ...] = ()
    """Subjects of the requests by which they are forgotten again."""
    answers: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """For each of those requests the closed ones that, by their time and scope, may be the one that it repeats."""
    lost: tuple[str, ...] = ()
    """Bundles of releases that the history tells of and the back-up does not hold."""


class Owed:
    """What one ledger says of deletions that were undone."""

    def __init__(self, ledger: Ledger) -> None:
        """Read `ledger`."""
        self._ledger = ledger

    def subjects(self) -> set[str]:
        """Subjects whose absence from data says nothing, because a restore may have brought their rows back under other requests."""
        with self._ledger.reading() as connection:
            return {subject for each in _restored(connection) for subject in each.owed}

    def waiting(self) -> list[str]:
        """Names of the requests that stand for undone deletions and are not closed, in the order of arrival."""
        with self._ledger.reading() as connection:
            again = asked_again(connection)
            rows = connection.execute(select(requests.c.id, requests.c.subject, requests.c.state).order_by(requests.c.number))
            return [row.id for row in rows if row.subject in again and row.state not in CLOSED]


def settled(connection: Connection, gone: Set[str]) -> set[str]:
    """Undone deletions that a release has carried out again.

    Args:
        connection: A transaction of the ledger.
        gone: Subjects whom the release has forgotten.

    Returns:
        Subjects of the undone deletions of every restore all of whose new requests are among `gone`, or have no data left.
    """
    told = _restored(connection)
    if not told:
        return set()
    closed = {*connection.execute(select(requests.c.subject).where(requests.c.state.in_(_GONE))).scalars()}
    return {subject for each in told if {*each.again} <= gone | closed for subject in each.owed}


def asked_again(connection: Connection) -> set[str]:
    """Subjects of the requests that stand for undone deletions, as one transaction sees them."""
    return {subject for each in _restored(connection) for subject in each.again}


def _restored(connection: Connection) -> list[Restored]:
    rows = connection.execute(select(events.c.facts).where(events.c.event == EVENT).order_by(events.c.seq))
    return [Restored.model_validate(json.loads(facts)) for facts in rows.scalars()]
