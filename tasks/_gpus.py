"""Keeps one stage to a GPU, whoever started it: commands, workers and nights of one machine wait for each other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from e2urec_core.settings import Seat
from tasks._progress import say

GPU_TAG = "gpu"
"""Tag of task runs that work on a GPU; Prefect's limit of that tag keeps as many of them as there are GPUs."""
DRIVER = Path("/proc/driver/nvidia/gpus")


def visible_gpus() -> list[str]:
    """Names of the GPUs of this machine that this process may use, as `CUDA_VISIBLE_DEVICES` has them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = visible.split(",") if visible is not None else map(str, range(len(list(DRIVER.glob("*")))))
    return [each.strip() for each in named if each.strip()]


def num_gpus() -> int:
    """How many these are; 1 where there are none, so that limits can be set."""
    return len(visible_gpus()) or 1


@contextmanager
def gpus_for(seat: Seat, title: str) -> Iterator[None]:
    """Within, no other stage of this machine works on the GPUs that a stage works on; one on CPUs has nothing to wait for.

    A kernel's lock, so that it is free the moment its process is gone; Prefect's own limits keep a killed run's place for minutes.
    """
    if seat.device != "cuda":
        yield
        return
    from filelock import FileLock, Timeout

    with ExitStack() as held:
        # A stage in one process takes the first GPU; in order, so that two stages of several processes never wait for each other.
        for number in range(seat.processes):
            lock = FileLock(_place(number))
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                say(f"{title} waits for GPU {number}, on which another stage is at work")
                held.enter_context(lock.acquire())
        yield


def _place(number: int) -> Path:
    """The lock of a GPU: one for all that a user runs on this machine; others' files in a shared folder may not be opened."""
    visible = visible_gpus()
    return Path(tempfile.gettempdir()) / f"e2urec-{os.getuid()}-gpu-{visible[number] if number < len(visible) else number}.lock"
