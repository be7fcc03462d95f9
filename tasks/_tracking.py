"""The only names of MLflow's parameters, metrics and tags, and the only place that writes them.

Parameters carry the names of the settings, such as `method.suppression`. No user identifier is ever among them: settings hold none.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXPERIMENT = "e2urec"
RUN_TAG, STAGE_TAG, STATE_TAG, DIGEST_TAG, FLOW_RUN_TAG = (
    "e2urec.run",
    "e2urec.stage",
    "e2urec.state",
    "e2urec.digest",
    "prefect.flow_run_id",
)
# MLflow takes at most this many metrics at a time.
METRICS_AT_A_TIME = 1000
LONGEST_PARAMETER = 500


def flattened(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested settings under dotted names, values as text.

    >>> flattened({"method": {"kind": "e2urec", "lora": {"rank": 16}}})
    {'method.kind': 'e2urec', 'method.lora.rank': '16'}
    """
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = str(value)[:LONGEST_PARAMETER]
    return flat


class StageMetrics:
    """Collects one stage's numbers and writes them in few calls."""

    def __init__(self) -> None:
        self._points: list[tuple[str, float, int, int]] = []

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Numbers of one step."""
        now = int(time.time() * 1000)
        self._points += [(name, float(value), now, number) for name, value in values.items()]

    def final(self, values: Mapping[str, float]) -> None:
        """Numbers of the stage as a whole."""
        self.step(0, values)

    def write(self, client: Any, run_id: str) -> None:
        """Send everything collected."""
        from mlflow.entities import Metric

        for start in range(0, len(self._points), METRICS_AT_A_TIME):
            client.log_batch(run_id, metrics=[Metric(*point) for point in self._points[start : start + METRICS_AT_A_TIME]])
        self._points = []


class Tracker:
    """One MLflow run for a pipeline run, with a nested run for each stage."""

    def __init__(self, workspace: Path) -> None:
        """Connect to the tracking server that `MLFLOW_TRACKING_URI` names, or to a database in the workspace."""
        self._workspace = workspace
        self.run_id = ""
        self._client: Any = None
        self._experiment = ""

    @property
    def client(self) -> Any:
        """MLflow's client, connected at the first use."""
        if self._client is None:
            self._client = self._connect()
        return self._client

    def start(self, run: str, settings: Mapping[str, Any], flow_run_id: str) -> str:
        """Open the pipeline's run and write its parameters; returns MLflow's id of it."""
        from mlflow.entities import Param

        started = self.client.create_run(self._experiment, run_name=run, tags={RUN_TAG: run, FLOW_RUN_TAG: flow_run_id})
        self.run_id = str(started.info.run_id)
        self.client.log_batch(self.run_id, params=[Param(name, value) for name, value in sorted(flattened(settings).items())])
        return self.run_id

    @contextmanager
    def stage(self, label: str, settings: Mapping[str, Any] | None = None) -> Iterator[tuple[StageMetrics, dict[str, str]]]:
        """A nested run for one stage or method; what is put into the yielded numbers and tags is written at the end."""
        from mlflow.entities import Param

        tags = {"mlflow.parentRunId": self.run_id, STAGE_TAG: label}
        nested = str(self.client.create_run(self._experiment, run_name=label, tags=tags).info.run_id)
        if settings:
            self.client.log_batch(nested, params=[Param(name, value) for name, value in sorted(flattened(settings).items())])
        metrics, later = StageMetrics(), dict[str, str]()
        try:
            yield metrics, later
        except BaseException:
            metrics.write(self.client, nested)
            self.client.set_terminated(nested, "FAILED")
            raise
        metrics.write(self.client, nested)
        for name, value in later.items():
            self.client.set_tag(nested, name, value)
        self.client.set_terminated(nested, "FINISHED")

    def metrics(self, values: Mapping[str, float]) -> None:
        """Final numbers of the whole run."""
        final = StageMetrics()
        final.final(values)
        final.write(self.client, self.run_id)

    def files(self, path: Path, folder: str) -> None:
        """A file or folder as artifacts of the whole run."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def finish(self, status: str) -> None:
        """Close the pipeline's run: FINISHED or FAILED."""
        if self.run_id:
            self.client.set_terminated(self.run_id, status)

    def _connect(self) -> Any:
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        import mlflow
        from filelock import FileLock
        from mlflow.exceptions import MlflowException

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self._workspace / 'mlflow.db'}"
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient(uri)
        # Two processes that open a fresh database together break its migrations.
        with FileLock(self._workspace / "mlflow.lock"):
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                place = (self._workspace / "mlartifacts").as_uri() if uri.startswith("sqlite") else None
                try:
                    self._experiment = client.create_experiment(EXPERIMENT, artifact_location=place)
                except MlflowException:
                    found = client.get_experiment_by_name(EXPERIMENT)
            if found is not None:
                self._experiment = found.experiment_id
        return client
