"""Tells releases, requests and the suppression list anew from the history alone.

But for whom requests are about, tables hold nothing that it does not seal.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Table, select

from e2urec_core.artifacts import canonical_json
from e2urec_core.errors import DamagedLedger
from e2urec_core.ledger.request_book import PERSONAL
from e2urec_core.ledger.request_replay import compare_people, told_requests
from e2urec_core.ledger.schema import MODEL, events, forgotten, line, promotions, releases, requests, runs_lock, suppressions
from e2urec_core.ledger.suppressions import told_suppressions

Rows = dict[tuple[Any, ...], dict[str, Any]]
TABLES = (releases, forgotten, promotions, line, requests, runs_lock, suppressions)


def compare_with_history(connection: Connection) -> None:
    """Compare every row about releases, requests and suppressions with what the history, verified before, says of it.

    Raises:
        DamagedLedger: A row was edited, added or removed; names the first.
    """
    told = _told(connection)
    for table in TABLES:
        columns = [column for column in table.c if table is not requests or column.name not in PERSONAL]
        held = _keyed(table, [dict(row._mapping) for row in connection.execute(select(*columns))])
        for key in sorted(held.keys() | told[table.name].keys(), key=str):
            if held.get(key) != told[table.name].get(key):
                raise DamagedLedger(
                    f"row {'/'.join(map(str, key))} of the ledger's table `{table.name}` is not what its history says",
                    hint="find out who has edited the ledger, and put its newest backup in its place",
                )
    compare_people(connection)


def _told(connection: Connection) -> dict[str, Rows]:
    made: dict[str, dict[str, Any]] = {}
    gone, changes = [], []
    now: dict[str, Any] = {"name": MODEL, "epoch": 0, "champion": None, "previous": None}
    history = connection.execute(select(events).order_by(events.c.seq)).all()
    for event in history:
        facts = json.loads(event.facts)
        if event.event == "release added":
            gone += [{"release": event.subject, "subject": who, "request": request} for who, request in facts.pop("forgotten").items()]
            made[event.subject] = facts | {
                "verdict": canonical_json(facts["verdict"]),
                "number": len(made) + 1,
                "registry_version": None,
                "made_at": event.at,
                "registered_at": None,
            }
        elif event.event == "release registered":
            made[event.subject] |= {"registry_version": facts["version"], "registered_at": event.at}
        elif event.event == "champion changed":
            changes.append(facts | {"release": event.subject, "at": event.at})
            now = {"name": MODEL, "epoch": facts["epoch"], "champion": event.subject, "previous": facts["from_release"]}
    rows = ([*made.values()], gone, changes, [now], *told_requests(history), told_suppressions(history))
    return {table.name: _keyed(table, each) for table, each in zip(TABLES, rows, strict=True)}


def _keyed(table: Table, rows: list[dict[str, Any]]) -> Rows:
    return {tuple(row[column.name] for column in table.primary_key): row for row in rows}
