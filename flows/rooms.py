"""Opens the workspace for a run: store, journal, tracker; closes them whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from e2urec_core.artifacts import Interactions
from e2urec_core.data.appending import read_counts
from e2urec_core.data.places import PARTS
from e2urec_core.errors import StorageFailed, UnknownRun
from e2urec_core.plugins import word
from e2urec_core.settings import Settings
from flows.runs import Run
from flows.surroundings import quiet_others
from tasks._crew import Crew
from tasks._journal import Journal, here, place_of
from tasks._log import about
from tasks._pool import Pool
from tasks._ray_crew import RayCrew
from tasks._room import CHAPTER, ROOM, Mode, Room, StoryEnds
from tasks._shown import introduce
from tasks._stores import journals_of, store_of, store_to_read
from tasks._tracking import Tracker


@contextmanager
def open_room(
    settings: Settings, words: Sequence[str], workspace: str | Path | None, run: Run | None = None, *, in_processes: bool = False
) -> Iterator[Room]:
    """A new run in the workspace.

    Args:
        settings: Everything that decides what it gives.
        words: What its name begins with.
        workspace: The workspace's folder.
        run: Says where stages that train or score run, where there are any.
        in_processes: Whether they take turns in child processes even where none runs beside another.

    Raises:
        StorageFailed: The workspace cannot be written.
        BadSetting: No Ray cluster answers, where one is asked for.
    """
    # A flow run of a worker has not come through the command.
    quiet_others()
    place = place_of(workspace)
    store = store_of(place)
    journal = journals_of(place).start("-".join(map(word, words)), settings.canonical())
    room = Room(place, store, journal, Tracker(place), execution=run.execution if run else "inline")
    with _inside(room, settings), _crew(run, in_processes=in_processes) as room.crew:
        introduce(room, _tags(settings))
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
        if CHAPTER.get():
            return "use"
        if name == stage:
            return "force"
        return "recorded" if order.index(name) < at else "compare"

    journal.change(settings=run.canonical())
    with _inside(Room(place, store_of(place), journal, Tracker(place), mode, run.execution), run) as room, _crew(run) as room.crew:
        yield room


def _crew(run: Run | None, *, in_processes: bool = False) -> AbstractContextManager[Crew | None]:
    if run is not None and run.fan_out == "ray":
        return RayCrew(run.parallel, run.threads)
    return Pool(run.parallel) if run is not None and (in_processes or run.parallel > 1) else nullcontext()


@contextmanager
def _inside(room: Room, settings: Settings) -> Iterator[Room]:
    with about(run=room.journal.record.run), _tracked(room, settings):
        yield room


@contextmanager
def _tracked(room: Room, settings: Settings) -> Iterator[Room]:
    from prefect.runtime import flow_run

    journal, token = room.journal, ROOM.set(room)
    room.tracker.start(journal.record.run, settings.canonical(), flow_run.id or "")
    journal.change(**here(), state="running", tracking_run=room.tracker.run_id)
    try:
        yield room
    except StoryEnds:
        journal.change(state="unfinished")
        room.tracker.finish("FINISHED")
        return
    except BaseException:
        with suppress(StorageFailed):
            journal.change(state="failed")
        room.tracker.finish("FAILED")
        raise
    finally:
        ROOM.reset(token)
    journal.change(state="stale" if room.stale else "completed", tracking_run=room.tracker.run_id)
    room.tracker.finish("FINISHED")
    room.tracker.settle()


def _tags(settings: Settings) -> list[str]:
    """The dataset and the methods of a run, a comparison, a night or a search."""
    run: Any = getattr(settings, "run", settings)
    if not hasattr(run, "dataset"):
        return []
    several = getattr(settings, "ladder", None) or [run.method]
    names = [entry.name for entry in settings.methods] if hasattr(settings, "methods") else [word(method.kind) for method in several]
    return [f"dataset:{word(run.dataset.kind)}", *(f"method:{name}" for name in names)]


def earlier_interactions(room: Room, run: Run) -> Interactions | None:
    """The stored interactions to which a settled run appends, if any; whether they are still there shows when they are opened."""
    onto = run.ingest.onto
    found = (handle for handle in room.store.all(Interactions) if handle.digest == onto)
    return next(found, Interactions(digest=onto)) if onto else None


def settled(run: Run, workspace: str | Path | None) -> Run:
    """The run with the digest in the place of `latest` or of a digest's first letters, so that it means the same tomorrow.

    Raises:
        UnknownRun: The workspace holds no such interactions, or several.
    """
    onto = run.ingest.onto
    if not onto:
        return run
    store = store_to_read(place_of(workspace))
    stored = store.all(Interactions)
    if onto == "latest":
        of_the_same = (handle for handle in stored if read_counts(store.open(handle, apart_from=PARTS))["dataset"] == run.dataset.kind)
        found = list(islice(of_the_same, 1))
    else:
        found = [handle for handle in stored if handle.digest.startswith(onto)]
    if len(found) != 1:
        raise UnknownRun(
            f"{len(found):,} of {len(stored):,} stored interactions are `{onto}`",
            facts={"stored, newest first": ", ".join(handle.short for handle in stored[:8]) or "none"},
            hint="name one of them with `--ingest.onto`, or leave it out to start anew",
        )
    return run.model_copy(update={"ingest": run.ingest.model_copy(update={"onto": found[0].digest})})
