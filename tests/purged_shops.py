"""A workspace with releases and everything that MLflow can keep of them, marked so that every byte of it can be looked for."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e2urec_core.artifacts import Bundle
from e2urec_core.ledger.records import Release
from tasks._desk import Desk
from tasks._purging import TrackingPurge
from tasks._tracking import Tracker
from tests.promoting_children import open_shop

CANARY = "canary7f3e"
# Columns of text that say how rows hang together, or that admit few words.
BOUND = {
    *("run_uuid", "run_id", "source_run_id", "request_id", "trace_id", "model_id", "input_uuid", "dataset_uuid", "source_id"),
    *("destination_id", "source_type", "destination_type", "item_type", "item_id", "queue_id", "lifecycle_stage", "status", "artifact_uri"),
    *("workspace", "current_stage", "artifact_location", "association_id", "assessment_id", "span_id", "parent_span_id", "issue_id"),
}


class Shop:
    """A workspace whose registered model is called `shop`."""

    def __init__(self, place: Path) -> None:
        self.place, self.desk = place, open_shop(place)
        self.tracker, self.store, self.purge = self.desk.registry.tracker, self.desk.store, TrackingPurge(self.desk)

    @property
    def client(self) -> Any:
        return self.tracker.client

    def run(self, name: str, *, told: str = "", stages: int = 2, status: str = "FINISHED") -> str:
        """A run with nested ones and a report; `told` stands in everything that is written. The tracker goes on with it."""
        tracker = self.desk.registry.tracker = self.tracker = Tracker(self.place)
        tracker.start(f"{name}{told}", {f"setting{told}": f"value{told}"}, "")
        for number in range(stages):
            with tracker.stage(f"stage-{number}{told}", {f"nested{told}": told}) as (metrics, tags):
                metrics.final({f"loss{told}": 1.0})
                tags[f"tag{told}"] = told
        report = self.place / f"report{told}.txt"
        report.write_text(f"report {told}")
        tracker.files(report, f"report{told}")
        report.unlink()
        if status != "RUNNING":
            tracker.finish(status)
        self.purge = TrackingPurge(Desk(self.place, self.store, self.desk.ledger, self.desk.registry, "run-1"))
        return tracker.run_id

    def bundle(self, note: str) -> Bundle:
        with self.store.workplace() as place:
            (place / "artifacts").mkdir()
            (place / "artifacts" / f"{note}.txt").write_text(note)
            return self.store.publish(Bundle, place, parents=(), rows=1, made_by="bundle")

    def version(self, note: str, *, champion: bool = False) -> tuple[int, str]:
        """Register a release below the newest run; returns the version and the digest of its bundle."""
        bundle, line = self.bundle(note), self.desk.releases.line()
        told = {"bundle": bundle.digest, "model": "a" * 64, "kind": "Unlearned", "run": note[:64], "verdict": {}, "passed": True}
        self.desk.releases.add(Release.model_validate({**told, "judged_against": line.champion or ""}), {})
        version = self.desk.registry.register(bundle, self.store.open(bundle), f"# card {note}", {f"tag {note}": note})
        self.desk.releases.registered(bundle.digest, version)
        if champion:
            self.desk.releases.promote(version, seen_epoch=line.epoch, kind="promote", run="test")
        self.desk.mirror()
        return version, bundle.digest

    def rows(self, *ids: str) -> list[tuple[Any, ...]]:
        """All rows of the database that hold one of the words, with their tables."""
        return [row for row in every_row(self.place / "mlflow.db") if any(str(cell) in ids for cell in row)]

    def found(self, word: str) -> list[str]:
        """Names of files of MLflow in which, or in whose names, a word stands."""
        files = [*self.place.glob("mlflow.db*"), *(self.place / "mlartifacts").rglob("*")]
        return [str(path) for path in files if word in str(path.relative_to(self.place)) or (path.is_file() and word in read(path))]


def read(path: Path) -> str:
    return path.read_bytes().decode("latin-1")


def every_row(database: Path) -> Iterator[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    for table in tables:
        for row in connection.execute(f"SELECT * FROM {table}"):
            yield table, *row
    connection.close()


def plant(shop: Shop, run: str) -> None:
    """Give a run a data set, a logged model and a trace with a span and an assessment, each with a canary wherever text may stand."""
    from mlflow.entities import DatasetInput, InputTag, LoggedModelOutput
    from mlflow.entities.dataset import Dataset

    dataset = Dataset(CANARY, "d1", "local", CANARY, schema=CANARY, profile=CANARY)
    shop.client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", CANARY)])])
    experiment = shop.client.get_run(run).info.experiment_id
    model = shop.client.create_logged_model(experiment, CANARY, source_run_id=run, tags={CANARY: CANARY}, params={CANARY: CANARY})
    shop.client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
    shop.client.log_metric(run, f"m{CANARY}", 1.0, model_id=model.model_id)
    folder = Path(model.artifact_location.removeprefix("file://"))
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text(CANARY)
    planted_rows(shop, run, str(experiment), model.model_id)


def planted_rows(shop: Shop, run: str, experiment: str, model: str) -> None:
    """Rows that MLflow's other parts write, straight into its tables."""
    database = sqlite3.connect(shop.place / "mlflow.db")
    traces = shop.place / "mlartifacts" / "traces" / "tr-1" / "artifacts"
    traces.mkdir(parents=True)
    (traces / "traces.json").write_text(CANARY)
    given: dict[str, dict[str, Any]] = {
        "trace_info": {"request_id": "tr-1", "experiment_id": experiment, "timestamp_ms": 1, "status": "OK"},
        "trace_request_metadata": {"request_id": "tr-1", "key": "mlflow.sourceRun", "value": run},
        "trace_tags": {"request_id": "tr-1", "key": "mlflow.artifactLocation", "value": traces.as_uri()},
        "trace_metrics": {"request_id": "tr-1", "key": CANARY, "value": 1.0},
        "spans": {"trace_id": "tr-1", "experiment_id": experiment, "span_id": "s1", "status": "OK", "start_time_unix_nano": 1},
        "span_metrics": {"trace_id": "tr-1", "span_id": "s1", "key": CANARY, "value": 1.0},
        "assessments": {"assessment_id": "a1", "trace_id": "tr-1", "run_id": run},
        "issues": {"issue_id": "i1", "experiment_id": experiment, "source_run_id": run, "status": "open"},
        "entity_associations": {"source_type": "trace", "source_id": "tr-1", "destination_type": "run", "destination_id": run},
        "review_queues": {
            "queue_id": "q1",
            "experiment_id": experiment,
            "name": "kept",
            "name_key": "kept",
            "queue_type": "kept",
            "created_by": "kept",
        },
        "review_queue_items": {"queue_id": "q1", "item_type": "trace", "item_id": "tr-1", "status": "pending"},
    }
    for table, values in given.items():
        columns = list(database.execute(f"PRAGMA table_info({table})"))
        for _, name, kind, needed, default, _ in columns:
            text = kind.startswith(("VARCHAR", "TEXT", "JSON"))
            if name not in values and ((text and name not in BOUND) or (needed and default is None)):
                values[name] = (CANARY if table != "review_queues" else "kept") if text else 1
        names = ", ".join(f'"{name}"' for name in values)
        database.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", list(values.values()))
    database.commit()
    database.close()


def plant_columns(shop: Shop, runs: set[str], versions: set[int]) -> list[str]:
    """Put a canary into each column of text that is not bound of the rows of some runs and versions; returns which columns these are."""
    database = sqlite3.connect(shop.place / "mlflow.db")
    marks = ", ".join(f"'{run}'" for run in runs)
    numbers = ", ".join(map(str, versions))
    owned = dict.fromkeys(("runs", "tags", "params", "metrics", "latest_metrics"), f"run_uuid IN ({marks})")
    owned |= {"model_versions": f"version IN ({numbers})", "model_version_tags": f"version IN ({numbers})"}
    planted = []
    for table, rows in owned.items():
        for _, name, kind, _, _, in_key in list(database.execute(f"PRAGMA table_info({table})")):
            if kind.startswith(("VARCHAR", "TEXT")) and name not in BOUND and not in_key and table != "tags":
                word = f"substr('{CANARY}{name}', 1, 20)"
                database.execute(f"UPDATE {table} SET {name} = {word} WHERE {rows}")
                planted.append(f"{table}.{name}")
    database.commit()
    database.close()
    return planted


def purge_until(place: Path, keep_runs: tuple[str, ...], keep_bundles: tuple[str, ...], point: str) -> None:
    """Purge everything else with a failpoint that kills this process."""
    os.environ["E2UREC_FAILPOINT"] = f"{point}:1:kill"
    purge = TrackingPurge(open_shop(place))
    purge.carry_out(purge.plan(keep_runs, keep_bundles, lambda run: True))
