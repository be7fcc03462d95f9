"""The rows that MLflow keeps of what was deleted, in a workspace's own database: found, erased, and overwritten in the file.

MLflow only marks runs and versions as deleted, and `mlflow gc` leaves versions, inputs, data sets, logged models and traces. What is
erased here is what names a run or a version that is no longer there, so that a kill between two steps is mended by the next call.
Read in MLflow 3.17.2; a test compares these tables with the schema of the MLflow that is installed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, NullPool, create_engine, text

from e2urec_core.failpoints import failpoint
from tasks._patience import patience_s, patiently

RUNS, MODELS, TRACES = "(SELECT run_uuid FROM runs)", "(SELECT model_id FROM logged_models)", "(SELECT request_id FROM trace_info)"
DELETED = "name = :model AND current_stage = 'Deleted_Internal'"
# MLflow gives a new version the highest number it finds, plus one. The ledger knows versions by number: none may be given twice.
HIGHEST = "(SELECT MAX(version) FROM model_versions WHERE name = :model)"
# Tables, and which of their rows speak of what is gone. In this order: what a later line asks for is erased by an earlier one.
# Foreign keys take metrics, params and tags of logged models along, and spans, tags and assessments of traces.
LEFT_BEHIND = (
    ("latest_metrics", f"run_uuid NOT IN {RUNS}"),
    ("metrics", f"run_uuid NOT IN {RUNS}"),
    ("params", f"run_uuid NOT IN {RUNS}"),
    ("tags", f"run_uuid NOT IN {RUNS}"),
    ("logged_model_metrics", f"run_id NOT IN {RUNS}"),
    ("logged_models", f"source_run_id <> '' AND source_run_id NOT IN {RUNS}"),
    ("assessments", f"run_id <> '' AND run_id NOT IN {RUNS}"),
    (
        "trace_info",
        f"request_id IN (SELECT request_id FROM trace_request_metadata WHERE key = 'mlflow.sourceRun' AND value NOT IN {RUNS})",
    ),
    (
        "inputs",
        f"(destination_type = 'RUN' AND destination_id NOT IN {RUNS}) OR"
        f" (source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id NOT IN {RUNS}) OR"
        f" (destination_type IN ('MODEL_INPUT', 'MODEL_OUTPUT') AND destination_id NOT IN {MODELS})",
    ),
    ("input_tags", "input_uuid NOT IN (SELECT input_uuid FROM inputs)"),
    (
        "datasets",
        "dataset_uuid NOT IN (SELECT source_id FROM inputs WHERE source_type = 'DATASET') AND"
        " dataset_uuid NOT IN (SELECT dataset_uuid FROM logged_model_metrics WHERE dataset_uuid IS NOT NULL)",
    ),
    (
        "entity_associations",
        f"(source_type = 'run' AND source_id NOT IN {RUNS}) OR (destination_type = 'run' AND destination_id NOT IN {RUNS}) OR"
        f" (source_type = 'trace' AND source_id NOT IN {TRACES}) OR (destination_type = 'trace' AND destination_id NOT IN {TRACES})",
    ),
    ("review_queue_items", f"item_type = 'trace' AND item_id NOT IN {TRACES}"),
    (
        "model_version_tags",
        f"name = :model AND version NOT IN (SELECT version FROM model_versions WHERE NOT ({DELETED}) AND name = :model)",
    ),
    ("model_versions", f"{DELETED} AND version < {HIGHEST}"),
)
# Of the deleted version with the highest number, its number alone stays.
BARE = (
    "creation_time",
    "last_updated_time",
    "description",
    "user_id",
    "source",
    "run_id",
    "status",
    "status_message",
    "run_link",
    "storage_location",
)
NOT_BARE = f"{DELETED} AND ({' OR '.join(f'{column} IS NOT NULL' for column in BARE)})"
# Where rows that are there say that files lie.
PLACES = (
    "SELECT artifact_uri FROM runs",
    "SELECT artifact_location FROM logged_models",
    "SELECT value FROM trace_tags WHERE key = 'mlflow.artifactLocation'",
    "SELECT storage_location FROM model_versions WHERE current_stage <> 'Deleted_Internal'",
)


class DatabaseRows:
    """The rows of a tracking database in SQLite, beside MLflow's own connections to it."""

    def __init__(self, address: str, workspace: Path, model: str) -> None:
        """Rows of the database at `address`; its lock lies in `workspace`; `model` is the registered model whose versions are erased."""
        self._address, self._workspace, self._model = address, workspace, model
        # Nothing is kept open: SQLite writes a file anew only while nobody else is in it.
        self._engine = create_engine(address, poolclass=NullPool)

    def places(self) -> set[str]:
        """Addresses of the folders in which runs, versions, logged models and traces that are there keep files."""
        return {str(place) for place in self._asked(lambda connection: connection.scalars(text(" UNION ".join(PLACES))).all()) if place}

    def num_left_behind(self) -> int:
        """How many rows speak of runs and versions that are no longer there."""
        counts = [*LEFT_BEHIND, ("model_versions", f"{NOT_BARE} AND version = {HIGHEST}")]

        def counted(connection: Connection) -> int:
            return sum(self._run(connection, f"SELECT COUNT(*) FROM {table} WHERE {rows}").scalar_one() for table, rows in counts)

        return int(self._asked(counted))

    def erase_before(self, runs: Collection[str]) -> None:
        """Erase what would no longer name its run once the run is gone: issues that it found."""
        erasing = text("DELETE FROM issues WHERE source_run_id IN (SELECT value FROM json_each(:runs))")
        self._asked(lambda connection: connection.execute(erasing, {"runs": json.dumps(list(runs))}))
        failpoint("purge.issues")

    def erase_left_behind(self) -> None:
        """Erase rows of runs and versions that are no longer there, in one transaction."""

        def erased(connection: Connection) -> None:
            for table, rows in LEFT_BEHIND:
                self._run(connection, f"DELETE FROM {table} WHERE {rows}")
            self._run(connection, f"UPDATE model_versions SET {', '.join(f'{column} = NULL' for column in BARE)} WHERE {NOT_BARE}")
            failpoint("purge.rows")

        self._asked(erased)
        failpoint("purge.rows-erased")

    def overwrite(self) -> None:
        """Write the file anew without what was erased, and empty its write-ahead log.

        Raises:
            TrackingFailed: The disk is full, or somebody else was in the database for all of the patience.
        """
        from filelock import FileLock
        from sqlalchemy.exc import OperationalError

        def written() -> None:
            with FileLock(self._workspace / "mlflow.lock"), self._connection("AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM")
                failpoint("purge.vacuum")
                busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one()
                if busy:
                    raise OperationalError("PRAGMA wal_checkpoint(TRUNCATE)", None, RuntimeError("somebody else reads the database"))

        patiently(written, self._address, patience_s())
        failpoint("purge.overwritten")

    def _asked(self, call: Any) -> Any:
        def asked() -> Any:
            with self._connection() as connection, connection.begin():
                return call(connection)

        return patiently(asked, self._address, patience_s())

    def _run(self, connection: Connection, statement: str) -> Any:
        return connection.execute(text(statement), {"model": self._model} if ":model" in statement else {})

    @contextmanager
    def _connection(self, level: str | None = None) -> Iterator[Connection]:
        engine = self._engine.execution_options(isolation_level=level) if level else self._engine
        with engine.connect() as connection:
            for pragma in ("secure_delete = ON", "foreign_keys = ON", "busy_timeout = 20000"):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
            # The pragmas have opened a transaction that the caller is to open.
            connection.commit()
            yield connection
