"""What a run did, stage by stage: the one place that says which artifact each stage of a run gave.

Prefect's database and MLflow show the same for people; this file is what reruns and the list of runs read.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from e2urec_core.artifacts import KINDS, Artifact
from e2urec_core.disk import write_whole
from e2urec_core.errors import UnknownRun
from e2urec_core.settings import Settings

State = Literal["running", "completed", "cached", "failed", "stale", "unfinished"]


def place_of(workspace: str | Path | None) -> Path:
    """The workspace's folder: the one given, else `E2UREC_WORKSPACE`, else `./workspace`; absolute."""
    return Path(workspace or os.environ.get("E2UREC_WORKSPACE") or "workspace").expanduser().absolute()


class StageEntry(Settings):
    """One stage of one run."""

    state: State
    """How the stage ended, or that its inputs have changed since."""
    key: str = ""
    """Stage key."""
    kind: str = ""
    """Kind of the artifact it gave."""
    handle: dict[str, Any] | None = None
    """Handle of the artifact it gave."""
    seconds: float = 0.0
    """What making the artifact took, whenever that was; seconds of wall-clock time."""
    fault: str = ""
    """First line of what went wrong."""

    def artifact(self) -> Artifact | None:
        """The artifact's handle, if there is one."""
        return KINDS[self.kind].model_validate(self.handle) if self.handle else None


class RunRecord(Settings):
    """One run."""

    run: str
    """Name of the run."""
    started_at: str
    """When it was started, ISO 8601, UTC."""
    state: State
    """How it ended."""
    settings: dict[str, Any]
    """All settings as resolved."""
    stages: dict[str, StageEntry] = Field(default_factory=dict)
    """Stages in the order in which they were reached."""
    tracking_run: str = ""
    """The MLflow run."""
    host: str = ""
    """Machine it ran on last."""
    process: int = 0
    """Process it ran in last."""
    process_started: float = 0.0
    """When that process was started, seconds since 1970; tells it from a later one of the same number."""

    def as_it_is(self) -> RunRecord:
        """The record, with a run whose process was killed called failed."""
        if self.state != "running" or not self._is_dead():
            return self
        fault = "its process was killed"
        stages = {
            label: entry.model_copy(update={"state": "failed", "fault": fault}) if entry.state == "running" else entry
            for label, entry in self.stages.items()
        }
        return self.model_copy(update={"state": "failed", "stages": stages})

    def is_alive(self) -> bool:
        """Whether its process works on this machine now."""
        return self.state == "running" and self.host == platform.node() and not self._is_dead()

    def _is_dead(self) -> bool:
        import psutil

        if self.host != platform.node() or not self.process:
            return False
        try:
            return abs(psutil.Process(self.process).create_time() - self.process_started) > 1
        except psutil.NoSuchProcess:
            return True


def here() -> dict[str, Any]:
    """Machine and process of the caller, as a run's record keeps them."""
    import psutil

    return {"host": platform.node(), "process": os.getpid(), "process_started": psutil.Process().create_time()}


class Journal:
    """Keeps one run's record on disk, written whole at every change; several threads may note stages at once."""

    def __init__(self, path: Path, record: RunRecord, share: Callable[[Path], None] | None = None) -> None:
        """Continue `record` in the file `path`, which `share` is told of after every change."""
        self.path, self.record, self._share = path, record, share
        self._lock = threading.Lock()

    @classmethod
    def start(cls, folder: Path, prefix: str, settings: dict[str, Any], share: Callable[[Path], None] | None = None) -> Journal:
        """A new run, named after its words and the second it was started in."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        now = datetime.now(UTC)
        stem = f"{prefix}-{now:%Y%m%d-%H%M%S}"
        for number in range(1, 1000):
            name = stem if number == 1 else f"{stem}-{number}"
            path = folder / f"{name}.json"
            try:
                path.touch(exist_ok=False, mode=0o600)
            except FileExistsError:
                continue
            record = RunRecord(run=name, started_at=now.isoformat(timespec="seconds"), state="running", settings=settings, **here())
            journal = cls(path, record, share)
            journal.save()
            return journal
        raise AssertionError(f"1000 runs named {stem}")

    @classmethod
    def open(cls, folder: Path, run: str, share: Callable[[Path], None] | None = None) -> Journal:
        """The journal of a run that was started before.

        Raises:
            UnknownRun: There is no such run, or its record cannot be read.
        """
        path = folder / f"{run}.json"
        if "/" in run or not path.is_file():
            names = [record.run for record in all_runs(folder)]
            raise UnknownRun(
                f"this workspace holds no run `{run}` among its {len(names)}",
                facts={"newest runs": ", ".join(names[-3:]) or "none"},
                hint="`e2urec runs` lists them; another workspace is named with `--workspace`",
            )
        try:
            return cls(path, RunRecord.model_validate_json(path.read_bytes()), share)
        except ValidationError:
            raise UnknownRun(
                f"the record of run `{run}` cannot be read", facts={"file": path}, hint="start the run anew; its artifacts are in the store"
            ) from None

    def entry(self, label: str) -> StageEntry | None:
        """What the stage gave when it was last reached."""
        return self.record.stages.get(label)

    def note(self, label: str, entry: StageEntry) -> None:
        """Set the stage's entry."""
        with self._lock:
            self.record = self.record.model_copy(update={"stages": {**self.record.stages, label: entry}})
            self.save()

    def change(self, **values: Any) -> None:
        """Set fields of the record."""
        with self._lock:
            self.record = self.record.model_copy(update=values)
            self.save()

    def save(self) -> None:
        """Write the record."""
        write_whole(self.path, self.record.model_dump_json(indent=1))
        if self._share is not None:
            self._share(self.path)


def all_runs(folder: Path) -> list[RunRecord]:
    """Every readable run of a workspace, oldest first."""
    return [record.as_it_is() for record in recorded_runs(folder)]


def recorded_runs(folder: Path) -> list[RunRecord]:
    """The same, as they were recorded: one that was killed says that it is running."""
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(RunRecord.model_validate_json(path.read_bytes()))
        except ValidationError:
            continue
    return sorted(records, key=lambda record: (record.started_at, record.run))
