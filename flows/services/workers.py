"""Which workers a machine gets: one for everything, or, where there are GPUs, one for each of them and one for the rest."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from flows.services.setting_up import HEARTBEAT_S, POOL
from tasks._gpus import visible_gpus


@dataclass(frozen=True)
class Worker:
    """A worker to be started.

    Args:
        name: What it is called.
        line: Its command.
        environment: What it sees beside that of whoever starts it.
    """

    name: str
    line: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def workers(at_once: int) -> list[Worker]:
    """The workers of this machine.

    Args:
        at_once: Most runs at once of a worker without a GPU.
    """
    gpus = visible_gpus()
    if not gpus:
        return [_worker("worker", at_once)]
    of_gpus = [_worker(f"worker-gpu-{gpu}", 1, "gpu", CUDA_VISIBLE_DEVICES=gpu) for gpu in gpus]
    return [_worker("worker-cpu", at_once, "cpu", CUDA_VISIBLE_DEVICES=""), *of_gpus]


def _worker(name: str, at_once: int, *queues: str, **environment: str) -> Worker:
    line = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", name, "--limit", str(at_once)]
    for queue in queues:
        line += ["--work-queue", queue]
    told = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S), "PREFECT_WORKER_QUERY_SECONDS": "5", **environment}
    return Worker(name, tuple(line), told)
