"""Ends Prefect's in-process servers that outlived a killed command: they would keep the workspace's database open for ever."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

SERVER = "prefect.server.api.server:create_app"
GRACE_S = 5.0


def end_orphans(prefect_home: Path) -> int:
    """End servers on `prefect_home` that the system adopted after their command was killed; returns how many."""
    import psutil

    ended = []
    for process in orphans(prefect_home):
        with suppress(psutil.Error):
            process.terminate()
            ended.append(process)
    for survivor in psutil.wait_procs(ended, timeout=GRACE_S)[1]:
        survivor.kill()
    return len(ended)


def orphans(prefect_home: Path) -> list[psutil.Process]:
    """The servers on `prefect_home` whose command was killed.

    A living command is the parent of its server, so the servers of other runs in the workspace are left alone.
    """
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        if SERVER not in (process.info["cmdline"] or ()):
            continue
        with suppress(psutil.Error):
            parent = process.parent()
            adopted = parent is None or parent.pid == 1
            if adopted and process.environ().get("PREFECT_HOME") == str(prefect_home):
                found.append(process)
    return found
