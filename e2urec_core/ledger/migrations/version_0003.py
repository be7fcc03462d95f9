"""The suppression list: marks of whom and what must not come back. Its moments move on; its rows are never removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table, and the trigger that keeps its rows."""
    op.create_table(
        "suppressions",
        sa.Column("user_mark", sa.String(64), primary_key=True),
        sa.Column("item_mark", sa.String(64), primary_key=True),
        sa.Column("until_s", sa.BigInteger, nullable=False),
    )
    {"sqlite": _keep_in_sqlite, "postgresql": _keep_in_postgresql}[op.get_context().dialect.name]()


def _keep_in_sqlite() -> None:
    op.execute(
        "CREATE TRIGGER suppressions_refuse_delete BEFORE DELETE ON suppressions "
        "BEGIN SELECT RAISE(ABORT, 'rows of suppressions stay'); END"
    )


def _keep_in_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse_removal() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION USING MESSAGE = 'rows of ' || TG_TABLE_NAME || ' stay'; END $$"
    )
    op.execute("CREATE TRIGGER suppressions_refuse_removal BEFORE DELETE OR TRUNCATE ON suppressions EXECUTE FUNCTION refuse_removal()")
