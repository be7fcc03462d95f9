"""Tells the requests and the lock anew from the history, and holds whom an open request is about against its commitment."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row

from e2urec_core.errors import DamagedLedger
from e2urec_core.ledger.request_book import PERSONAL
from e2urec_core.ledger.request_records import CLOSED, commitment_of
from e2urec_core.ledger.schema import NIGHT, request_items, requests

_COLUMNS = frozenset(requests.c.keys()) - {*PERSONAL}


def told_requests(events: Iterable[Row[Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of `requests`, without what is personal, and of `runs_lock`, as the history says.

    Args:
        events: The history, oldest first; events about anything else are passed over.
    """
    made: dict[str, dict[str, Any]] = {}
    lock: dict[str, Any] = {"name": NIGHT, "epoch": 0, "holder": None, "taken_at": None}
    for event in events:
        if event.event == "requests taken":
            lock = {**json.loads(event.facts), "holder": event.subject, "taken_at": event.at}
        elif event.event.startswith("request "):
            facts = json.loads(event.facts)
            # One that a legal hold gives back may be `received` for the second time.
            if facts["from"] is None:
                made[event.subject] = dict.fromkeys(_COLUMNS) | {"subject": event.subject, "received_at": event.at}
            kept = {name: value for name, value in facts.items() if name in _COLUMNS}
            made[event.subject] |= kept | {"state": facts["to"], "changed_at": event.at}
    return [*made.values()], [lock]


def compare_people(connection: Connection) -> None:
    """Hold whom every request is about against its commitment, or, once it is purged or closed, against nothing.

    Raises:
        DamagedLedger: Somebody was exchanged, or is still there; names the first request.
    """
    items: dict[str, list[str]] = {}
    for item in connection.execute(request_items.select()):
        items.setdefault(item.request, []).append(item.item_id)
    for row in connection.execute(requests.select().order_by(requests.c.number)):
        whose = items.get(row.id, [])
        if row.state in (*CLOSED, "purged"):
            right = row.user_id is None and row.note is None and not whose and (row.nonce is None) == (row.state in CLOSED)
        else:
            right = None not in (row.user_id, row.nonce) and commitment_of(row.nonce, row.user_id, whose) == row.commitment
        if not right:
            raise DamagedLedger(
                f"request {row.id} of the ledger is not about whom it was about when it came in",
                hint="find out who has edited the ledger, and put its newest backup in its place",
            )
