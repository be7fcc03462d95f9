"""The only names of MLflow's parameters, metrics and tags, and the only place that writes them.

Parameters carry the names of the settings, such as `method.suppression`. No user identifier is ever among them: settings hold none.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from e2urec_core.errors import TrackingFailed
from tasks import _log
from tasks._patience import patience_s, patiently
from tasks._progress import say

T = TypeVar("T")
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


PAGES = "E2UREC_MLFLOW_PAGES"


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

        while self._points:
            client.log_batch(run_id, metrics=[Metric(*point) for point in self._points[:METRICS_AT_A_TIME]])
            self._points = self._points[METRICS_AT_A_TIME:]


class Tracker:
    """One MLflow run for a pipeline run, with a nested run for each stage.

    A server that is down stops no stage: what it is to be told waits, in order, until it answers or `settle` is asked for.
    """

    def __init__(self, workspace: Path) -> None:
        """Connect to the tracking server that `MLFLOW_TRACKING_URI` names, or to a database in the workspace."""
        self._workspace = workspace
        self.run_id = ""
        self.address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace / 'mlflow.db'}"
        self._client: Any = None
        self._experiment = ""
        self._waiting: deque[Callable[[], object]] = deque()
        self._asked_again_at = 0.0
        self._lock = threading.RLock()

    @property
    def client(self) -> Any:
        """MLflow's client, connected at the first use."""
        if self._client is None:
            self._client = self._connect()
        return self._client

    def start(self, run: str, settings: Mapping[str, Any], flow_run_id: str) -> None:
        """Open the pipeline's run and write its parameters; `run_id` is MLflow's id of it, once the server has taken it."""

        def open_run() -> None:
            tags = {RUN_TAG: run, FLOW_RUN_TAG: flow_run_id}
            self.run_id = self.run_id or str(self.client.create_run(self._experiment, run_name=run, tags=tags).info.run_id)
            self._parameters(self.run_id, settings)

        self._tell(open_run)

    def page(self, file: str = "") -> str:
        """Where people see the run, or one of its files, in a browser; empty where there is no server that shows it.

        A server that shows a database of this machine, as `e2urec serve` starts one, is named by `E2UREC_MLFLOW_PAGES`.
        """
        address = urlsplit(os.environ.get(PAGES) or self.address)
        if not self.run_id or address.scheme not in ("http", "https"):
            return ""
        # A user and a password that stand in the address are nobody else's.
        there = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}"
        return f"{there}/#/experiments/{self._experiment}/runs/{self.run_id}{f'/artifacts/{file}' if file else ''}"

    @contextmanager
    def stage(self, label: str, settings: Mapping[str, Any] | None = None) -> Iterator[tuple[StageMetrics, dict[str, str]]]:
        """A nested run for one stage or method; what is put into the yielded numbers and tags is written at the end."""
        nested: list[str] = []

        def open_nested() -> None:
            tags = {"mlflow.parentRunId": self.run_id, STAGE_TAG: label}
            if not nested:
                nested.append(str(self.client.create_run(self._experiment, run_name=label, tags=tags).info.run_id))
            self._parameters(nested[0], settings or {})

        def close(status: str) -> None:
            metrics.write(self.client, nested[0])
            for name, value in later.items():
                self.client.set_tag(nested[0], name, value)
            self.client.set_terminated(nested[0], status)

        self._tell(open_nested)
        metrics, later = StageMetrics(), dict[str, str]()
        try:
            yield metrics, later
        except BaseException:
            self._tell(partial(close, "FAILED"))
            raise
        self._tell(partial(close, "FINISHED"))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Final numbers of the whole run."""
        final = StageMetrics()
        final.final(values)
        self._tell(lambda: final.write(self.client, self.run_id))

    def tags(self, values: Mapping[str, str]) -> None:
        """Tags of the whole run."""
        for name, value in values.items():
            self._tell(partial(self._tag, name, value))

    def files(self, path: Path, folder: str) -> None:
        """A file or folder as artifacts of the whole run; it must still be there when the server takes it."""

        def send() -> None:
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), folder)
            else:
                self.client.log_artifact(self.run_id, str(path), folder)

        self._tell(send)

    def finish(self, status: str) -> None:
        """Close the pipeline's run: FINISHED or FAILED."""
        if self.run_id or self._waiting:
            self._tell(lambda: self.client.set_terminated(self.run_id, status))

    def settle(self) -> None:
        """Make sure that the server has taken everything.

        Raises:
            TrackingFailed: It does not answer, or refuses.
        """
        with self._lock:
            self._send(patience_s())

    def patiently(self, call: Callable[[Any], T]) -> T:
        """What `call` returns for MLflow's client; see `tasks._patience.patiently`."""
        return patiently(lambda: call(self.client), self.address, patience_s())

    def _tag(self, name: str, value: str) -> None:
        self.client.set_tag(self.run_id, name, value)

    def _parameters(self, run_id: str, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        if settings:
            self.client.log_batch(run_id, params=[Param(name, value) for name, value in sorted(flattened(settings).items())])

    def _tell(self, what: Callable[[], object]) -> None:
        with self._lock:
            self._waiting.append(what)
            if time.monotonic() < self._asked_again_at:
                return
            patience = patience_s()
            try:
                self._send(patience if not self._asked_again_at else 0.0)
            except TrackingFailed as failed:
                if not self._asked_again_at:
                    say(f"{failed.fact}; going on, it is told later")
                self._asked_again_at = time.monotonic() + patience

    def _send(self, patience: float) -> None:
        while self._waiting:
            patiently(self._waiting[0], self.address, patience)
            self._waiting.popleft()
        self._asked_again_at = 0.0

    def _connect(self) -> Any:
        for noisy in ("alembic", "mlflow", "urllib3", "botocore"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        import mlflow
        from filelock import FileLock
        from mlflow.exceptions import MlflowException

        _log.take_over()
        # MLflow's own `set_tracking_uri` would steer every later workspace of this process.
        client = mlflow.MlflowClient(self.address, registry_uri=self.address)
        # Two processes that open a fresh database together break its migrations.
        with FileLock(self._workspace / "mlflow.lock"):
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                place = (self._workspace / "mlartifacts").as_uri() if self.address.startswith("sqlite") else None
                try:
                    self._experiment = client.create_experiment(EXPERIMENT, artifact_location=place)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = client.get_experiment_by_name(EXPERIMENT)
            if found is not None:
                self._experiment = found.experiment_id
        return client


def connected(address: str) -> Any:
    """A client of the tracking server at `address`, through which nothing is made."""
    import mlflow

    return mlflow.MlflowClient(address, registry_uri=address)


def all_runs_of(client: Any, address: str) -> Iterator[tuple[Any, list[Any]]]:
    """Every experiment with all of its runs, the deleted ones too.

    Raises:
        TrackingFailed: The server does not answer, or refuses.
    """
    from mlflow.entities import ViewType

    for experiment in paged(lambda token: client.search_experiments(view_type=ViewType.ALL, page_token=token), address):
        asked = partial(client.search_runs, [experiment.experiment_id], run_view_type=ViewType.ALL)
        found = paged(lambda token, asked=asked: asked(page_token=token), address)  # type: ignore[misc]
        yield experiment, list(found)


def paged(ask: Callable[[str | None], Any], address: str) -> Iterator[Any]:
    """What a server answers in pages, one after the other."""
    token = None
    while True:
        page = patiently(partial(ask, token), address, patience_s())
        yield from page
        token = page.token
        if not token:
            return


def downloaded(run_id: str, address: str, place: Path) -> bool:
    """Download every artifact of a run into `place`; returns whether it has any."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    found = patiently(lambda: list_artifacts(run_id=run_id, tracking_uri=address), address, patience_s())
    if found:
        patiently(lambda: download_artifacts(run_id=run_id, dst_path=str(place), tracking_uri=address), address, patience_s())
    return bool(found)
