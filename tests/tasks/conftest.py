"""A room without MLflow, and Prefect with a database of its own, so that stages can be run one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
        self.points: list[tuple[str, float, int]] = []

    @contextmanager
    def stage(self, label: str) -> Iterator[tuple[Any, dict[str, str]]]:
        from tasks._tracking import StageMetrics

        metrics = StageMetrics()
        try:
            yield metrics, self.tags
        except BaseException:
            self.ended.append((label, "FAILED"))
            raise
        finally:
            metrics.write(self, "run")
        self.ended.append((label, "FINISHED"))

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        """Take numbers as MLflow's client does."""
        self.points += [(point.key, point.value, point.step) for point in metrics]


@contextmanager
def opened(place: Path) -> Iterator[Room]:
    from e2urec_core.store import Store
    from tasks._journal import Journal
    from tasks._room import ROOM, Room

    tracker: Any = QuietTracker()
    room = Room(place, Store(place / "store"), Journal.start(place / "runs", "toy", {"seed": 0}), tracker)
    token = ROOM.set(room)
    try:
        yield room
    finally:
        ROOM.reset(token)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A fresh workspace with a run that has just begun; stages find it by themselves."""
    with opened(tmp_path) as room:
        yield room


@pytest.fixture(scope="session")
def room_in() -> Callable[[Path], AbstractContextManager[Room]]:
    """Opens a room with a new run in a folder, which may hold a store: `with room_in(folder) as room`."""
    return opened


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect's server on a database that goes with the session."""
    os.environ.setdefault("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
