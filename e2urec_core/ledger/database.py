"""The database under the ledger: its file, its transactions, and what is said when it refuses.

SQLite keeps a rollback journal, not a write-ahead log: a log would hold deleted rows in a file beside the database until somebody
empties it. `synchronous=EXTRA` makes a commit wait for the folder too, without which a power loss could bring the journal back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select, table, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import column

from e2urec_core.disk import sync
from e2urec_core.errors import BadSetting, DamagedLedger, StorageFailed
from e2urec_core.failpoints import failpoint
from e2urec_core.ledger.schema import NEWEST, VERSION_TABLE

WAIT_SECONDS = 30
# Bytes of SQLite's smallest page.
_SMALLEST = 512
_PRAGMAS = (
    f"busy_timeout={WAIT_SECONDS * 1000}",
    "journal_mode=DELETE",
    "synchronous=EXTRA",
    "secure_delete=ON",
    "foreign_keys=ON",
    # What is scrubbed passes through no other file.
    "temp_store=MEMORY",
)
# A client that vanishes or sleeps inside a transaction is put out before those who wait for it give up.
_SETTINGS = (
    f"lock_timeout = '{WAIT_SECONDS}s'",
    f"idle_in_transaction_session_timeout = '{WAIT_SECONDS * 2 // 3}s'",
    "synchronous_commit = on",
)


class Database:
    """Gives transactions on one database; a connection lives as long as its transaction, so processes and threads may share this."""

    def __init__(self, place: Path | str) -> None:
        """Open the database and bring its schema up to date; see `open_ledger` for `place` and what is raised."""
        self._shown, self._engine = _engine(place)
        self._lock = FileLock(f"{place}.lock", timeout=WAIT_SECONDS, mode=0o600) if isinstance(place, Path) else None
        with self._told():
            if isinstance(place, Path) and self._lock:
                place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with self._lock:
                    if not place.exists():
                        _create(place)
                    self._check(place)
                    self._migrate()
                    self._scrub()
            else:
                self._migrate()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database throughout and is not to write, nor to be open around one that does.

        Raises:
            StorageFailed: The database cannot be read, or was locked for thirty seconds.
            DamagedLedger: What is read is no ledger's.
        """
        isolated = {"isolation_level": "REPEATABLE READ"} if self._engine.dialect.name == "postgresql" else {}
        with self._told(), self._engine.execution_options(**isolated).begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end, undone by whatever is raised inside.

        Where the commit itself fails, it may have happened; every step of the ledger may therefore be repeated as it was.

        Raises:
            StorageFailed: The database cannot be written, or was locked for thirty seconds.
            DamagedLedger: What is read is no ledger's.
        """
        with self._told():
            failpoint("ledger.begin")
            with self._engine.execution_options(writes=True).begin() as connection:
                if connection.dialect.name == "postgresql":
                    for setting in _SETTINGS:
                        connection.execute(text(f"SET LOCAL {setting}"))
                yield connection
                failpoint("ledger.commit")
            failpoint("ledger.committed")

    def mark_erased(self, connection: Connection) -> None:
        """Note in a transaction that writes that what it erases is to be scrubbed; the note outlives a kill."""
        if self._lock:
            connection.exec_driver_sql(f"PRAGMA user_version = {_num_erased(connection) + 1}")

    def scrub(self) -> None:
        """Write the file anew, if anything was erased since it last was; on a server, this is the server's business.

        SQLite's `secure_delete` overwrites a row that is deleted, but not copies of it that the moving of rows between pages has left.

        Raises:
            StorageFailed: There is no space, or the database was locked for thirty seconds; the next who opens it tries again.
        """
        if self._lock:
            with self._told(), self._lock:
                self._scrub()

    def _scrub(self) -> None:
        with self.reading() as connection:
            erased = _num_erased(connection)
        if not erased:
            return
        failpoint("ledger.scrub")
        with self._engine.execution_options(scrubs=True).begin() as connection:
            connection.exec_driver_sql("VACUUM")
        failpoint("ledger.scrubbed")
        with self.writing() as connection:
            # Somebody may have erased more meanwhile, and scrubs next.
            if _num_erased(connection) == erased:
                connection.exec_driver_sql("PRAGMA user_version = 0")

    def _check(self, place: Path) -> None:
        # Never opened and closed here: that would drop the locks that this process holds on it.
        place.chmod(0o600)
        if not os.access(place, os.W_OK):
            raise PermissionError(None, "it is read-only")
        if place.stat().st_size < _SMALLEST:
            # SQLite would take it for a new one.
            raise self._damaged("its file is empty or a stump")
        with self.reading() as connection:
            found = connection.execute(text("PRAGMA integrity_check(1)")).scalar_one()
            pages, page_bytes = (connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("page_count", "page_size"))
            # While the transaction keeps writers from the file.
            size = place.stat().st_size
        if found != "ok":
            raise self._damaged(found)
        if size < pages * page_bytes:
            raise self._damaged(f"its file has {size} bytes, not {pages * page_bytes}")

    def _migrate(self) -> None:
        with self.reading() as connection:
            known = inspect(connection).has_table(VERSION_TABLE)
            present = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar() if known else None
        if present != NEWEST:
            from e2urec_core.ledger.migrating import migrate

            with self.writing() as connection:
                migrate(connection)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, Timeout) as error:
            raise self._failed(getattr(error, "strerror", None) or error) from error
        except UnicodeDecodeError as error:
            # SQLite's own message, where it quotes damaged bytes.
            raise self._damaged("it holds a text that is none") from error
        except DBAPIError as error:
            if error.connection_invalidated or (isinstance(error, OperationalError) and not _is_damage(error.orig)):
                raise self._failed(error.orig) from error
            if isinstance(error, OperationalError) or type(error) is DatabaseError:
                raise self._damaged(error.orig) from error
            raise

    def _failed(self, said: object) -> StorageFailed:
        return StorageFailed(
            f"the ledger cannot be used: {' '.join(str(said).split())}",
            facts={"ledger": self._shown},
            hint="free some space, mend its rights, start its server, or end the process that holds it, and do the same again",
        )

    def _damaged(self, said: object) -> DamagedLedger:
        return DamagedLedger(
            f"the ledger is damaged: {' '.join(str(said).split())}",
            facts={"ledger": self._shown},
            hint="put its newest backup in its place; nothing was changed",
        )


def _engine(place: Path | str) -> tuple[str, Engine]:
    if isinstance(place, Path):
        engine = create_engine(URL.create("sqlite", database=str(place)), poolclass=NullPool, hide_parameters=True)
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        return str(place), engine
    return server_engine(place)


def server_engine(address: str, **connect: Any) -> tuple[str, Engine]:
    """The URL of a PostgreSQL database without its password, and an engine for it.

    Args:
        address: The URL.
        connect: What the driver is told beside it.

    Raises:
        BadSetting: It is not one of PostgreSQL, or its driver is not installed.
    """
    hint = "name it as in `postgresql+psycopg://name:password@host/database`, or leave it out for a file in the workspace"
    try:
        url = make_url(address)
        shown = url.render_as_string(hide_password=True)
        if url.get_backend_name() != "postgresql":
            raise BadSetting(f"the ledger's database is PostgreSQL or a file, not {url.get_backend_name()}", hint=hint)
        return shown, create_engine(url, poolclass=NullPool, isolation_level="READ COMMITTED", hide_parameters=True, connect_args=connect)
    except (ArgumentError, ValueError):
        raise BadSetting("the ledger's address is not the URL of a database", hint=hint) from None
    except ModuleNotFoundError as error:
        raise BadSetting(
            f"the driver `{error.name}` of the ledger's database is not installed", hint="install `e2urec[postgres]`"
        ) from error


def _prepare(connection: sqlite3.Connection, _: Any) -> None:
    # The driver would begin transactions by its own rules.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("scrubs"):
        # A transaction that turns from reading to writing could be refused at once; one that says so first waits for its turn.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")


def _num_erased(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _create(place: Path) -> None:
    """Make the whole ledger beside its place and move it there: a file in its place that is empty was not always so."""
    from e2urec_core.ledger.migrating import migrate

    beside = place.with_name(f".{place.name}.new")
    for left in (beside, Path(f"{beside}-journal")):
        left.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    _, engine = _engine(beside)
    with engine.execution_options(writes=True).begin() as connection:
        migrate(connection)
    failpoint("ledger.create")
    os.rename(beside, place)
    sync(place.parent)
    failpoint("ledger.created")


def _is_damage(error: BaseException | None) -> bool:
    # What SQLite calls a plain error: a table that is missing; and no code at all: a text that is none.
    return isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorname", "SQLITE_ERROR") == "SQLITE_ERROR"
