"""Searches a tracking server for one user: runs, deleted ones too, registered versions, and every artifact they have."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e2urec_core.scanning.scan import Scan
from tasks._tracking import all_runs_of, connected, downloaded, paged

CALLED = "mlflow"


def scan_tracking(scan: Scan, address: str) -> None:
    """Search the tracking server at `address`.

    Raises:
        TrackingFailed: It does not answer, or refuses.
    """
    client = connected(address)
    for experiment, runs in all_runs_of(client, address):
        place = f"{CALLED} experiment {experiment.experiment_id}"
        scan.values(place, [("experiment.name", experiment.name), *_pairs("tag", experiment.tags)])
        for run in runs:
            place = f"{CALLED} run {run.info.run_id}"
            told = [("run.name", run.info.run_name), ("run.user_id", run.info.user_id)]
            names = [("metric", name) for name in run.data.metrics]
            scan.values(place, [*told, *_pairs("param", run.data.params), *_pairs("tag", run.data.tags), *names])
            _artifacts(scan, run.info, address)
    for model in paged(lambda token: client.search_registered_models(page_token=token), address):
        scan.values(f"{CALLED} model", [("model.name", model.name), ("model.description", model.description), *_pairs("tag", model.tags)])
    for version in paged(lambda token: client.search_model_versions(page_token=token), address):
        place = f"{CALLED} version {version.version} of {version.name}"
        scan.values(place, [("version.description", version.description), *_pairs("tag", version.tags)])


def _artifacts(scan: Scan, run: Any, address: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if downloaded(run.run_id, address, Path(folder)):
            scan.folder(Path(folder), f"{CALLED} run {run.run_id} artifacts")


def _pairs(kind: str, values: Any) -> Iterator[tuple[str, Any]]:
    for name, value in (values or {}).items():
        yield kind, name
        yield f"{kind}.{name}", value
