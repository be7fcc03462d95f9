"""Removes from a workspace what nobody needs: artifacts, what remembers them, and what dead runs have left.

What the champion, a rollback, an open request or a young run needs stays, with all that it was made from; so do rows that further files
are appended to. Everything else is made again if it is asked for. Each removal is whole; cut off anywhere, the next call goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import Interactions
from e2urec_core.deletion import removal
from e2urec_core.deletion.garbage import Fate, Stored, bytes_below, fates, measured, with_ancestors
from e2urec_core.disk import storage_errors
from e2urec_core.errors import UnknownRun
from e2urec_core.failpoints import failpoint
from e2urec_core.ledger.request_records import IN_FLIGHT
from e2urec_core.store import Store
from tasks._desk import Desk
from tasks._journal import RunRecord
from tasks._snapshot import snapshot_of
from tasks._stores import journals_of
from tasks.erase import NIGHT

if TYPE_CHECKING:
    from e2urec_core.ledger.records import ReleaseRecord

DAY_S = 86_400
CHAMPION, PREVIOUS, OPEN, RUNNING = "the champion", "the champion before", "an open request", "a run that works"
YOUNG, SOURCE = "younger than --keep-days", "the newest rows, or rows that were appended"


@dataclass(frozen=True)
class Collection:
    """What is to be removed from a workspace, and what stays.

    Args:
        fates: Of every artifact, oldest first.
        strange: Old folders of the store that no manifest vouches for.
        checkpoints: Old states of stages that have not ended.
        pages: Folders of pages of dead runs.
        over: Bytes by which the artifacts stay above the budget; 0 where they do not.
    """

    fates: tuple[Fate, ...]
    strange: tuple[Path, ...]
    checkpoints: tuple[Path, ...]
    pages: tuple[Path, ...]
    over: int

    @property
    def others(self) -> dict[str, tuple[Path, ...]]:
        """What goes beside artifacts, by what it is called."""
        return {"folders of no artifact": self.strange, "states of dead runs": self.checkpoints, "pages of dead runs": self.pages}

    @property
    def num_bytes(self) -> int:
        """Bytes that are freed."""
        return sum(fate.num_bytes for fate in self.fates if fate.goes) + bytes_below(path for each in self.others.values() for path in each)


def plan(desk: Desk, *, keep_days: float, budget: int | None, now_s: float) -> Collection:
    """What would be removed; nothing is.

    Args:
        desk: Of the workspace; its ledger says what is needed.
        keep_days: Days for which everything is kept that a run has made or used.
        budget: Bytes that the store's artifacts may take; none removes whatever is not needed.
        now_s: The time, seconds since 1970.

    Raises:
        UnknownRun: It is not known which data the champion stands on.
        DamagedLedger: The ledger cannot be read.
    """
    young_s, store = now_s - keep_days * DAY_S, desk.store
    stored = measured(store, removal.everything(store))
    needed = _needed(desk, young_s)
    for digest in _of_sources(stored):
        needed.setdefault(digest, SOURCE)
    for each in stored:
        if each.published_s > young_s:
            needed.setdefault(each.handle.digest, YOUNG)
    told = fates(stored, with_ancestors(stored, needed), budget)
    taken = sum({file: size for fate in told if not fate.goes for file, size in fate.stored.files.items()}.values())
    records = journals_of(desk.workspace).all()
    dead = {each.run for each in records if each.state == "failed" and NIGHT not in each.settings}
    return Collection(
        fates=tuple(told),
        strange=tuple(path for path in removal.strange_folders(store) if path.exists() and _newest_s(path) <= young_s),
        checkpoints=() if OPEN in needed.values() else tuple(_old(store.checkpoints, young_s)),
        pages=tuple(path for path in _old(desk.workspace / "reports", young_s) if path.name in dead),
        over=max(0, taken - budget) if budget is not None else 0,
    )


def carry_out(store: Store, collection: Collection, guard: Callable[[], None] = lambda: None) -> None:
    """Remove what a plan says.

    Args:
        store: Of the workspace.
        collection: The plan.
        guard: Raises where another run has taken over; asked before every step.

    Raises:
        StorageFailed: The disk refuses; the same again goes on.
    """
    going = [removal.folder_of(store, fate.stored.handle) for fate in collection.fates if fate.goes]
    for path in (*going, *collection.strange):
        guard()
        removal.remove(store, path)
    guard()
    failpoint("gc.tidy")
    removal.drop_keys(store)
    with storage_errors(store.root):
        for path in (*collection.checkpoints, *collection.pages):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            failpoint("gc.file")


def _needed(desk: Desk, young_s: float) -> dict[str, str]:
    """Why artifacts must stay, by digest; the strongest reason."""
    told: dict[str, str] = {}
    line = desk.releases.line()
    if line.champion:
        told |= dict.fromkeys(_of_release(desk, desk.releases.release(line.champion)), CHAMPION)
    if line.previous:
        before = desk.releases.release(line.previous)
        try:
            told = dict.fromkeys(_of_release(desk, before), PREVIOUS) | told
        except UnknownRun:
            # Its data were erased or lost.
            told.setdefault(before.bundle, PREVIOUS)
    runs = {record.run: record for record in journals_of(desk.workspace).all()}
    for digest in _of_requests(desk, runs):
        told.setdefault(digest, OPEN)
    for record in runs.values():
        # One of another machine may be alive: from here it cannot be told.
        why = RUNNING if record.state == "running" else YOUNG if _changed_s(desk.workspace, record) > young_s else ""
        for digest in _of_run(record) if why else ():
            told.setdefault(digest, why)
    return told


def _of_release(desk: Desk, release: ReleaseRecord) -> Iterator[str]:
    data = snapshot_of(desk.workspace, desk.store, desk.ledger, release.bundle, release.run)
    yield from (release.bundle, release.model, *(each.digest for each in (data.rows, data.examples, data.tokens, data.request) if each))


def _of_requests(desk: Desk, runs: dict[str, RunRecord]) -> Iterator[str]:
    """What nights have made for requests that they have not carried out yet."""
    from e2urec_core.ledger.requests import Requests

    for each in Requests(desk.ledger).requests():
        if each.state in IN_FLIGHT:
            yield from (digest for digest in (each.model, each.release) if digest)
            yield from _of_run(runs[each.run]) if each.run in runs else ()


def _of_sources(stored: Sequence[Stored]) -> Iterator[str]:
    """Interactions that later files are appended to: read piece by piece, they may be all that is left of their sources."""
    rows = [each.handle for each in stored if isinstance(each.handle, Interactions)]
    appended_to = {parent for each in rows for parent in each.parents}
    yield from (each.digest for each in rows if each.parents and each.digest not in appended_to)
    yield from (each.digest for each in rows[-1:])


def _of_run(record: RunRecord) -> Iterator[str]:
    yield from (artifact.digest for entry in record.stages.values() if (artifact := entry.artifact()) is not None)


def _changed_s(workspace: Path, record: RunRecord) -> float:
    return (workspace / "runs" / f"{record.run}.json").stat().st_mtime


def _old(folder: Path, young_s: float) -> Iterator[Path]:
    return (path for path in sorted(folder.glob("*")) if _newest_s(path) <= young_s)


def _newest_s(path: Path) -> float:
    return max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
