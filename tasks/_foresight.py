"""What would become of each stage of a story if it were told now, without running any: taken from the store, or made, and why.

The story itself is told, by the same functions as ever, in a room with a `Foresight`. Where a stage asks there, its key is looked up. What
is not in the store is stood in for: by what the stage gave before, if it did, so that later stages can be asked whether they would be
taken from the store if it came out equal. Whatever has to be read and would have to be made first ends the story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from e2urec_core.artifacts import Artifact, digest_of
from e2urec_core.settings import Settings
from e2urec_core.shared_store import SharedStoreToRead
from e2urec_core.stage_record import StageRecord
from e2urec_core.store import Store
from e2urec_core.store_to_read import StoreToRead
from tasks._differences import SHOWN, Reason, code_differences, differences
from tasks._journal import Journal, RunRecord, StageEntry
from tasks._keys import code_files
from tasks._room import StoryEnds
from tasks._stores import address_of, remote_of

A = TypeVar("A", bound=Artifact)
State = Literal["stored", "run", "depends"]
# What `made_by` begins with in the handle of a stand-in, before the title of the stage.
TO_BE_MADE = "to be made by "


class Foreseen(Settings):
    """What would become of one stage."""

    stage: str
    """Its title in the journal."""
    state: State
    """Taken from the store; run; or taken from the store if everything that is made before it comes out as it was, else run."""
    kind: str
    """Kind of the artifact that it gives."""
    digest: str = ""
    """Of the artifact that is taken from the store."""
    reasons: tuple[Reason, ...] = ()
    """Why it is not simply taken from the store."""


@dataclass(frozen=True)
class Earlier:
    """The stage that a foreseen one is held against.

    Args:
        record: What the store remembers of it.
        handle: What it gave.
        fault: Why there is nothing to remember.
    """

    record: StageRecord | None = None
    handle: Artifact | None = None
    fault: str = ""


class _Foreseen(Store):
    """Refuses to open what would have to be made first."""

    def open(self, handle: Artifact, *, apart_from: str = "") -> Path:
        """See `Store.open`.

        Raises:
            StoryEnds: The artifact would have to be made first.
        """
        if title := awaited_from(handle):
            raise StoryEnds(title)
        return super().open(handle, apart_from=apart_from)


class ForeseenStore(_Foreseen, StoreToRead):
    """A store in which what would have to be made first cannot be opened."""


class ForeseenSharedStore(_Foreseen, SharedStoreToRead):
    """The same for a shared one."""


def foreseen_store(workspace: Path) -> ForeseenStore | ForeseenSharedStore:
    """The store of a workspace to foresee in."""
    remote = remote_of(workspace)
    return ForeseenStore(Path(address_of(workspace))) if remote is None else ForeseenSharedStore(remote)


class UnsavedJournal(Journal):
    """A journal that is kept in memory alone."""

    def save(self) -> None:
        """Write nothing."""


class Foresight:
    """Looks stages up, and notes what would become of them."""

    def __init__(
        self,
        store: ForeseenStore | ForeseenSharedStore,
        journal: UnsavedJournal,
        earlier: Callable[[str, type[Artifact]], Earlier],
        sections: Mapping[type[Any], str],
    ) -> None:
        """Look into a store.

        Args:
            store: Where stages are looked up.
            journal: Told of them, so that the story finds there what a stage took.
            earlier: The stage that one is held against, by its title and the kind that it gives.
            sections: What the settings of a class are called in a run, where that is not the name of a stage's argument.
        """
        self._store, self._journal, self._earlier, self._sections = store, journal, earlier, sections
        self.stages: list[Foreseen] = []
        self.ends_at = ""

    def look(self, title: str, writes: type[A], given: Mapping[str, Any], parts: Mapping[str, Any]) -> A:
        """Foresee a stage; returns what it gives or, where that has to be made, what stands in for it.

        Args:
            title: Of the stage, in the journal.
            writes: Kind of the artifact.
            given: The arguments that decide what it gives.
            parts: Of its key.
        """
        key = digest_of(parts)
        known = self._store.record(key)
        damage = self._store.damage(writes.model_validate(known.handle)) if known else None
        awaited = {name: stages for name, value in given.items() if (stages := _stages_awaited(value))}
        if known and not damage and not awaited:
            handle = writes.model_validate(known.handle)
            self.stages.append(Foreseen(stage=title, state="stored", kind=writes.kind, digest=handle.digest))
            self._journal.note(title, StageEntry(state="cached", key=key, seconds=known.seconds))
            return handle
        earlier = self._earlier(title, writes)
        reasons = list(self._differences(earlier, given, parts, awaited))
        if known and damage:
            text = f"its artifact {known.handle['digest'][:SHOWN]} is not whole: {damage}"
            reasons.append(Reason(about="artifact", name=title, before=known.handle["digest"], text=text))
        reasons += [self._awaits(name, stage) for name, stages in awaited.items() for stage in stages]
        if not reasons:
            text = "no such artifact was made" if earlier.record else "the record of what it gave is not in the store any more"
            reasons.append(Reason(about="artifact", name=title, text=text))
        state: State = "depends" if known and not damage else "run"
        self.stages.append(Foreseen(stage=title, state=state, kind=writes.kind, reasons=tuple(reasons)))
        self._journal.note(title, StageEntry(state="unfinished", key=key))
        before = writes.model_validate(known.handle) if known else earlier.handle or writes(digest=key)
        assert isinstance(before, writes)
        return before.model_copy(update={"made_by": TO_BE_MADE + title})

    def awaits(self, handle: Artifact) -> bool:
        """Whether a handle is a stand-in."""
        return bool(awaited_from(handle))

    def ended(self, at: str, kinds: Mapping[str, str]) -> None:
        """Note that what the stage `at` gives has to be read before the story can go on, and the stages that were not come to.

        Args:
            at: Title of that stage.
            kinds: Titles of all stages that were expected, with the kinds of what they give.
        """
        self.ends_at, told = at, {each.stage for each in self.stages}
        reason = Reason(about="input", name=at, text=f"what `{at}` gives is read before it")
        left = [(title, kind) for title, kind in kinds.items() if title not in told]
        self.stages += [Foreseen(stage=title, state="depends", kind=kind, reasons=(reason,)) for title, kind in left]

    def _awaits(self, name: str, stage: str) -> Reason:
        surely = any(each.stage == stage and each.state == "run" for each in self.stages)
        return Reason(about="input", name=name, text=f"its input `{name}` {'would' if surely else 'may'} be made anew by `{stage}`")

    def _differences(
        self, earlier: Earlier, given: Mapping[str, Any], parts: Mapping[str, Any], awaited: Mapping[str, Any]
    ) -> Iterator[Reason]:
        record = earlier.record
        if record is None:
            if earlier.fault:
                yield Reason(about="artifact", name=parts["stage"], text=earlier.fault)
            return
        if not record.parts:
            yield Reason(about="unknown", name=record.stage, text="what differs is not known: its record is older than the parts of keys")
            return
        prefixes = {name: self._sections[type(value)] for name, value in given.items() if type(value) in self._sections}
        for reason in differences(record.parts, parts, prefixes):
            if reason.name not in awaited:
                yield reason
        if record.parts["code"] != parts["code"]:
            yield from code_differences(self._store.code(record.parts["code"]), code_files(parts["stage"]))


def awaited_from(handle: Artifact) -> str:
    """Title of the stage that would have to make an artifact first, of which this handle is the stand-in; else the empty text."""
    return handle.made_by.removeprefix(TO_BE_MADE) if handle.made_by.startswith(TO_BE_MADE) else ""


def _stages_awaited(value: Any) -> tuple[str, ...]:
    """Titles of the stages that would make what an argument holds."""
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(title for item in value for title in _stages_awaited(item)))
    return (title,) if isinstance(value, Artifact) and (title := awaited_from(value)) else ()


def of_run(store: Store, run: RunRecord) -> Callable[[str, type[Artifact]], Earlier]:
    """Holds every stage against the same one of a run."""

    def earlier(title: str, _writes: type[Artifact]) -> Earlier:
        entry = run.stages.get(title)
        if entry is None:
            return Earlier(fault="the run has not come to it")
        if entry.handle is None:
            return Earlier(fault=f"it {entry.state}: {entry.fault}" if entry.fault else f"it is {entry.state}")
        return Earlier(record=store.record(entry.key), handle=entry.artifact())

    return earlier


def newest(store: Store) -> Callable[[str, type[Artifact]], Earlier]:
    """Holds every stage against the newest one of its title and kind in the store or, if there is none, of its name and kind."""
    records: dict[tuple[str, str], StageRecord] = {}
    for record in store.records().values():
        if record is not None:
            records |= {(name, record.kind): record for name in (record.stage, _named(record.stage))}

    def earlier(title: str, writes: type[Artifact]) -> Earlier:
        record = records.get((title, writes.kind)) or records.get((_named(title), writes.kind))
        if record is None:
            return Earlier(fault="no such stage was run in this workspace")
        return Earlier(record=record, handle=writes.model_validate(record.handle))

    return earlier


def _named(title: str) -> str:
    """Name of the stage that bears a title."""
    return title.split(" ", maxsplit=1)[0]
