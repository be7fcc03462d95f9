"""What a command sets up before anything heavy is imported: the workspace, the environment of other packages, the end by a signal."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2urec_core.errors import UserError


LEAST_ROOM = 16 * 2**20
"""Bytes that must be free: with less, not even the databases can say what has become of a run."""
PROBE_BYTES = 2**20
"""Bytes that are written to see whether that can be done."""
API = "PREFECT_API_URL"
_PREPARED: list[Path] = []
_SET: dict[str, str] = {}


QUIET_PREFECT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
QUIET_OTHERS = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # With a server it would write addresses of runs between the lines of our stdout.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # Calls are repeated by ours, so that one that makes something is looked for before it is made again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONWARNINGS": "ignore",
}


def prepare(workspace: Path | None) -> Path:
    """Make sure that the workspace can be written, and set what other packages read from the environment when imported."""
    from flows.servers import end_orphans
    from tasks._journal import place_of
    from tasks._stores import store_of

    place = place_of(workspace)
    # The cache of an object store lies in the workspace; a folder elsewhere may have no room while the workspace has.
    folder = store_of(place).root
    _PREPARED[:] = [place] if folder.is_relative_to(place) else [place, folder]
    for each in _PREPARED:
        if (fault := _no_room(each)) is not None:
            raise fault
    end_orphans(place / "prefect")
    quieten(place / "prefect")
    _take_what_is_served(place)
    # Without this, a terminated command would leave Prefect's in-process server behind.
    signal.signal(signal.SIGTERM, _leave)
    return place


def _take_what_is_served(place: Path) -> None:
    """Use the server that `e2urec serve` started in the workspace, if it lives: a command's own takes seconds to start."""
    from flows.services.processes import Services

    served = Services.of(place).named("prefect")
    if served is not None:
        _set_environment({API: f"{served.address}/api"})
    elif API in _SET and os.environ.get(API) == _SET[API]:
        del os.environ[API]


def quieten(prefect_home: Path) -> None:
    """Set what other packages read from the environment when imported; Prefect makes the folder `prefect_home` if it is not there."""
    _set_environment({"PREFECT_HOME": str(prefect_home), **QUIET_PREFECT})
    quiet_others()


def quiet_others() -> None:
    """Set what MLflow, Great Expectations and the hub's client read when they are imported; a worker's flow runs do so, too."""
    import logging
    import warnings

    from tasks._log import take_over

    _set_environment(QUIET_OTHERS)
    warnings.simplefilter("ignore")
    # Prefect sends warnings to the log; those of other packages are no news to our users.
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    take_over()


def _set_environment(environment: dict[str, str]) -> None:
    for name, value in environment.items():
        # What an earlier command of this process has set is not what somebody asked for.
        if os.environ.get(name) in (None, _SET.get(name)):
            os.environ[name] = _SET[name] = value


def storage_fault(error: Exception) -> UserError | None:
    """The sentence for an error of another package that comes of a disk that is full or refuses; None for any other error."""
    fault = next((found for place in _PREPARED if (found := _no_room(place)) is not None), None)
    if fault is not None:
        fault.facts["found by"] = type(error).__name__
    return fault


def _no_room(place: Path) -> UserError | None:
    """The sentence for a workspace in which nothing more can be written."""
    from e2urec_core.disk import own_name
    from e2urec_core.errors import StorageFailed

    probe, hint = place / f".{own_name()}.probe", "free some space, then run the command again: it goes on from what is finished"
    try:
        free = shutil.disk_usage(place).free
        if free < LEAST_ROOM:
            return StorageFailed(
                f"the workspace cannot be written: {free / 2**20:.1f} MiB are free, and {LEAST_ROOM // 2**20} are needed",
                facts={"folder": place},
                hint=hint,
            )
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as refused:
        return StorageFailed(f"the workspace cannot be written: {refused.strerror or refused}", facts={"folder": place}, hint=hint)
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
