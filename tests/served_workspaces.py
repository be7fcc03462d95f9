"""A workspace with a Prefect server, an MLflow server and a worker, asked over HTTP, for tests."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from e2urec_console import command

from flows.services.processes import Services

PATIENCE_S = 420.0


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: Callable[[], Any], said: str) -> Any:
    """The first answer that is true."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError(f"{said} did not come about within {PATIENCE_S:.0f} s")


class ServedWorkspace:
    """Started by `e2urec serve`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ports = ("--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
        self.addresses = self.serve()
        self._http = httpx.Client(base_url=f"{self.addresses['prefect']}/api", timeout=60)

    def serve(self) -> dict[str, str]:
        """Start what is not there; returns the addresses."""
        answer = command("serve", "--workspace", self.place, "--json", *self._ports)
        assert answer.code == 0, answer.stderr
        return dict(answer.json())

    def stop(self) -> list[str]:
        """End everything; returns what was ended."""
        answer = command("stop", "--workspace", self.place, "--json")
        assert answer.code == 0, answer.stderr
        return list(answer.json()["ended"])

    def get(self, path: str) -> Any:
        """What the server answers."""
        return self._http.get(path).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        """What the server answers."""
        return self._http.post(path, json=body).raise_for_status().json()

    def trigger(self, deployment: str, **parameters: Any) -> str:
        """Start a deployment's run; returns its id."""
        found = self.get(f"/deployments/name/{deployment}")
        return str(self.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"])

    def refused(self, deployment: str, **parameters: Any) -> str:
        """Why the server refuses to start a deployment's run."""
        found = self.get(f"/deployments/name/{deployment}")
        answer = self._http.post(f"/deployments/{found['id']}/create_flow_run", json={"parameters": parameters})
        assert answer.status_code == httpx.codes.CONFLICT, answer.text
        return str(answer.json()["detail"])

    def run(self, flow_run: str) -> dict[str, Any]:
        """A flow run as the server has it."""
        return dict(self.get(f"/flow_runs/{flow_run}"))

    def ended(self, flow_run: str) -> dict[str, Any]:
        """A flow run, once it has ended for good."""
        final = ("COMPLETED", "FAILED", "CANCELLED")
        return dict(
            wait_until(lambda: each if (each := self.run(flow_run))["state_type"] in final else None, f"the end of {self.run(flow_run)}")
        )

    def states(self, flow_run: str) -> list[str]:
        """Names of the states that a flow run has gone through."""
        told = self.get(f"/flow_run_states/?flow_run_id={flow_run}")
        return [each["name"] for each in sorted(told, key=lambda each: each["timestamp"])]

    def stages(self, flow_run: str) -> list[tuple[str, str]]:
        """Names of the task runs of a flow run, and the names of their states, in their order."""
        told = self.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}, "sort": "EXPECTED_START_TIME_ASC"})
        return [(each["name"], each["state_name"]) for each in told]

    def log(self, flow_run: str) -> list[str]:
        """Lines of the log of a flow run."""
        told = self.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run]}}, "sort": "TIMESTAMP_ASC"})
        return [each["message"] for each in told]

    def artifacts(self, flow_run: str) -> dict[str, Any]:
        """Data of the artifacts of a flow run by key."""
        told = self.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run]}}})
        return {each["key"]: each["data"] for each in told}

    def journals(self) -> list[dict[str, Any]]:
        """Records of the workspace's runs, oldest first."""
        records = [json.loads(path.read_text()) for path in (self.place / "runs").glob("*.json")]
        return sorted(records, key=lambda record: (record["started_at"], record["run"]))

    def kill_worker(self) -> None:
        """Kill the worker and all that it has started, as a machine that loses its power does."""
        worker = Services.of(self.place).named("worker")
        assert worker is not None
        process = psutil.Process(worker.process)
        for each in [*process.children(recursive=True), process]:
            each.kill()
