"""The marks by which those whom releases have forgotten are found again, until they are purged themselves and their marks go."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table. Whom earlier releases have forgotten stays named by a mark, because the history has it."""
    op.create_table(
        "subject_marks",
        sa.Column("mark", sa.String(20), primary_key=True),
        sa.Column("user_mark", sa.String(20), nullable=False, index=True),
        sa.Column("subject", sa.String(20), nullable=False, unique=True),
    )
    op.execute(
        "INSERT INTO subject_marks (mark, user_mark, subject) "
        "SELECT DISTINCT subject, subject, subject FROM forgotten WHERE subject NOT IN (SELECT subject FROM requests)"
    )
