"""Runs a stage in processes of its own, so that what kills it kills that stage alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from e2urec_core import errors
from e2urec_core.errors import ProcessDied, UserError
from e2urec_core.settings import Seat
from e2urec_core.stage_file import StageFile

# Seconds that processes are given to end by themselves.
GRACE_S = 10.0
# What torch's launcher tells the processes it starts.
LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
# torch's launcher, which says nothing of a worker that has ended: the worker itself has said what there is to say.
LAUNCHER = """
import logging, sys
from torch.distributed.run import main

QUIET, shown = ("ChildFailedError", "SignalException"), sys.excepthook
sys.excepthook = lambda kind, *error: None if kind.__name__ in QUIET else shown(kind, *error)
logging.disable(logging.ERROR)
main()
"""


def perform_apart(
    name: str,
    arguments: Mapping[str, Any],
    seat: Seat,
    place: Path,
    checkpoints: Path,
    watch: Callable[[int, int, str, Mapping[str, float]], None],
) -> int:
    """Run the core's stage function `name` in a process group of its own; returns its rows.

    Args:
        name: Function of `e2urec_core/stages.py`.
        arguments: Its arguments, folders opened.
        seat: Where and how; with several processes, torch's launcher starts them.
        place: Folder to write into.
        checkpoints: Folder of what an unfinished stage keeps.
        watch: Told how far the stage is.

    Raises:
        UserError: What the function raised.
        ProcessDied: A process ended without saying why.
    """
    file = place.parent / f"{place.name}.json"
    file.write_text(StageFile.of(name, arguments, seat, place, checkpoints).model_dump_json())
    command = [sys.executable, "-W", "ignore"]
    if seat.processes > 1:
        command += ["-c", LAUNCHER, "--standalone", "--nproc-per-node", str(seat.processes)]
    command += ["-m", "e2urec_core.run", str(file), "--events", "--tied"]
    threads = str(seat.threads)
    # A launcher around the flow is none of the stage's.
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**inherited, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"},
    )
    try:
        return _followed(process, name, watch)
    finally:
        _end(process)
        file.unlink(missing_ok=True)


def _followed(process: subprocess.Popen[str], name: str, watch: Callable[[int, int, str, Mapping[str, float]], None]) -> int:
    assert process.stdout is not None
    rows, fault, crash = None, None, ""
    for line in process.stdout:
        event = _event(line)
        if "done" in event:
            watch(event["done"], event["total"], event["unit"], event["numbers"])
        elif "fault" in event:
            fault = _raised(event)
        elif "crash" in event:
            crash = f" ({event['crash']})"
        elif "rows" in event:
            rows = int(event["rows"])
    code = process.wait()
    if fault is not None:
        raise fault
    if code != 0 or rows is None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise ProcessDied(
            f"the process of `{name.replace('_', '-')}` ended with {how}{crash}",
            hint="signal 9 is often the system's answer to a lack of memory; the stage goes on from its last checkpoint when run again",
        )
    return rows


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _raised(event: Mapping[str, Any]) -> UserError:
    kind = getattr(errors, str(event["fault"]), UserError)
    assert issubclass(kind, UserError), event["fault"]
    raised: UserError = kind(event["fact"], hint=event["hint"], facts=event["facts"])
    return raised


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            break
    # What the launcher started may outlive it by a moment.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
