"""Servers that a killed command left behind are ended by the next command on the workspace, and no other (FAULTS: row 67)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows.servers import SERVER, end_orphans

# Stands in for Prefect's server: the same word on its command line, the same variable in its environment.
SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)", SERVER]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("did not come about within 10 s")


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[psutil.Process]:
    """A server whose parent is gone."""
    told = tmp_path / "pid"
    starter = f"import os, subprocess; open({str(told)!r}, 'w').write(str(subprocess.Popen({SLEEPER!r}).pid))"
    subprocess.run([sys.executable, "-c", starter], env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")}, check=True)
    process = psutil.Process(int(told.read_text()))
    wait_for(lambda: SERVER in process.cmdline())
    yield process
    if process.is_running():
        process.kill()


def test_an_orphaned_server_of_the_workspace_is_ended(orphan: psutil.Process, tmp_path: Path) -> None:
    if orphan.ppid() != 1:
        # A container may have a subreaper that adopts in place of process 1; then nobody can tell an orphan from a child.
        assert end_orphans(tmp_path / "prefect") == 0
        return
    assert end_orphans(tmp_path / "prefect") == 1
    wait_for(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)


def test_an_orphaned_server_of_another_workspace_is_left_alone(orphan: psutil.Process, tmp_path: Path) -> None:
    assert end_orphans(tmp_path / "other") == 0
    assert orphan.is_running()


def test_the_server_of_a_running_command_is_left_alone(tmp_path: Path) -> None:
    child = subprocess.Popen(SLEEPER, env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")})
    try:
        wait_for(lambda: SERVER in psutil.Process(child.pid).cmdline())
        assert end_orphans(tmp_path / "prefect") == 0
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
