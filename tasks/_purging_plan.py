"""What is to be removed from MLflow, and what was: for people to read, and for `tasks._purging` to carry out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks._purging_files import ArtifactFolder

Choice = Callable[["TrackedRun"], bool] | Collection[str]


@dataclass(frozen=True)
class TrackedRun:
    """A run as MLflow knows it.

    Args:
        id: MLflow's id.
        name: Its name.
        parent: Id of the run that it is nested in; empty where there is none.
        running: Whether it has not ended, as far as MLflow knows.
        marked: Whether it is marked as deleted.
        root: Address of its artifacts.
        tags: Its tags.
    """

    id: str
    name: str
    parent: str
    running: bool
    marked: bool
    root: str
    tags: Mapping[str, str] = field(compare=False, repr=False)


@dataclass(frozen=True)
class TrackedVersion:
    """A version of the registered model.

    Args:
        number: Its number.
        bundle: Digest of its bundle; empty where it has no such tag.
        run: Id of the run that it was made by.
        source: Address of its files.
        tags: Names of its tags.
    """

    number: int
    bundle: str
    run: str
    source: str
    tags: tuple[str, ...]

    def is_below(self, run: TrackedRun) -> bool:
        """Whether its files are artifacts of a run."""
        return self.run == run.id or f"{self.source}/".startswith(f"{run.root}/")


@dataclass(frozen=True)
class PurgePlan:
    """What is to be removed.

    Args:
        keep_bundles: Digests of the bundles whose versions and files stay.
        runs: Runs, nested ones before those that they are nested in.
        versions: Versions of the registered model.
        folders: Folders of artifacts: those of the runs, and those of bundles below runs that stay.
        strays: Files and folders of the workspace's artifacts that belong to no run; only for its own database.
        num_rows: Rows of runs and versions that were deleted before; only for its own database.
        notes: What stays, and why, as sentences.
    """

    keep_bundles: frozenset[str]
    runs: tuple[TrackedRun, ...]
    versions: tuple[TrackedVersion, ...]
    folders: tuple[ArtifactFolder, ...]
    strays: tuple[Path, ...]
    num_rows: int
    notes: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing is left to remove."""
        return not (self.runs or self.versions or self.folders or self.strays or self.num_rows)

    def sentences(self) -> list[str]:
        """The plan for people."""
        nested = sum(1 for run in self.runs if run.parent)
        size = sum(folder.num_bytes for folder in self.folders)
        lines = [f"{len(self.runs)} runs, {nested} of them nested: {named([run.name for run in self.runs if not run.parent])}"]
        lines += [f"{len(self.versions)} model versions: {named([str(version.number) for version in self.versions])}"]
        lines += [f"{sum(folder.num_files for folder in self.folders):,} files in {len(self.folders)} artifact folders, {size:,} bytes"]
        lines += [f"{len(self.strays)} files or folders of no run: {named([path.name for path in self.strays])}"] if self.strays else []
        lines += [f"{self.num_rows:,} rows of what was deleted before"] if self.num_rows else []
        return [*lines, *self.notes]


@dataclass(frozen=True)
class Purged:
    """What was removed.

    Args:
        runs: Runs.
        versions: Model versions.
        files: Files of artifacts.
        bytes: Their sizes together.
        left: What stays that only others can remove, as sentences.
    """

    runs: int
    versions: int
    files: int
    bytes: int
    left: tuple[str, ...]


def chosen(
    runs: list[TrackedRun], keep_runs: Collection[str], doomed: Choice, *, running_too: bool = False
) -> tuple[list[TrackedRun], list[TrackedRun]]:
    """Which runs go.

    Args:
        runs: All runs.
        keep_runs: Ids of those that stay with everything nested in them.
        doomed: Ids of those that go, or whether one goes; see `TrackingPurge.plan`.
        running_too: See `TrackingPurge.plan`.

    Returns:
        Runs to remove, the deepest first; and the running ones that would go, had they ended.
    """
    known = {run.id: run for run in runs}

    def line(run: TrackedRun) -> list[TrackedRun]:
        above = [run]
        while (parent := known.get(above[-1].parent)) is not None and parent not in above:
            above.append(parent)
        return above

    lines = {run.id: line(run) for run in runs}
    going, running = [], []
    for run in sorted(runs, key=lambda run: -len(lines[run.id])):
        top = lines[run.id][-1]
        if not {each.id for each in lines[run.id]} & set(keep_runs):
            asked = not callable(doomed) and (top.id in doomed or top.parent in doomed)
            if asked or (callable(doomed) and (running_too or not top.running) and doomed(top)):
                going.append(run)
            elif callable(doomed) and run is top and top.running and doomed(top):
                running.append(run)
    return going, running


def named(names: list[str], most: int = 5) -> str:
    """Some names for people.

    >>> named(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}" if names else "none"
