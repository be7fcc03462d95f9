"""Makes a workspace's own tracking database right for another folder, and keeps the numbers of versions that it does not know.

MLflow notes where files lie as absolute addresses. In a copy they name the workspace that it was taken of, which may be gone, or, worse,
may not be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from e2urec_core.errors import StorageFailed

FILE = "mlflow.db"


def move_tracking(database: Path, before: Path, after: Path) -> int:
    """Let every address in a tracking database that names the folder `before` name `after`; returns how many rows were changed.

    Raises:
        StorageFailed: It is no database, or cannot be written.
    """
    pairs = [(before.as_uri(), after.as_uri()), (str(before), str(after))]
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            # Tables with triggers or keys on addresses there are none; the order does not matter.
            return sum(
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE typeof({column}) = 'text' AND ({column} = ? OR substr({column}, 1, ?) = ?)",
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                ).rowcount
                for table, column in _texts(connection)
                for old, new in pairs
            )
    except sqlite3.Error as error:
        raise StorageFailed(
            f"the tracking database of the back-up cannot be moved: {error}", facts={"database": database}, hint="use another back-up"
        ) from None


def keep_number(database: Path, model: str, highest: int) -> None:
    """Let the next version of a registered model have a number above `highest`: the row of a deleted version keeps its number.

    Raises:
        StorageFailed: It is no database, or cannot be written.
    """
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            asked = "SELECT COALESCE(MAX(version), 0) FROM model_versions WHERE name = ?"
            if connection.execute(asked, (model,)).fetchone()[0] < highest:
                row = "INSERT INTO model_versions (name, version, current_stage) VALUES (?, ?, 'Deleted_Internal')"
                connection.execute(row, (model, highest))
    except sqlite3.Error as error:
        raise StorageFailed(
            f"the tracking database of the back-up does not take a number: {error}",
            facts={"database": database},
            hint="use another back-up",
        ) from None


def _texts(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, kind, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
            if "CHAR" in kind.upper() or "TEXT" in kind.upper():
                yield f'"{table}"', f'"{column}"'
