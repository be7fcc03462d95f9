"""Servers: MLflow, Prefect and the ledger, wherever each is kept: whether it answers, with which version, and how fast."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from e2urec_core.errors import UserError
from e2urec_core.ledger import VARIABLE, ledger_place
from flows.health.asking import SQLITE, Told, looking_into, shown
from flows.health.finding import GIVE_UP_S, Check, Finding, counted, fault, ok, warning
from flows.health.subject import MLFLOW, PREFECT, Subject

TOPIC = "servers"
# A check waits a little longer than what it asks, which can say more.
WITHIN_S = GIVE_UP_S + 1


def mlflow(subject: Subject) -> Finding:
    """The tracking server that `MLFLOW_TRACKING_URI` names, or the workspace's own database."""
    address = os.environ.get(MLFLOW) or f"{SQLITE}{subject.workspace / 'mlflow.db'}"
    if address.startswith(SQLITE):
        return _file(Path(address.removeprefix(SQLITE).split("?")[0]))
    if not address.startswith(("http://", "https://")):
        return _port(address)
    return _server(address, subject.mlflow, "mlflow")


def prefect(subject: Subject) -> Finding:
    """The server that `PREFECT_API_URL` names, or the database of those that commands start for themselves."""
    address = os.environ.get(PREFECT)
    return _server(address, subject.prefect, "prefect") if address else _file(subject.workspace / "prefect" / "prefect.db")


def ledger(subject: Subject) -> Finding:
    """The ledger: whether it can be read, and whether its schema is the one known here."""
    from e2urec_core.ledger.schema import NEWEST

    place = ledger_place(subject.workspace)
    named = f"`{VARIABLE}` ({shown(place)})" if isinstance(place, str) else place.name
    try:
        found = subject.ledger()
    except UserError as error:
        return fault(f"{named}: {error.fact}", error.hint)
    except TimeoutError:
        return fault(f"{named} does not answer within {GIVE_UP_S:.0f} s", "start its server, or end the process that holds it")
    if found is None:
        from e2urec_core.ledger.suppressions import FILE

        if (subject.workspace / FILE).exists():
            return fault("the ledger is gone, and the key of its suppression list is there", "put the ledger's newest backup in its place")
        return ok(f"{named} is not there yet; the first command that needs it makes it")
    said = f"{named} on {found.database} answers in {found.seconds:.2f} s"
    if found.unfinished:
        return warning(
            f"{said}; a process was killed within a change", "the next command that opens it undoes the change; copy no file meanwhile"
        )
    if found.schema > NEWEST:
        return fault(f"{said}; its schema is {found.schema}, and {NEWEST} is the newest known here", "update the program")
    if found.schema < NEWEST:
        return warning(f"{said}; its schema is {found.schema}, and {NEWEST} is the newest", "back it up; the next command renews it")
    if isinstance(place, Path) and (mode := place.stat().st_mode & 0o777) & 0o077:
        return warning(f"{said}; others may read it: its mode is {mode:o}", "make it 600, and find out who may have read it")
    if isinstance(place, Path) and not os.access(place, os.W_OK):
        return fault(f"{said}; it may not be written", "give it to the user that nights run as")
    return ok(f"{said}; schema {found.schema}, {counted(sum(found.num_in.values()), 'request')}")


CHECKS = (
    Check(TOPIC, "MLflow", mlflow, WITHIN_S),
    Check(TOPIC, "Prefect", prefect, WITHIN_S),
    Check(TOPIC, "ledger", ledger, WITHIN_S),
)


def _server(address: str, ask: Callable[[], Told | None], package: str) -> Finding:
    place, began = shown(address), time.monotonic()
    try:
        told = ask()
    except OSError as error:
        reason = getattr(error, "reason", error)
        said = "timed out" if isinstance(reason, TimeoutError) else getattr(reason, "strerror", None) or type(reason).__name__
        return fault(f"{place} does not answer: {said}, after {time.monotonic() - began:.1f} s", "start it, or mend the address")
    except (HTTPException, ValueError) as error:
        return fault(f"{place} is no server of HTTP, or its address is none ({type(error).__name__})", "mend the address")
    assert told is not None, "an address of HTTP is asked"
    said = f"{place} answers in {told.seconds:.2f} s"
    if told.status in (401, 403):
        return fault(f"{said} that we may not ({told.status})", "mend the name, password or token in the environment")
    if told.status >= 500:
        return fault(f"{said} that it is broken ({told.status})", "look into the server's log")
    if told.status != 200:
        return warning(f"{said}, and tells no version ({told.status})", "see that the address is the server's own")
    present = metadata.version(package)
    if told.version and told.version.split(".")[:2] != present.split(".")[:2]:
        return warning(f"{said}; it is {package} {told.version}, and {present} is installed here", "give both the same version")
    return ok(f"{said}{f' as {package} {told.version}' if told.version else ', and tells no version'}")


def _file(path: Path) -> Finding:
    hint = "give it to the user that nights run as"
    try:
        if not path.exists():
            return ok(f"{path.name} is not there yet; the first run makes it")
        if not os.access(path, os.R_OK | os.W_OK):
            return fault(f"{path.name} may not be read and written", hint)
        if (log := Path(f"{path}-wal")).exists():
            # Reading through the log would write into its index.
            sizes = " and ".join(f"{each.stat().st_size / 2**20:.1f} MiB" for each in (path, log))
            return ok(f"{path.name} is in use, or was left with its log ({sizes}); it is not opened")
        began = time.monotonic()
        with looking_into(path) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
            return warning(f"{path.name}: a process was killed within a change", "the next run undoes the change; copy no file meanwhile")
        return fault(f"{path.name} cannot be read: {error}", "end the process that holds it, or put a backup in its place")
    except OSError as error:
        return fault(f"{path.name} cannot be read: {error.strerror}", hint)
    return ok(f"{path.name} answers in {time.monotonic() - began:.2f} s; schema {row[0] if row else 'unknown'}")


def _port(address: str) -> Finding:
    parts = urlsplit(address)
    host, port = parts.hostname, parts.port or {"postgresql": 5432, "mysql": 3306, "mssql": 1433}.get(parts.scheme.split("+")[0])
    if not host or not port:
        return warning(f"what {shown(address)} is cannot be told without MLflow", "name a server by http:// or a file by sqlite:///")
    try:
        with closing(socket.create_connection((host, port), timeout=GIVE_UP_S)):
            return ok(f"{shown(address)} can be reached; more is not asked")
    except OSError as error:
        return fault(f"{shown(address)} does not answer: {error.strerror or type(error).__name__}", "start it, or mend the address")
