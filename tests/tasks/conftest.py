"""A room without MLflow, and Prefect with a database of its own, so that stages can be run one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tasks._room import Room


class QuietTracker:
    """Takes what stages track and remembers which were tracked, and how they ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.tags: dict[str, str] = {}

    @contextmanager
    def stage(self, label: str) -> Iterator[tuple[Any, dict[str, str]]]:
        from tasks._tracking import StageMetrics

        try:
            yield StageMetrics(), self.tags
        except BaseException:
            self.ended.append((label, "FAILED"))
            raise
        self.ended.append((label, "FINISHED"))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A fresh workspace with a run that has just begun; stages find it by themselves."""
    from e2urec_core.store import Store
    from tasks._journal import Journal
    from tasks._room import ROOM, Room

    tracker: Any = QuietTracker()
    room = Room(tmp_path, Store(tmp_path / "store"), Journal.start(tmp_path / "runs", "toy", {"seed": 0}), tracker)
    token = ROOM.set(room)
    yield room
    ROOM.reset(token)


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect's server on a database that goes with the session."""
    os.environ.setdefault("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
