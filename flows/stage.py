"""Runs one stage of an earlier run again."""

from __future__ import annotations

from prefect import flow

from flows.releasing import judge, release
from flows.rooms import reopen_room
from flows.runs import STAGES, Run
from flows.unlearn import tell
from tasks._journal import Journal, place_of
from tasks.report import hand_out


@flow(name="stage", flow_run_name="{stage} of {name}", persist_result=False)
def rerun_stage(stage: str, name: str, run: Run, workspace: str = "workspace") -> list[str]:
    """Run `stage` of the run `name` again with the settings `run`; returns the labels of stages that are now stale."""
    journal = Journal.open(place_of(workspace) / "runs", name)
    with reopen_room(journal, run, stage, STAGES, workspace) as room:
        told = tell(run)
        if stage == "report":
            hand_out(room, told.report, told.candidate.model)
        if room.journal.entry("verdict") is not None or stage == "verdict":
            judged = judge(run, told.prepared, told.candidate)
            if stage == "bundle":
                release(run, told.prepared, judged)
    return room.stale
