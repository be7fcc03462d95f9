"""The ledger: the one truth about releases, kept in SQLite or PostgreSQL; the page beside this file tells how.

Importing this package loads no database driver; opening a ledger does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2urec_core.ledger.history import Ledger

FILE, VARIABLE = "requests.db", "E2UREC_LEDGER"


def utc_now() -> datetime:
    """The time of this machine, UTC."""
    return datetime.now(UTC)


def ledger_place(workspace: Path) -> Path | str:
    """Where the ledger of `workspace` lies: the URL in `E2UREC_LEDGER`, or else the file `requests.db` of the workspace."""
    return os.environ.get(VARIABLE) or workspace / FILE


def open_ledger(place: Path | str, *, clock: Callable[[], datetime] = utc_now) -> Ledger:
    """Open the ledger at `place`, or create it; its schema is brought up to date under a lock.

    Args:
        place: A path is a SQLite file; a text is the URL of a PostgreSQL database that the ledger has to itself.
        clock: Gives the time, with its zone, that is written beside every event; nothing is ordered by it.

    Raises:
        BadSetting: The URL is not one of PostgreSQL, or its driver is not installed.
        StorageFailed: The database cannot be reached or written.
        DamagedLedger: The file is damaged, or no ledger.
        NewerLedger: A newer version of this program has written it.
    """
    from e2urec_core.ledger.database import Database
    from e2urec_core.ledger.history import Ledger

    return Ledger(Database(place), clock)
