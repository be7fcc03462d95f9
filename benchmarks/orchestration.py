"""What Prefect, MLflow and the command cost beside the stages' own work: wall-clock time of a run less the seconds of its stages.

Rival: the stages alone. The same run of the sample in an empty workspace, once as a command with the server that it starts itself, once as
a deployment's run by a worker of `e2urec serve`, from the request for a run to its end; a run with other rows warms both workspaces.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measuring import emit, machine, progress
from benchmarks.ours import rounded
from benchmarks.problem import workspace
from flows.runs import build_run

WORDS = {"dataset": "sample", "backbone": "tiny-t5", "method": "e2urec"}
QUICK = {"dataset.num-users": "80", "training.num-epochs": "1"}
ASK_EVERY_S = 0.2
COMMAND = (sys.executable, "-m", "flows.cli")


def stage_seconds(place: Path) -> float:
    """Seconds that the stages of the newest run took."""
    newest = max((place / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return sum(float(entry["seconds"]) for entry in json.loads(newest.read_bytes())["stages"].values())


def by_command(place: Path, flags: Mapping[str, str]) -> float:
    """Wall-clock seconds of the run as a command."""
    words = [
        "unlearn",
        *WORDS.values(),
        "--json",
        "--workspace",
        str(place),
        *(word for name, value in flags.items() for word in (f"--{name}", value)),
    ]
    started = time.perf_counter()
    subprocess.run([*COMMAND, *words], env=_environment(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def deployed(address: str, flags: Mapping[str, str]) -> float:
    """Wall-clock seconds of the run as a deployment's."""
    with httpx.Client(base_url=f"{address}/api", timeout=60) as server:
        deployment = server.get("/deployments/name/unlearn/unlearn").raise_for_status().json()["id"]
        asked = {"parameters": {"run": build_run(WORDS, None, flags).canonical()}}
        started = time.perf_counter()
        run = server.post(f"/deployments/{deployment}/create_flow_run", json=asked).raise_for_status().json()["id"]
        while (state := server.get(f"/flow_runs/{run}").raise_for_status().json()["state_type"]) != "COMPLETED":
            assert state not in ("FAILED", "CRASHED", "CANCELLED"), f"the deployment's run is {state}"
            time.sleep(ASK_EVERY_S)
        return time.perf_counter() - started


@contextmanager
def served(place: Path) -> Iterator[str]:
    """The address of a Prefect server with a worker, in a workspace."""
    ports = [word for name in ("prefect", "mlflow") for word in (f"--{name}-port", str(_free_port()))]
    told = subprocess.run(
        [*COMMAND, "serve", "--json", "--workspace", str(place), *ports], env=_environment(), stdout=subprocess.PIPE, check=True
    )
    try:
        yield str(json.loads(told.stdout)["prefect"])
    finally:
        subprocess.run([*COMMAND, "stop", "--workspace", str(place)], env=_environment(), stdout=subprocess.DEVNULL, check=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description="Wall-clock time beside the stages' own work.")
    parser.add_argument("--quick", action="store_true", help="Few rows, one run: tells whether the benchmark works, and no more.")
    parser.add_argument("--only-command", action="store_true", help="Leave the deployment out, and with it servers and a worker.")
    parser.add_argument("--repeats", type=int, help="Runs of each kind.")
    told = parser.parse_args(arguments)
    flags, measured = QUICK if told.quick else {}, list[dict[str, float]]()
    with workspace(None) as scratch:
        for number in range(told.repeats or (1 if told.quick else 3)):
            run: dict[str, float] = {}
            own = scratch / f"own-{number}"
            by_command(own, {**QUICK, "seed": "99"})
            run["command"] = by_command(own, flags)
            run["command_stages"] = stage_seconds(own)
            if not told.only_command:
                place = scratch / f"served-{number}"
                with served(place) as address:
                    deployed(address, {**QUICK, "seed": "99"})
                    run["deployed"] = deployed(address, flags)
                    run["deployed_stages"] = stage_seconds(place)
            measured.append(run)
            progress("  " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.items()))
    result: dict[str, Any] = {"quick": told.quick, "measured": measured, "machine": machine()}
    for kind in ("command", "deployed"):
        pairs = [(run[kind], run[f"{kind}_stages"]) for run in measured if kind in run]
        result[f"{kind}_overhead_seconds"] = statistics.median(wall - stages for wall, stages in pairs) if pairs else None
        result[f"{kind}_ratio"] = statistics.median(wall / stages for wall, stages in pairs) if pairs else None
    emit(rounded(result))
    return 0


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "E2UREC_"))}
    return {**kept, "OMP_NUM_THREADS": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
