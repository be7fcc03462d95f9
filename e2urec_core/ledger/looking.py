"""Looks at a ledger as it stands: nothing is made, migrated, locked, scrubbed or given other rights, as opening it would."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, func, inspect, select, table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import column

from e2urec_core.errors import DamagedLedger, StorageFailed
from e2urec_core.ledger.database import server_engine
from e2urec_core.ledger.history import iso
from e2urec_core.ledger.request_records import CLOSED
from e2urec_core.ledger.schema import NEWEST, VERSION_TABLE, events, fingerprints, requests


@dataclass(frozen=True)
class Glance:
    """What a ledger shows from outside.

    Args:
        database: Name and version of the program that keeps it.
        seconds: How long it took to answer.
        schema: Number of its schema; empty where a change that was not finished hides it, see `unfinished`.
        unfinished: Whether a process was killed within a change, which the next one that opens the ledger undoes.
        ahead_s: Seconds by which the clock of the database's server is ahead; None for a file.
        newest_at: Time of the newest event, which is None in an empty ledger and in one of another schema, as all that follows.
        fingerprints: Of the keys, by what is made with them.
        num_in: How many requests are in each state.
        num_overdue: How many requests are not closed and were due before now; those under a legal hold are not counted.
    """

    database: str
    seconds: float
    schema: str = ""
    unfinished: bool = False
    ahead_s: float | None = None
    newest_at: datetime | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    num_in: Mapping[str, int] = field(default_factory=dict)
    num_overdue: int = 0


def look(place: Path | str, now: datetime, timeout_s: float) -> Glance:
    """Look at the ledger at `place`, which exists.

    Args:
        place: See `open_ledger`.
        now: The time by which a request is overdue, with its zone.
        timeout_s: Seconds after which a database that does not answer, or is locked, is given up.

    Raises:
        BadSetting: The URL is not one of PostgreSQL, or its driver is not installed.
        StorageFailed: The database cannot be reached or read.
        DamagedLedger: It is no ledger, or SQLite finds its file damaged.
    """
    began = time.monotonic()
    engine = _file_engine(place, timeout_s) if isinstance(place, Path) else server_engine(place, connect_timeout=round(timeout_s))[1]
    try:
        with engine.connect() as connection:
            return _glance(connection, now, timeout_s, began)
    except DBAPIError as error:
        if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
            return Glance(database="SQLite", seconds=time.monotonic() - began, unfinished=True)
        said = " ".join(str(error.orig).split())
        raise StorageFailed(f"the ledger cannot be read: {said}", hint="start its server, mend its rights, or name the right one") from None


def _file_engine(place: Path, timeout_s: float) -> Engine:
    url = URL.create("sqlite", database=f"file:{quote(str(place))}", query={"mode": "ro", "uri": "true"})
    return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": timeout_s})


def _glance(connection: Connection, now: datetime, timeout_s: float, began: float) -> Glance:
    ahead = None
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        connection.execute(text(f"SET LOCAL statement_timeout = {round(timeout_s * 1000)}"))
        asked = time.time()
        server_now = connection.execute(select(func.clock_timestamp())).scalar_one().timestamp()
        ahead = server_now - (asked + time.time()) / 2
        database = f"PostgreSQL {connection.execute(text('SHOW server_version')).scalar_one().split()[0]}"
    else:
        found = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        if found != "ok":
            raise DamagedLedger("the ledger is damaged", hint="put its newest backup in its place")
        database = f"SQLite {connection.execute(text('SELECT sqlite_version()')).scalar_one()}"
    schema = ""
    if inspect(connection).has_table(VERSION_TABLE):
        schema = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar() or ""
    if not schema:
        raise DamagedLedger("the database holds no ledger", hint="name the ledger's own file or database, or put its backup in its place")
    glance = Glance(database, time.monotonic() - began, schema, ahead_s=ahead)
    if schema != NEWEST:
        return glance
    newest = connection.execute(select(events.c.at).order_by(events.c.seq.desc()).limit(1)).scalar()
    states = connection.execute(select(requests.c.state, func.count()).group_by(requests.c.state))
    late = requests.c.state.not_in([*CLOSED, "legal_hold"]) & (requests.c.due_at < iso(now))
    return Glance(
        database,
        time.monotonic() - began,
        schema,
        ahead_s=ahead,
        newest_at=datetime.fromisoformat(newest) if newest else None,
        fingerprints={row.name: row.digest for row in connection.execute(select(fingerprints))},
        num_in={row[0]: row[1] for row in states},
        num_overdue=connection.execute(select(func.count()).select_from(requests).where(late)).scalar_one(),
    )
