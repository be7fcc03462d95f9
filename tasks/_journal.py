"""What a run did, stage by stage: the one place that says which artifact each stage of a run gave.

Prefect's database and MLflow show the same for people; this file is what reruns and the list of runs read.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from e2urec_core.artifacts import KINDS, Artifact
from e2urec_core.errors import UnknownRun
from e2urec_core.settings import Settings
from e2urec_core.store import write_whole

State = Literal["running", "completed", "cached", "failed", "stale"]


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


class Journal:
    """Keeps one run's record on disk, written whole at every change."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        """Continue `record` in the file `path`."""
        self.path, self.record = path, record

    @classmethod
    def start(cls, folder: Path, prefix: str, settings: dict[str, Any]) -> Journal:
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
            journal = cls(path, RunRecord(run=name, started_at=now.isoformat(timespec="seconds"), state="running", settings=settings))
            journal.save()
            return journal
        raise AssertionError(f"1000 runs named {stem}")

    @classmethod
    def open(cls, folder: Path, run: str) -> Journal:
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
            return cls(path, RunRecord.model_validate_json(path.read_bytes()))
        except ValidationError:
            raise UnknownRun(
                f"the record of run `{run}` cannot be read", facts={"file": path}, hint="start the run anew; its artifacts are in the store"
            ) from None

    def entry(self, label: str) -> StageEntry | None:
        """What the stage gave when it was last reached."""
        return self.record.stages.get(label)

    def note(self, label: str, entry: StageEntry) -> None:
        """Set the stage's entry."""
        self.record = self.record.model_copy(update={"stages": {**self.record.stages, label: entry}})
        self.save()

    def change(self, **values: Any) -> None:
        """Set fields of the record."""
        self.record = self.record.model_copy(update=values)
        self.save()

    def save(self) -> None:
        """Write the record."""
        write_whole(self.path, self.record.model_dump_json(indent=1))


def all_runs(folder: Path) -> list[RunRecord]:
    """Every readable run of a workspace, oldest first."""
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(RunRecord.model_validate_json(path.read_bytes()))
        except ValidationError:
            continue
    return sorted(records, key=lambda record: (record.started_at, record.run))
