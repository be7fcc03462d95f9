"""Asks a server by HTTP for its version, and looks into SQLite files, so that neither is changed and no password is shown."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from flows.health.finding import GIVE_UP_S

# A version is shorter.
_MOST_BYTES = 4096
# Offsets of the two bytes in a SQLite file's head that say whether it keeps a write-ahead log, and what they are then.
_LOG_BYTES, _LOG = slice(18, 20), b"\x02\x02"
SQLITE = "sqlite:///"
# Variables that hold secrets, and those that hold addresses with passwords.
SECRETS = (
    "E2UREC_PSEUDONYM_KEY",
    "E2UREC_SUPPRESSION_KEY",
    "E2UREC_RECEIPT_KEY",
    "E2UREC_RECEIPT_NEXT_KEY",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
)
ADDRESSES = ("E2UREC_LEDGER", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")


@dataclass(frozen=True)
class Told:
    """What a server has answered.

    Args:
        status: HTTP's status.
        version: What it says its version is; empty where it does not.
        seconds: How long it took.
        ahead_s: Seconds by which its clock is ahead of ours, to about one second; None where it does not tell.
    """

    status: int
    version: str
    seconds: float
    ahead_s: float | None


class _Stay(HTTPRedirectHandler):
    # A password goes to no other server.
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def shown(address: str) -> str:
    """The address without names and passwords, and without what follows a `?` or `#`, where they may stand, too.

    >>> shown("postgresql://night:hush/hush@db:5432/ledger?password=hush")
    'postgresql://***@db:5432/ledger'
    """
    return re.split(r"[?#]", re.sub(r"//.*@", "//***@", address))[0]


def without_secrets(said: str) -> str:
    """The sentence with every secret of the environment replaced by `***`, should another program have quoted one."""
    values = [os.environ.get(name, "") for name in SECRETS]
    for address in (os.environ.get(name, "") for name in ADDRESSES):
        if found := re.search(r"//[^:/]*:(.*)@", address):
            values += [found[1], unquote(found[1])]
    for value in sorted(filter(None, values), key=len, reverse=True):
        said = said.replace(value, "***")
    return said


def ask_version(address: str, path: str, authorization: str = "") -> Told:
    """Ask a server for its version.

    Args:
        address: Of the server, with or without a name and password.
        path: Below the address, where it tells its version as a text or JSON text.
        authorization: Value of the header of this name.

    Raises:
        OSError: Nobody answers.
        ValueError: It is no address.
        HTTPException: What is answered is no HTTP.
    """
    parts = urlsplit(address)
    name_and_password, _, host = parts.netloc.rpartition("@")
    headers = {"Authorization": authorization or basic(unquote(name_and_password))} if authorization or name_and_password else {}
    request = Request(f"{parts.scheme}://{host}{parts.path.rstrip('/')}{path}", headers=headers)
    began, began_at = time.monotonic(), time.time()
    try:
        with build_opener(_Stay).open(request, timeout=GIVE_UP_S) as answer:
            status, date, text = answer.status, answer.headers["Date"], answer.read(_MOST_BYTES).decode(errors="replace")
    except HTTPError as refused:
        with refused:
            status, date, text = refused.code, refused.headers["Date"], ""
    seconds = time.monotonic() - began
    version = re.fullmatch(r'"?(\d+(?:\.\w+)+)"?', text.strip())
    # The header has whole seconds, cut off.
    ahead = _seconds(date) + 0.5 - began_at - seconds / 2 if date else None
    return Told(status, version[1] if version else "", seconds, ahead)


def basic(name_and_password: str) -> str:
    """The header for a name and a password with a colon between them."""
    return f"Basic {b64encode(name_and_password.encode()).decode()}"


@contextmanager
def looking_into(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a SQLite file with no write-ahead log beside it, through which nothing is written, nor a file made."""
    with path.open("rb") as file:
        logged = file.read(20)[_LOG_BYTES] == _LOG
    # Else SQLite would begin a log.
    address = f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if logged else "")
    with closing(sqlite3.connect(address, uri=True, timeout=GIVE_UP_S)) as connection:
        yield connection


def _seconds(date: str) -> float:
    moment = parsedate_to_datetime(date)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
