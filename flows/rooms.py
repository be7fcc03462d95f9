"""Opens the workspace for a run: store, journal, tracker; closes them whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2urec_core.plugins import word
from e2urec_core.store import Store
from flows.runs import Run
from tasks._journal import Journal, here, place_of
from tasks._room import ROOM, Mode, Room, StoryEnds
from tasks._tracking import Tracker


@contextmanager
def open_room(run: Run, workspace: str | Path | None) -> Iterator[Room]:
    """A new run in the workspace.

    Raises:
        StorageFailed: The workspace cannot be written.
    """
    place = place_of(workspace)
    store = Store(place / "store")
    prefix = "-".join(word(kind) for kind in (run.dataset.kind, run.backbone.kind, run.method.kind))
    journal = Journal.start(place / "runs", prefix, run.canonical())
    room = Room(place, store, journal, Tracker(place), execution=run.execution)
    with _inside(room, run):
        yield room


@contextmanager
def reopen_room(journal: Journal, run: Run, stage: str, order: tuple[str, ...], workspace: str | Path | None) -> Iterator[Room]:
    """The room of an earlier run, in which one stage is forced, earlier ones are as recorded and later ones are only compared.

    Args:
        journal: The run's journal.
        run: Its settings, with changes.
        stage: Name of the stage to run again.
        order: Names of all stages in their order.
        workspace: The workspace's folder.
    """
    place = place_of(workspace)
    at = order.index(stage)

    def mode(name: str) -> Mode:
        if name == stage:
            return "force"
        return "recorded" if order.index(name) < at else "compare"

    journal.change(settings=run.canonical())
    with _inside(Room(place, Store(place / "store"), journal, Tracker(place), mode, run.execution), run) as room:
        yield room


@contextmanager
def _inside(room: Room, run: Run) -> Iterator[Room]:
    from prefect.runtime import flow_run

    journal, token = room.journal, ROOM.set(room)
    journal.change(**here(), state="running", tracking_run=room.tracker.start(journal.record.run, run.canonical(), flow_run.id or ""))
    try:
        yield room
    except StoryEnds:
        journal.change(state="unfinished")
        room.tracker.finish("FINISHED")
        return
    except BaseException:
        journal.change(state="failed")
        room.tracker.finish("FAILED")
        raise
    finally:
        ROOM.reset(token)
    journal.change(state="stale" if room.stale else "completed")
    room.tracker.finish("FINISHED")
