"""Starts MLflow's own server on a released folder, on this machine alone, and ends it whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S, GRACE_S = 180.0, 10.0
OFFLINE = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@contextmanager
def server(model: Path | str, tracking: str = "") -> Iterator[str]:
    """`mlflow models serve` on a free port of the loopback; gives its address.

    Args:
        model: Folder of an MLflow model, or its name in a registry.
        tracking: Address of the registry, for a name.

    Raises:
        RuntimeError: It has not come up; holds the end of what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(model.resolve() if isinstance(model, Path) else model),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # Whatever this process can import by way of its folder or its paths, the server cannot.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as place, (Path(place) / "said").open("w+") as said:
        # The server looks for a database of runs even where it needs none.
        environment = {**inherited, **OFFLINE, "PATH": paths, "MLFLOW_TRACKING_URI": tracking or f"sqlite:///{place}/none.db"}
        process = subprocess.Popen(
            [*command, "--env-manager", "local"], cwd=place, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, process, Path(said.name))
            yield address
        finally:
            _end(process)


def _wait(address: str, process: subprocess.Popen[bytes], said: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{address}/ping", timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not come up within {START_S:g} s:\n{said.read_text()[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            break
    # What the command started may outlive it by a moment.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def ask(address: str, request: dict[str, Any]) -> tuple[int, Any]:
    """Status and JSON that the server answers to a request."""
    posted = urllib.request.Request(
        f"{address}/invocations", data=json.dumps(request).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(posted, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())
