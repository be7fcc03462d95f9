"""The main story: from raw ratings to an unlearned recommender, its distance to Retrain, and a report."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from e2urec_core.artifacts import Report
from flows.releasing import Candidate, judge, release
from flows.rooms import open_room, settled
from flows.runs import Run
from flows.story import Prepared, forget, prepare, retrain
from tasks._notices import run_failed
from tasks._room import ROOM
from tasks._shown import truthful
from tasks.evaluate import evaluate
from tasks.report import hand_out, write_report


@flow(
    name="unlearn",
    flow_run_name="unlearn {run.dataset.kind} {run.method.kind}",
    persist_result=False,
    validate_parameters=True,
    on_failure=[run_failed],
    on_crashed=[run_failed],
)
@truthful
def unlearn(run: Run, workspace: str = "") -> str:
    """Forget users and measure it: ingest, split, forget, tokenise, train, cache, unlearn, evaluate, report. Returns the run's name."""
    run = settled(run, workspace)
    with open_room(run, (run.dataset.kind, run.backbone.kind, run.method.kind), workspace, run) as room:
        told = tell(run)
        hand_out(room, told.report, told.candidate.model)
        if run.release.then != "nothing":
            release(run, told.prepared, judge(run, told.prepared, told.candidate))
        return room.journal.record.run


@dataclass(frozen=True)
class Told:
    """What a run has made.

    Args:
        prepared: What unlearning started from.
        candidate: The unlearned recommender, and what was measured of it.
        report: The report.
    """

    prepared: Prepared
    candidate: Candidate
    report: Report


def tell(run: Run) -> Told:
    """The stages up to the report in their order; each is taken from the store where it was run before."""
    room, prepared = ROOM.get(), prepare(run)
    unlearned, augmented = forget(run, prepared)
    retrained, *others = (retrain(run, prepared, further) for further in range(run.evaluate.floor_seeds + 1))
    original, tokens, request = prepared.original, prepared.tokens, prepared.request
    scores = evaluate(run.method.row, unlearned, original, retrained, others, tokens, request, run.seat(), prepared.retold)
    seconds = {label: entry.seconds for label, entry in room.journal.record.stages.items() if label != "report"}
    report = write_report(
        room.journal.record.run,
        run.method.row,
        run.method.title,
        scores,
        request,
        original,
        retrained,
        augmented,
        unlearned,
        seconds,
        run.canonical(),
    )
    candidate = Candidate(unlearned, run.method.row, "original", run.method.kind, scores, (retrained, *others))
    return Told(prepared, candidate, report)
