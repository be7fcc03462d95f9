"""The history, the releases, what each has forgotten, and the line of champions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

APPEND_ONLY = ("events", "promotions")


def upgrade() -> None:
    """Create the tables, the two rows that are only ever updated, and the triggers that keep the append-only tables so."""
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
    )
    heads = op.create_table(
        "heads",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "fingerprints",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_table(
        "releases",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("bundle", sa.String(64), nullable=False, unique=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("method", sa.String(64), nullable=False),
        sa.Column("run", sa.String(128), nullable=False),
        sa.Column("base", sa.String(64), sa.ForeignKey("releases.bundle")),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("judged_against", sa.String(64), nullable=False),
        sa.Column("registry_version", sa.Integer, unique=True),
        sa.Column("made_at", sa.String(32), nullable=False),
        sa.Column("registered_at", sa.String(32)),
    )
    op.create_table(
        "forgotten",
        sa.Column("release", sa.String(64), sa.ForeignKey("releases.bundle"), primary_key=True),
        sa.Column("subject", sa.String(20), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False),
    )
    line = op.create_table(
        "line",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("champion", sa.String(64), sa.ForeignKey("releases.bundle")),
        sa.Column("previous", sa.String(64), sa.ForeignKey("releases.bundle")),
    )
    op.create_table(
        "promotions",
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("release", sa.String(64), sa.ForeignKey("releases.bundle"), nullable=False),
        sa.Column("from_release", sa.String(64), sa.ForeignKey("releases.bundle")),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("run", sa.String(128), nullable=False),
    )
    op.bulk_insert(heads, [{"name": "events", "seq": 0, "hash": "0" * 64}])
    op.bulk_insert(line, [{"name": "e2urec", "epoch": 0, "champion": None, "previous": None}])
    {"sqlite": _keep_in_sqlite, "postgresql": _keep_in_postgresql}[op.get_context().dialect.name]()


def _keep_in_sqlite() -> None:
    for table in APPEND_ONLY:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_refuse_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def _keep_in_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only'; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} EXECUTE FUNCTION refuse_change()")
