"""The commands `e2urec serve` and `e2urec stop`: a Prefect server, an MLflow server and workers on this machine's loopback address."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from e2urec_core.errors import ServiceFailed
from flows.flags import AsJson, Debug, StoreAt, Workspace
from flows.health.asking import shown
from flows.surroundings import QUIET_OTHERS, prepare

if TYPE_CHECKING:
    from flows.services.processes import Service

HOST = "127.0.0.1"
UP_WITHIN_S = 120.0
PREFECT_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLI_PROMPT": "false",
    # A command keeps Prefect's own lines to itself; a worker's are what its runs show as their log.
    "PREFECT_LOGGING_LEVEL": "INFO",
    # In memory, where they are kept otherwise, a place at a GPU would be lost for ever with the server.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
MLFLOW_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def serve(
    workspace: Workspace = None,
    store: StoreAt = None,
    prefect_port: Annotated[int, typer.Option("--prefect-port", min=1, max=65535, help="Port of Prefect's server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", min=1, max=65535, help="Port of MLflow's server.")] = 5000,
    at_once: Annotated[int, typer.Option("--at-once", min=1, max=64, help="Most runs at once of a worker without a GPU.")] = 2,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start a Prefect server, an MLflow server and workers on this machine, deploy everything, and print the two addresses."""
    from flows.services.processes import FOLDER, Services, start, wait_for
    from tasks._tracking import PAGES

    place = prepare(workspace)
    (place / FOLDER).mkdir(exist_ok=True, mode=0o700)
    services = Services.of(place)
    environment = {**QUIET_OTHERS, **PREFECT_ENVIRONMENT, "PREFECT_HOME": str(place / "prefect"), "E2UREC_WORKSPACE": str(place)}
    # A worker's log tells what a flow run says; of other packages it keeps their own level.
    environment.pop("MLFLOW_LOGGING_LEVEL")
    if services.named("prefect") is None:
        address = _free(prefect_port, "--prefect-port")
        api = {"PREFECT_UI_API_URL": f"{address}/api", "PREFECT_SERVER_UI_API_URL": f"{address}/api"}
        line = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)]
        services = services.with_one(start(place, "prefect", line, {**environment, **api}, address))
        services.note(place)
    if services.named("mlflow") is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        address = _free(mlflow_port, "--mlflow-port")
        services = services.with_one(_mlflow(place, mlflow_port, environment, address))
        services.note(place)
    prefect, mlflow = services.named("prefect"), services.named("mlflow")
    assert prefect is not None
    wait_for(prefect, "/api/health", place, UP_WITHIN_S)
    if mlflow is not None:
        # Runs write into the database itself, so that an erasure reaches its bytes; the server shows it.
        environment[PAGES] = mlflow.address
    environment["PREFECT_API_URL"] = os.environ["PREFECT_API_URL"] = f"{prefect.address}/api"
    from flows.services.setting_up import set_up
    from flows.services.workers import workers

    set_up(Path(__file__).resolve().parents[1], environment, at_once)
    for worker in workers(at_once):
        if services.named(worker.name) is None:
            services = services.with_one(start(place, worker.name, worker.line, {**environment, **worker.environment}))
            services.note(place)
    if mlflow is not None:
        wait_for(mlflow, "/health", place, UP_WITHIN_S)
    told = {"prefect": prefect.address, "mlflow": mlflow.address if mlflow else shown(os.environ["MLFLOW_TRACKING_URI"])}
    if as_json:
        print(json.dumps(told, indent=2))
        return
    for name, address in told.items():
        print(f"{name:<8} {address}")
    print("hint: e2urec stop")


def stop(workspace: Workspace = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """End the servers and workers that `e2urec serve` started here, and nothing else; runs at work go on when it is called again."""
    from flows.services.processes import Services, end
    from tasks._journal import place_of

    place = place_of(workspace)
    services = Services.of(place)
    ended = []
    # Workers first: what they do last is told to the servers.
    for service in reversed(services.services):
        end(service)
        ended.append(service.name)
        services = Services(services=tuple(each for each in services.services if each.name != service.name))
        services.note(place)
    if as_json:
        print(json.dumps({"ended": ended}))
    else:
        print(f"ended: {', '.join(ended)}" if ended else "nothing is served here")


def _mlflow(place: Path, port: int, environment: dict[str, str], address: str) -> Service:
    from flows.services.processes import start
    from tasks._tracking import Tracker

    tracker = Tracker(place)
    # Makes the database, under a lock: of several processes that open a new one, some die.
    assert tracker.client is not None
    line = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    line += ["--backend-store-uri", tracker.address, "--default-artifact-root", (place / "mlartifacts").as_uri()]
    return start(place, "mlflow", line, {**environment, **MLFLOW_ENVIRONMENT}, address)


def _free(port: int, flag: str) -> str:
    """The address of a port on which nobody listens."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServiceFailed(
                f"port {port} of {HOST} cannot be taken: {error.strerror}",
                hint=f"name another one with `{flag}`, or end what listens there",
            ) from None
    return f"http://{HOST}:{port}"
