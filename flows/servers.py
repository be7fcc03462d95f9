"""Ends Prefect's in-process servers that outlived a killed command: they would keep the workspace's database open for ever."""

from __future__ import annotations

from pathlib import Path

SERVER = "prefect.server.api.server:create_app"
GRACE_S = 5.0


def end_orphans(prefect_home: Path) -> int:
    """End servers on `prefect_home` that the system adopted after their command was killed; returns how many.

    A living command is the parent of its server, so the servers of other runs in the workspace are left alone.
    """
    import psutil

    orphans = []
    for process in psutil.process_iter(["cmdline"]):
        if SERVER not in (process.info["cmdline"] or ()):
            continue
        try:
            parent = process.parent()
            adopted = parent is None or parent.pid == 1
            if adopted and process.environ().get("PREFECT_HOME") == str(prefect_home):
                process.terminate()
                orphans.append(process)
        except psutil.Error:
            continue
    for survivor in psutil.wait_procs(orphans, timeout=GRACE_S)[1]:
        survivor.kill()
    return len(orphans)
