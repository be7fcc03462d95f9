"""Erases everything that was made from people who are forgotten, once the recommender that has forgotten them is the champion.

Nothing is trusted to say that it is clean: what cannot show from its lineage that it was made without them goes. Data are rewritten row
by row. Each step may be cut off and is found again by the next night; what was found and erased is written down before it goes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e2urec_core.artifacts import Artifact, Interactions
from e2urec_core.deletion import removal
from e2urec_core.deletion.lineage import made_from
from e2urec_core.disk import storage_errors
from e2urec_core.errors import WorkspaceBusy
from e2urec_core.failpoints import failpoint
from e2urec_core.store import Store
from tasks._journal import RunRecord
from tasks._snapshot import Snapshot
from tasks._stores import journals_of
from tasks.claims import FOLDER as CLAIMS
from tasks.claims import Asked, Rows, find

NIGHT = "night"
"""The section of settings that nights alone have."""
NIGHT_PAGES = ("verdict.json", "night.json", "night.html")
"""What stays of the reports of nights: counts and measures, and no row of anybody."""


@dataclass(frozen=True)
class Doomed:
    """What is to be erased.

    Args:
        stored: Ratings that hold some of the asked, with what of them, oldest first; they are rewritten.
        artifacts: What was made from them, or may have been.
        strange: Folders of the store that no manifest vouches for.
        folders: Other files and folders of the workspace that go.
    """

    stored: tuple[tuple[Interactions, Rows], ...]
    artifacts: tuple[Artifact, ...]
    strange: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()

    @property
    def everything(self) -> dict[str, Artifact]:
        """All artifacts that go, those that are rewritten too, by digest."""
        return {handle.digest: handle for handle in (*(rows for rows, _ in self.stored), *self.artifacts)}


@dataclass
class Eraser:
    """Erases in one workspace.

    Args:
        workspace: Its folder.
        store: Its artifacts.
        kept: Digests of bundles that stay: the champion's.
        run: Name of the run that erases.
        own_runs: Names of runs whose records and pages stay: that one, and the one that made the champion.
        guard: Raises where another run has taken over; asked before every step.
    """

    workspace: Path
    store: Store
    kept: frozenset[str]
    run: str
    own_runs: frozenset[str]
    guard: Callable[[], None] = field(default=lambda: None)

    def plan(self, asked: Sequence[Asked], snapshot: Snapshot | None) -> Doomed:
        """What must go for these requests; changes nothing.

        Args:
            asked: Whom the requests are about.
            snapshot: The champion's data, if any are stored.
        """
        stored = [(rows, find(self.store, rows, asked)) for rows in reversed(self.store.all(Interactions))]
        dirty = {rows.digest for rows, found in stored if found}
        clean = self.kept
        if snapshot is not None and snapshot.rows.digest not in dirty:
            clean |= {snapshot.rows.digest, snapshot.examples.digest, snapshot.tokens.digest}
        artifacts = [each for each in made_from(removal.everything(self.store), dirty, clean) if each.digest not in dirty]
        # A run that made the pages of a source is no run of the store, so its pages always go.
        records = journals_of(self.workspace).all()
        gone = dirty | {each.digest for each in artifacts}
        there = {folder.name for folder in self.store.folders()}
        used = {record.run for record in records if _names_any(record, gone, there)} | self.own_runs
        nights = {record.run for record in records if NIGHT in record.settings} | self.own_runs
        spared = {record.run for record in records} - used
        pages = [page for each in (self.workspace / "reports").glob("*") for page in _pages(each, nights, spared)]
        # Prefect is told to keep nothing of what tasks return.
        others = [*pages, self.workspace / CLAIMS, self.workspace / "prefect" / "storage"]
        return Doomed(
            tuple((rows, found) for rows, found in stored if found),
            tuple(artifacts),
            tuple(removal.strange_folders(self.store)),
            tuple(path for path in others if path.exists()),
        )

    def refuse_company(self) -> None:
        """Refuse while another run of this machine works with the data, others write into the store, or the store cannot be erased from.

        Raises:
            WorkspaceBusy: One does.
            BadSetting: Versions that an object store may keep cannot be removed.
        """
        self.store.refuse_to_leave_versions()
        live = [record.run for record in journals_of(self.workspace).all() if record.is_alive() and record.run != self.run]
        if live:
            raise WorkspaceBusy(
                f"{len(live)} other runs still work with data that is to be erased: {', '.join(live[:3])}",
                hint="wait for them or end them, then run `e2urec nightly` or `e2urec erase` again: it goes on from here",
            )
        if pieces := removal.others_at_work(self.store):
            raise WorkspaceBusy(
                f"{len(pieces)} pieces of half-written work of other runs in the store were changed within the last hour",
                facts={"first": pieces[0]},
                hint="wait until those runs are over; what a killed one has left is removed an hour after its last change",
            )

    def counts(self, doomed: Doomed) -> dict[str, int]:
        """How many files go, by the place where they lie."""
        folders = {*(removal.folder_of(self.store, each) for each in doomed.everything.values()), *doomed.strange}
        num_stored = sum(self.store.num_files(folder) for folder in folders)
        return {"store_files": num_stored, "unfinished": _files(removal.unfinished(self.store)), "pages_and_files": _files(doomed.folders)}

    def remove(self, artifacts: Iterable[Artifact | Path]) -> None:
        """Remove artifacts, and folders that are none."""
        for each in artifacts:
            self.guard()
            removal.remove(self.store, each if isinstance(each, Path) else removal.folder_of(self.store, each))

    def tidy(self, doomed: Doomed) -> None:
        """Remove what remembers artifacts that are gone, what unfinished stages kept, pages and files."""
        self.guard()
        failpoint("erase.tidy")
        removal.drop_keys(self.store)
        removal.drop_unfinished(self.store)
        with storage_errors(self.workspace):
            for path in doomed.folders:
                self.guard()
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                failpoint("erase.file")


def _files(places: Iterable[Path]) -> int:
    return sum(1 for place in places for each in (place, *place.rglob("*")) if each.is_file())


def _names_any(record: RunRecord, gone: set[str], stored: set[str]) -> bool:
    """Whether a run used something that goes, or that is gone already."""
    handles = [entry.handle or {} for entry in record.stages.values()]
    used = {digest for handle in handles for digest in (handle.get("digest", ""), *handle.get("parents", ())) if digest}
    there = all(handle["digest"] in stored for handle in handles if handle.get("digest"))
    return bool(used & gone) or not there or not used


def _pages(folder: Path, nights: set[str], spared: set[str]) -> list[Path]:
    """What of a folder of pages goes: nothing of runs that used nothing of it, and of nights what shows rows."""
    if folder.name in spared:
        return []
    return [page for page in folder.glob("*") if page.name not in NIGHT_PAGES] if folder.name in nights else [folder]
