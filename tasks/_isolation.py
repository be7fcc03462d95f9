"""Runs a stage in processes of its own, so that what kills it kills that stage alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from e2urec_core import errors
from e2urec_core.errors import ProcessDied, UserError
from e2urec_core.settings import Seat
from e2urec_core.stage_file import StageFile
from tasks._crew import Watch

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
    watch: Watch,
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
    process = started(command, seat.threads)
    try:
        return _followed(process, name, watch)
    finally:
        end(process)
        file.unlink(missing_ok=True)


def started(command: list[str], threads: int) -> subprocess.Popen[str]:
    """A process group of its own that hears and is heard through pipes."""
    # A launcher around the flow is none of the stage's.
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**inherited, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
    )


def _followed(process: subprocess.Popen[str], name: str, watch: Watch) -> int:
    assert process.stdout is not None
    rows, crash = heard(process.stdout, watch)
    for _ in process.stdout:
        pass
    code = process.wait()
    if code != 0 or rows is None:
        raise died(name, code, crash)
    return rows


def heard(lines: Iterable[str], watch: Watch) -> tuple[int | None, str]:
    """What a stage's process says up to its last word: its rows, or None and how it crashed, if it said so.

    Raises:
        UserError: The process has refused or stopped the stage.
    """
    for line in lines:
        event = _event(line)
        if "done" in event:
            watch(event["done"], event["total"], event["unit"], event["numbers"])
        elif "fault" in event:
            raise _raised(event)
        elif "crash" in event:
            return None, f" ({event['crash']})"
        elif "rows" in event:
            return int(event["rows"]), ""
    return None, ""


def died(name: str, code: int, crash: str) -> ProcessDied:
    """The error for a process that ended with `code` and without the rows of its stage."""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return ProcessDied(
        f"the process of `{name.replace('_', '-')}` ended with {how}{crash}",
        hint="signal 9 is often the system's answer to a lack of memory; the stage goes on from its last checkpoint when run again",
    )


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


def end(process: subprocess.Popen[str]) -> None:
    """End a process group, at first politely."""
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
