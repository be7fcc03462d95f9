"""The first champion: a recommender trained on everybody, put before the gates and released like every later one."""

from __future__ import annotations

from prefect import flow

from e2urec_core.settings import ScoreRule
from flows.releasing import Candidate, judge, release
from flows.rooms import open_room, settled
from flows.runs import Run
from flows.story import prepare
from tasks.score import score


@flow(name="train", flow_run_name="train {run.dataset.kind} {run.backbone.kind}", persist_result=False, validate_parameters=True)
def train(run: Run, workspace: str = "workspace") -> str:
    """Train a recommender and release it: ingest, split, tokenise, train, score, verdict, bundle. Returns the run's name."""
    run = settled(run, workspace)
    with open_room(run, ("train", run.dataset.kind, run.backbone.kind), workspace, run.execution) as room:
        prepared = prepare(run)
        scores = score(prepared.original, prepared.tokens, prepared.request, ScoreRule(), run.seat())
        if run.release.then != "nothing":
            release(run, prepared, judge(run, prepared, Candidate(prepared.original, "model", "model", "", scores)))
        return room.journal.record.run
