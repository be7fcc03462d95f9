"""Brings a ledger's schema up to date with Alembic, inside one transaction of the caller: a killed migration leaves nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from e2urec_core.errors import DamagedLedger, NewerLedger
from e2urec_core.ledger.schema import VERSION_TABLE

FOLDER = Path(__file__).parent / "migrations"
# Any number will do; PostgreSQL's advisory locks have no names.
_ADVISORY_LOCK = 0xE2_0EC


def migrate(connection: Connection) -> None:
    """Run the migrations that the database lacks.

    Args:
        connection: Inside a transaction that writes; several callers may race.

    Raises:
        NewerLedger: Its schema is none of those known here.
        DamagedLedger: It holds tables, and they are not a ledger's.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
    present = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    if present is None and inspect(connection).get_table_names():
        raise DamagedLedger("the database holds another program's tables", hint="give the ledger a file or database of its own")
    if present is not None and present not in {script.revision for script in _scripts().walk_revisions()}:
        raise NewerLedger(
            f"the ledger's schema is `{present}`, which a newer version of this program has written",
            hint="update the program; the ledger is left as it is",
        )
    _upgrade(connection=connection)


def upgrade_sql(dialect: str) -> str:
    """The statements that create a ledger from nothing, for a database whose owner runs them by hand.

    Args:
        dialect: `postgresql` or `sqlite`.
    """
    written = io.StringIO()
    _upgrade(dialect_name=dialect, as_sql=True, output_buffer=written)
    return written.getvalue()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(FOLDER, version_locations=[FOLDER])


def _upgrade(*, as_sql: bool = False, **configured: Any) -> None:
    scripts = _scripts()

    def steps(revision: Any, context: MigrationContext) -> Any:
        return scripts._upgrade_revs("head", revision)

    with EnvironmentContext(Config(), scripts, fn=steps, as_sql=as_sql) as environment:
        environment.configure(version_table=VERSION_TABLE, **configured)
        with environment.begin_transaction():
            environment.run_migrations()
