"""What the stages of one run share: the workspace, the journal, the tracker, and which stages are to be run."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from e2urec_core.artifacts import Artifact
from e2urec_core.deletion.removal import folder_of, remove
from e2urec_core.errors import Fenced
from e2urec_core.store import Store
from tasks._crew import Crew
from tasks._journal import Journal
from tasks._tracking import Tracker

if TYPE_CHECKING:
    from tasks._foresight import Foresight

A = TypeVar("A", bound=Artifact)
Mode = Literal["use", "force", "recorded", "compare"]
Execution = Literal["inline", "process"]


def run_everything(stage: str) -> Mode:
    """Take each stage from the store if it was run before, else run it."""
    return "use"


def nobody_else() -> None:
    """Whoever runs is the only one who may."""


@dataclass
class Room:
    """Shared by the stages of one run.

    Args:
        workspace: The workspace's folder, absolute.
        store: Its store.
        journal: What this run did.
        tracker: Its MLflow run.
        mode: What to do with a stage: `use` the store or run it, `force` it to run, take what is `recorded` in the journal, or only
            `compare` its key with the recorded one and call it stale.
        execution: Whether stages that train or score run in this process, or each in one of its own.
        crew: Processes that take turns at such stages; without one, `execution` decides.
        stale: Labels of the stages that were found stale.
        told: Names of the stages that were asked for, in their order.
        foresight: Where it is there, no stage is run: each is looked up, and what would become of it is noted.
        guard: Raises `Fenced` where another run has taken over; asked around everything that is published.
    """

    workspace: Path
    store: Store
    journal: Journal
    tracker: Tracker
    mode: Callable[[str], Mode] = run_everything
    execution: Execution = "inline"
    crew: Crew | None = None
    stale: list[str] = field(default_factory=list)
    told: dict[str, None] = field(default_factory=dict)
    foresight: Foresight | None = None
    guard: Callable[[], None] = nobody_else

    def publish(self, kind: type[A], place: Path, *, parents: tuple[str, ...], rows: int, made_by: str) -> A:
        """Publish a finished folder; see `Store.publish`.

        Raises:
            Fenced: Another run has taken over. What was published just then is taken back: that run may have erased what it is made from.
        """
        self.guard()
        handle = self.store.publish(kind, place, parents=parents, rows=rows, made_by=made_by)
        try:
            self.guard()
        except Fenced:
            remove(self.store, folder_of(self.store, handle))
            raise
        return handle

    def awaits(self, handle: Artifact) -> bool:
        """Whether an artifact is only foreseen, and would have to be made first."""
        return self.foresight is not None and self.foresight.awaits(handle)

    @property
    def reports(self) -> Path:
        """Folder of this run's report."""
        return self.workspace / "reports" / self.journal.record.run


ROOM: ContextVar[Room] = ContextVar("room")
# Tells apart stages of one run that differ in their method, seed or trial only; part of their titles.
CHAPTER: ContextVar[str] = ContextVar("chapter", default="")


class StoryEnds(BaseException):
    """What comes next cannot be told: a rerun has come to a stage that was never reached, or a foreseen artifact would have to be read."""
