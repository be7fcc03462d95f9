"""The workspace that is examined, and what several checks want to know of it, looked at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.ledger import ledger_place, utc_now
from flows.health.asking import Told, ask_version, basic
from flows.health.finding import GIVE_UP_S, Once

if TYPE_CHECKING:
    from e2urec_core.ledger.looking import Glance

MLFLOW, PREFECT = "MLFLOW_TRACKING_URI", "PREFECT_API_URL"
# The parts of a workspace by what keeps them.
PARTS = {"store": "store", "cache": "store", "mlflow.db": "MLflow", "mlartifacts": "MLflow", "prefect": "Prefect"}
COUNTING_S = 4.0


@dataclass
class Contents:
    """What lies in a workspace.

    Args:
        bytes_of: Sizes by what keeps them: `store`, `MLflow`, `Prefect` and `other`.
        num_files: How many files there are.
        newest_s: Newest time of change of a file, seconds since 1970; 0 where there is none.
        whole: Whether all of it was counted in the time allowed.
    """

    bytes_of: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("store", "MLflow", "Prefect", "other"), 0))
    num_files: int = 0
    newest_s: float = 0.0
    whole: bool = True


class Subject:
    """One workspace under examination; nothing of it is changed."""

    def __init__(self, workspace: Path, clock: Callable[[], datetime] = utc_now) -> None:
        """Examine `workspace`, an absolute path that need not exist, by `clock`."""
        self.workspace, self.clock = workspace, clock
        self.ledger = Once(self._ledger)
        self.mlflow = Once(self._mlflow)
        self.prefect = Once(self._prefect)
        self.contents = Once(lambda: contents_of(workspace))

    def _ledger(self) -> Glance | None:
        """What the ledger shows; None where it is a file that is not there yet."""
        place = ledger_place(self.workspace)
        if isinstance(place, Path) and not place.exists():
            return None
        from e2urec_core.ledger.looking import look

        return look(place, self.clock(), GIVE_UP_S)

    def _mlflow(self) -> Told | None:
        """What the tracking server answers; None where there is none, or none that speaks HTTP."""
        address = os.environ.get(MLFLOW, "")
        if not address.startswith(("http://", "https://")):
            return None
        token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
        if user:
            return ask_version(address, "/version", basic(f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"))
        return ask_version(address, "/version", f"Bearer {token}" if token else "")

    def _prefect(self) -> Told | None:
        """What Prefect's server answers; None where every command starts one of its own."""
        address = os.environ.get(PREFECT)
        if not address:
            return None
        password, token = os.environ.get("PREFECT_API_AUTH_STRING"), os.environ.get("PREFECT_API_KEY")
        return ask_version(address, "/admin/version", basic(password) if password else f"Bearer {token}" if token else "")


def contents_of(workspace: Path) -> Contents:
    """Count what lies in a workspace, for at most a few seconds; links are not followed."""
    found, end = Contents(), time.monotonic() + COUNTING_S
    waiting = [workspace]
    while waiting and found.whole:
        try:
            entries = sorted(os.scandir(waiting.pop()), key=lambda entry: entry.name)
        except OSError:
            # Gone meanwhile, or closed to us; what needs it says so.
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            top = path.relative_to(workspace).parts[0]
            # A database's log and journal are called like it.
            kept_by = next((keeper for name, keeper in PARTS.items() if top.startswith(name)), "other")
            found.bytes_of[kept_by] += status.st_size
            found.num_files += 1
            found.newest_s = max(found.newest_s, status.st_mtime)
        found.whole = time.monotonic() < end
    return found
