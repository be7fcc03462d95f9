"""Deletion requests, the items and names they came with, and the lock of whoever carries them out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables, and the row of the lock, which is only ever updated."""
    op.create_table(
        "requests",
        sa.Column("id", sa.String(18), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False, unique=True),
        sa.Column("subject", sa.String(20), nullable=False, unique=True),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("commitment", sa.String(64), nullable=False),
        sa.Column("requested_at", sa.String(32), nullable=False),
        sa.Column("received_at", sa.String(32), nullable=False),
        sa.Column("covers_until", sa.String(32), nullable=False),
        sa.Column("due_at", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("held_from", sa.String(16)),
        sa.Column("approved", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer),
        sa.Column("run", sa.String(128)),
        sa.Column("model", sa.String(64)),
        sa.Column("release", sa.String(64)),
        sa.Column("receipt", sa.String(64)),
        sa.Column("changed_at", sa.String(32), nullable=False),
        sa.Column("user_id", sa.Text, index=True),
        sa.Column("note", sa.Text),
        sa.Column("nonce", sa.String(64)),
    )
    op.create_table(
        "request_items",
        sa.Column("request", sa.String(18), sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("item_id", sa.Text, primary_key=True),
    )
    op.create_table(
        "request_keys",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("request", sa.String(18), sa.ForeignKey("requests.id"), nullable=False, index=True),
        sa.Column("content", sa.String(64)),
    )
    lock = op.create_table(
        "runs_lock",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("holder", sa.String(128)),
        sa.Column("taken_at", sa.String(32)),
    )
    op.bulk_insert(lock, [{"name": "night", "epoch": 0, "holder": None, "taken_at": None}])
