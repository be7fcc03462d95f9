"""Keeps processes that run one stage after another, so that many short stages pay for importing torch once."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from e2urec_core.errors import UserError
from e2urec_core.settings import Seat, Share
from e2urec_core.stage_file import StageFile
from tasks._crew import Watch, beside
from tasks._isolation import died, end, heard, started


class Pool:
    """Processes that wait for stages; asked by several threads at once, each is at one stage at a time."""

    elsewhere = False

    def __init__(self, size: int) -> None:
        """Use at most `size` processes; they are started when they are needed."""
        self.size, self._free = size, threading.Semaphore(size)
        self._idle: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._idle:
            end(process)

    def perform(
        self, name: str, arguments: Mapping[str, Any], seat: Seat, place: Path, checkpoints: Path, watch: Watch, share: Share | None = None
    ) -> int:
        """See `Crew.perform`."""
        assert seat.processes == 1, "a stage that several processes share is started by torch's launcher"
        file = beside(place, share, "json")
        with self._free:
            process = self._idle.pop() if self._idle else _waiting(seat.threads)
            try:
                file.write_text(StageFile.of(name, arguments, seat, place, checkpoints, share).model_dump_json())
                rows = _asked(process, file, name, watch)
            except UserError:
                # Whoever has refused a stage can run the next one, unless it has died.
                self._keep(process)
                raise
            except BaseException:
                end(process)
                raise
            finally:
                file.unlink(missing_ok=True)
            self._keep(process)
            return rows

    def _keep(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            self._idle.append(process)
        else:
            end(process)


def _waiting(threads: int) -> subprocess.Popen[str]:
    return started([sys.executable, "-W", "ignore", "-m", "e2urec_core.run", "--serve"], threads)


def _asked(process: subprocess.Popen[str], file: Path, name: str, watch: Watch) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    # A process that died since its last stage has closed its end: what it would have said is asked below.
    with contextlib.suppress(OSError):
        process.stdin.write(f"{file}\n")
        process.stdin.flush()
    rows, crash = heard(process.stdout, watch)
    if rows is None:
        raise died(name, process.wait(), crash)
    return rows
