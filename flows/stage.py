"""Runs one stage of an earlier run again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2urec_core.errors import UnknownRun, WorkspaceBusy
from flows.earlier_runs import run_of
from flows.releasing import judge, release
from flows.rooms import reopen_room
from flows.runs import STAGES, change_run
from flows.train import tell as tell_training
from flows.unlearn import tell
from tasks._journal import Journal
from tasks.report import hand_out


def rerun(stage: str, journal: Journal, flags: Mapping[str, Any], workspace: str | Path | None) -> list[str]:
    """Run a stage of an earlier run again; earlier stages are as recorded, later ones are only compared.

    Args:
        stage: Name of the stage.
        journal: The run's.
        flags: Settings to change, by dotted name.
        workspace: The workspace's folder.

    Returns:
        Labels of the later stages that are now stale.

    Raises:
        UnknownRun: The run never came to a stage that this one needs, or has no such stage.
        BadSetting: A setting that the run does not admit, or a run of another command.
        WorkspaceBusy: The run is still at work.
    """
    before = journal.record
    if before.is_alive() and before.process != os.getpid():
        raise WorkspaceBusy(f"run `{before.run}` is still at work", hint="wait for its end, or end it, then run the stage again")
    run = change_run(run_of(before.run, before.settings), flags)
    with reopen_room(journal, run, stage, STAGES, workspace) as room:
        if before.run.startswith("train-"):
            prepared, candidate = tell_training(run)
        else:
            told = tell(run)
            prepared, candidate = told.prepared, told.candidate
            if stage == "report":
                hand_out(room, told.report, candidate.model)
        if room.journal.entry("verdict") is not None or stage == "verdict":
            judged = judge(run, prepared, candidate)
            if stage == "bundle":
                release(run, prepared, judged)
    if stage not in room.told:
        journal.change(settings=before.settings)
        raise UnknownRun(
            f"run `{before.run}` has no stage `{stage}`, so nothing was run",
            facts={"its stages": ", ".join(room.told)},
            hint="name one of its stages, or another run",
        )
    return room.stale
