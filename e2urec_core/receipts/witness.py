"""The ledger as witness of the chain: an event `receipt written` for its end."""

from __future__ import annotations

import json

from sqlalchemy import Connection, select

from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.schema import events
from e2urec_core.receipts.folder import EMPTY, Head

EVENT = "receipt written"


class LedgerWitness:
    """Keeps the end of the chain of receipts in the ledger's history."""

    def __init__(self, ledger: Ledger) -> None:
        """Keep it in `ledger`."""
        self._ledger = ledger

    def head(self) -> Head:
        """The newest link that the history tells of."""
        with self._ledger.reading() as connection:
            return _head(connection)

    def written(self, document_id: str, head: Head) -> None:
        """Add the event, unless it or a later one is there."""
        with self._ledger.writing() as connection:
            if head.number > _head(connection).number:
                self._ledger.append(connection, EVENT, document_id, head.canonical())


def _head(connection: Connection) -> Head:
    newest = select(events.c.facts).where(events.c.event == EVENT).order_by(events.c.seq.desc()).limit(1)
    facts = connection.execute(newest).scalar_one_or_none()
    return EMPTY if facts is None else Head.model_validate(json.loads(facts))
