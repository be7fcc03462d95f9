"""What a child process of the tests does: promotes a version until a failpoint ends it."""

from __future__ import annotations

import os
from pathlib import Path

from tasks._desk import Desk


def open_shop(place: Path) -> Desk:
    """The desk of a test's workspace, whose registered model is called `shop`."""
    from e2urec_core.store import Store
    from tasks._tracking import Tracker

    return Desk.open(place, Store(place / "store"), Tracker(place), "shop", "run-1")


def promote_until(place: Path, version: int, point: str) -> None:
    """Promote with a failpoint that kills this process."""
    from tasks.promote import promote

    os.environ["E2UREC_FAILPOINT"] = f"{point}:1:kill"
    promote(open_shop(place), version)
