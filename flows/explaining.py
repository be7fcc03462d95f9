"""Tells a story in foresight: each stage is looked up as it would be asked for, and none is run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from e2urec_core.ledger import ledger_place
from e2urec_core.settings import Seat, Settings
from flows.compare import tell as tell_comparison
from flows.comparison import Comparison
from flows.releasing import judge
from flows.rooms import settled
from flows.runs import Run
from flows.train import tell as tell_training
from flows.unlearn import tell as tell_unlearning
from tasks._foresight import Foresight, UnsavedJournal, foreseen_store, newest, of_run
from tasks._journal import RunRecord
from tasks._room import ROOM, Room, StoryEnds
from tasks._tracking import Tracker

Story = Literal["unlearn", "train", "compare"]
Plan = Run | Comparison


def foresee(plan: Plan, story: Story, place: Path, record: RunRecord | None = None) -> Foresight:
    """What would become of every stage if the story were told now; nothing is run, written or registered.

    Args:
        plan: The settings.
        story: Which one it is.
        place: The workspace's folder, which need not be there.
        record: The earlier run that the stages are held against; without one, each is held against the newest of its title in the store.
    """
    store = foreseen_store(place)
    run = plan.run if isinstance(plan, Comparison) else plan
    sections = {type(value): name for name, value in run if isinstance(value, Settings)} | {Seat: "", dict: ""}
    earlier = of_run(store, record) if record else newest(store)
    record = record or RunRecord(run="", started_at="", state="unfinished", settings={})
    journal = UnsavedJournal(place / "runs", record)
    foresight = Foresight(store, journal, earlier, sections)
    room = Room(place, store, journal, Tracker(place), foresight=foresight)
    token = ROOM.set(room)
    try:
        run = settled(run, place)
        if isinstance(plan, Comparison):
            tell_comparison(plan.model_copy(update={"run": run}))
        else:
            _tell(run, story, room)
    except StoryEnds as end:
        foresight.ended(str(end), {title: entry.kind for title, entry in record.stages.items()})
    finally:
        ROOM.reset(token)
    return foresight


def _tell(run: Run, story: Story, room: Room) -> None:
    if story == "train":
        prepared, candidate = tell_training(run)
    else:
        told = tell_unlearning(run)
        prepared, candidate = told.prepared, told.candidate
    if run.release.then != "nothing":
        with _a_ledger(room):
            judge(run, prepared, candidate)


@contextmanager
def _a_ledger(room: Room) -> Iterator[None]:
    """Within, a workspace without a ledger has an empty one elsewhere: to open one is to make it."""
    place = ledger_place(room.workspace)
    if isinstance(place, Path) and not place.exists():
        with tempfile.TemporaryDirectory() as elsewhere:
            room.workspace = Path(elsewhere)
            yield
    else:
        yield
