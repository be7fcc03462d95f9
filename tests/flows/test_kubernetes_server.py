"""A real Prefect server is told of a cluster, and Prefect's own worker sends jobs to a stand-in for one, which notes and accepts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from served_workspaces import free_port, wait_until

from flows.services.kubernetes import CHECKOUT, IN_IMAGE, TEMPLATES
from flows.services.processes import FOLDER, end, start, wait_for
from flows.serving_command import PREFECT_ENVIRONMENT

pytest.importorskip("prefect_kubernetes", reason="install it with: pip install --constraint constraints.txt '.[k8s]'")
from kubernetes_schema import faults

pytestmark = pytest.mark.long
PREFECT = [sys.executable, "-m", "prefect"]


class StandIn(BaseHTTPRequestHandler):
    """Takes jobs as a cluster's API does, and runs none."""

    posted: list[tuple[str, dict[str, Any]]]

    def do_GET(self) -> None:
        self._answer(200, {"kind": "List", "apiVersion": "v1", "items": [], "metadata": {"resourceVersion": "1"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.posted.append((self.path, json.loads(json.dumps(body))))
        body["metadata"] |= {"name": f"{body['metadata']['generateName']}1", "uid": "1"}
        self._answer(201, body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextmanager
def stand_in(folder: Path) -> Iterator[tuple[Path, list[tuple[str, dict[str, Any]]]]]:
    """A stand-in at work: the file that tells where it is, and the jobs that it was sent."""
    posted: list[tuple[str, dict[str, Any]]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Noting", (StandIn,), {"posted": posted}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place, name = folder / "cluster.json", "stand-in"
    told = {
        **{"apiVersion": "v1", "kind": "Config", "current-context": name},
        "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": {"token": "none"}}],
    }
    place.write_text(json.dumps(told))
    try:
        yield place, posted
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes of these tests leave their logs."""
    place = tmp_path_factory.mktemp("kubernetes")
    (place / FOLDER).mkdir()
    return place


@pytest.fixture(scope="module")
def environment(place: Path) -> Iterator[dict[str, str]]:
    """Of commands that speak with a Prefect server, which lives meanwhile."""
    port = free_port()
    environment = {**PREFECT_ENVIRONMENT, "PREFECT_HOME": str(place / "prefect")}
    address = f"http://127.0.0.1:{port}"
    server = start(place, "prefect", [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)], environment, address)
    try:
        wait_for(server, "/api/health", place, 120)
        yield {**environment, "PREFECT_API_URL": f"{address}/api"}
    finally:
        end(server)


def told(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """What `python -m flows.services.kubernetes` says."""
    line = [sys.executable, "-m", "flows.services.kubernetes", *words]
    return subprocess.run(line, cwd=CHECKOUT, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_from_the_server_to_the_job(environment: dict[str, str], place: Path) -> None:
    for image in ("e2urec:1", "e2urec:2"):
        done = told(environment, "--image", image, "--num-gpus", "3")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"pools e2urec-cpu and e2urec-gpu: up to date, for {image}\n"
    http = httpx.Client(base_url=environment["PREFECT_API_URL"], timeout=60)

    pools = {each["name"]: each for each in http.post("/work_pools/filter", json={}).json()}
    assert {name: (pool["type"], pool["concurrency_limit"]) for name, pool in pools.items()} == {
        **{"e2urec-cpu": ("kubernetes", 4), "e2urec-gpu": ("kubernetes", 3)}
    }
    deployed = http.post("/deployments/filter", json={}).json()
    declared = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())["deployments"]
    pool_by_entrypoint = {each["entrypoint"]: f"e2urec-{each['work_pool']['work_queue_name']}" for each in declared}
    assert {each["entrypoint"]: each["work_pool_name"] for each in deployed} == pool_by_entrypoint
    folders = [step["prefect.deployments.steps.set_working_directory"] for each in deployed for step in each["pull_steps"]]
    assert folders == [{"directory": IN_IMAGE}] * len(declared)
    # Told twice, it has them once.
    assert len(http.post("/automations/filter", json={}).json()) == 2

    (train,) = [each["id"] for each in deployed if each["name"] == "train"]
    refused = http.post(f"/deployments/{train}/create_flow_run", json={"job_variables": {"gpus": -1}})
    assert (refused.status_code, "-1 is less than the minimum of 1" in refused.text) == (422, True)
    asked = http.post(f"/deployments/{train}/create_flow_run", json={"job_variables": {"gpus": 2}})
    asked.raise_for_status()

    documents = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all((TEMPLATES / "worker.yaml").read_text())}
    (container,) = documents["Deployment", "e2urec-worker-gpu"]["spec"]["template"]["spec"]["containers"]
    with stand_in(place) as (cluster, posted):
        of_worker = {**documents["ConfigMap", "e2urec-worker"]["data"], "PREFECT_API_AUTH_STRING": "name:hush", "KUBECONFIG": str(cluster)}
        of_worker |= {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": str(free_port())}
        assert container["args"][0] == "prefect"
        worker = start(place, "worker", [*PREFECT, *container["args"][1:]], {**environment, **of_worker})
        try:
            wait_until(lambda: posted, "the job")
        finally:
            end(worker)
    ((path, job),) = posted
    assert path == "/apis/batch/v1/namespaces/e2urec/jobs"
    assert faults(job) == []
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "e2urec:2"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"] == 2
    assert job["metadata"]["labels"]["prefect.io/flow-run-id"] == asked.json()["id"]
    assert "hush" not in json.dumps(job)


def test_a_resource_that_is_none_is_refused_before_anything_is_made(environment: dict[str, str]) -> None:
    before = httpx.post(f"{environment['PREFECT_API_URL']}/work_pools/filter", json={}).json()
    done = told(environment, "--image", "e2urec:9", "--gpu-resource", "gpus")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "BadSetting: `gpus` is no name of a resource")
    assert httpx.post(f"{environment['PREFECT_API_URL']}/work_pools/filter", json={}).json() == before
