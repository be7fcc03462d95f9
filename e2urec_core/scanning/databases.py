"""Searches databases through SQL: every table and every column, with what a table of names and values says a value is."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from e2urec_core.errors import StorageFailed
from e2urec_core.scanning.matching import Matcher, total
from e2urec_core.scanning.targets import ROW

MAGIC = b"SQLite format 3\x00"
BESIDE = ("-wal", "-journal", "-shm")


def search_sqlite(path: Path, matcher: Matcher) -> dict[str, Counter[str]]:
    """What the tables of a SQLite file name, by table.

    A file with a log or journal beside it is copied first, with them: reading it in its place would change it.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    with _opened(path) as connection:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        rows = {str(name): _rows_of(connection, str(name)) for kind, name, _ in schema if kind == "table"}
        found = search_tables(rows.items(), matcher)
        written = total(matcher.text(f"{name} {sql or ''}") for _, name, sql in schema)
        return found | ({"schema": written} if written else {})


def search_tables(tables: Iterable[tuple[str, Iterable[dict[str, Any]]]], matcher: Matcher) -> dict[str, Counter[str]]:
    """What rows name, by table.

    Of single interactions, a row that names an item and, by any of its values, a row that names the user is found, too.
    """
    found: dict[str, Counter[str]] = defaultdict(Counter)
    named, pointing = set[str](), []
    for table, rows in tables:
        for row in rows:
            record = [(f"{table}.{column}", value) for column, value in row.items()]
            label = row.get("key", row.get("name"))
            if isinstance(label, str) and "value" in row:
                # The row itself says what its value is.
                record = [(f"{table}.{label}" if field == f"{table}.value" else field, value) for field, value in record]
            found[table].update(matcher.record(record))
            if matcher.targets.items:
                if "id" in row and any(matcher.names(field, value) for field, value in record):
                    named.add(str(row["id"]))
                if any(matcher.is_item(field, value) for field, value in record):
                    pointing.append((table, {str(value) for value in row.values()}))
    for table, values in pointing:
        found[table][ROW] += bool(values & named)
    return {table: +what for table, what in found.items() if +what}


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    beside = [Path(f"{path}{end}") for end in BESIDE[:2]]
    with tempfile.TemporaryDirectory() as folder:
        place = path
        if any(other.exists() and other.stat().st_size for other in beside):
            place = Path(folder, "copy")
            shutil.copyfile(path, place)
            for other, end in zip(beside, BESIDE, strict=False):
                if other.exists():
                    shutil.copyfile(other, f"{place}{end}")
            address = place.as_uri()
        else:
            # Nothing beside it that would have to be read or rolled back, and nothing is made beside it.
            address = f"{place.absolute().as_uri()}?immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.text_factory = lambda content: content.decode(errors="replace")
            yield connection


def _rows_of(connection: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    quoted = table.replace('"', '""')
    asked = connection.execute(f'SELECT * FROM "{quoted}"')
    names = [column[0] for column in asked.description]
    for row in asked:
        yield dict(zip(names, row, strict=True))


def search_server(url: str, matcher: Matcher) -> tuple[str, dict[str, Counter[str]], int]:
    """What the tables of a database on a server name, by table.

    Returns:
        The address without a password, what was found, and the number of tables.

    Raises:
        StorageFailed: It cannot be reached or read, or its driver is not installed.
    """
    from sqlalchemy import MetaData, create_engine, make_url, select
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        shown, engine, tables = make_url(url).render_as_string(hide_password=True), create_engine(url, poolclass=NullPool), MetaData()
        with engine.connect() as connection:
            tables.reflect(connection)
            rows = {
                name: (dict(row._mapping) for row in connection.execute(select(table)).yield_per(1000))
                for name, table in tables.tables.items()
            }
            return shown, search_tables(rows.items(), matcher), len(rows)
    except (SQLAlchemyError, ImportError) as error:
        raise StorageFailed(
            f"a database cannot be looked through: {type(error).__name__}", hint="start its server, and install its driver"
        ) from error
