"""The ledger's schema: what the migrations make is what statements name, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from ledgers import release, releases_at
from setuptools import find_packages
from sqlalchemy import insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from e2urec_core.ledger import migrating, open_ledger
from e2urec_core.ledger.request_records import NewRequest
from e2urec_core.ledger.requests import Requests
from e2urec_core.ledger.schema import GENESIS, MODEL, NEWEST, VERSION_TABLE, heads, line, tables

REPOSITORY = Path(__file__).parents[2]


def test_the_migrations_make_the_tables_that_statements_name(place: Path | str) -> None:
    ledger = open_ledger(place)
    with ledger.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, tables) == []
        assert context.get_current_revision() == NEWEST
        assert connection.execute(select(heads)).one() == ("events", 0, GENESIS)
        assert connection.execute(select(line)).one() == (MODEL, 0, None, None)


def test_a_ledger_of_the_first_schema_is_brought_up_to_date_with_its_history(place: Path | str) -> None:
    ledger = open_ledger(place)
    releases_at(place).add(release(1), {})
    with ledger.writing() as connection:
        for table in ("request_items", "request_keys", "requests", "runs_lock", "suppressions", "subject_marks"):
            connection.execute(text(f"DROP TABLE {table}"))
        if connection.dialect.name == "postgresql":
            connection.execute(text("DROP FUNCTION refuse_removal"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0001'"))
    assert Requests(open_ledger(place)).verify().seq == 1
    assert Requests(ledger).add(NewRequest(user_id="7"), "command").state == "queued"


def test_there_is_one_newest_migration() -> None:
    assert migrating._scripts().get_heads() == [NEWEST]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_schema_can_be_written_down_for_a_database_without_touching_it(dialect: str) -> None:
    sql = migrating.upgrade_sql(dialect)
    for table in tables.tables:
        assert f"CREATE TABLE {table} (" in sql
    for table in ("events", "promotions"):
        assert f"'{table} is append-only'" in sql or f"ON {table} EXECUTE FUNCTION refuse_change()" in sql
    assert f"UPDATE {VERSION_TABLE} SET version_num='{NEWEST}'" in sql


def test_postgresql_holds_the_head_of_the_history_from_the_start_of_a_transaction_that_writes() -> None:
    asked = select(heads.c.hash).with_for_update()
    assert str(asked.compile(dialect=postgresql.dialect())).endswith("FOR UPDATE")
    # SQLite locks the whole file instead.
    assert "FOR UPDATE" not in str(asked.compile(dialect=sqlite.dialect()))


@pytest.mark.parametrize("table", tables.sorted_tables, ids=str)
def test_every_table_can_be_read_and_written_in_postgresqls_words(table: object) -> None:
    for statement in (select(table), insert(table), update(table)):
        assert str(statement.compile(dialect=postgresql.dialect()))


def test_migrations_are_a_package_that_is_installed() -> None:
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert "e2urec_core.ledger.migrations" in find_packages(str(REPOSITORY), include=packages["include"])
    assert sorted(path.stem for path in migrating.FOLDER.glob("version_*.py"))[-1] == f"version_{NEWEST}"


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("e2urec_core.ledger, e2urec_core.ledger.records, e2urec_core.pseudonyms, e2urec_core.failpoints", {"sqlalchemy", "alembic"}),
        ("e2urec_core.ledger.request_records", {"sqlalchemy", "alembic"}),
        ("e2urec_core.ledger.releases, e2urec_core.ledger.requests, e2urec_core.ledger.suppressions", {"alembic"}),
    ],
)
def test_importing_the_ledger_loads_nothing_slow(modules: str, absent: set[str]) -> None:
    code = f"import sys, {modules}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    assert "pydantic" in loaded
    assert {"torch", "polars", "pyarrow", "pandas", "mlflow", "prefect", "great_expectations", *absent}.isdisjoint(loaded)
