"""The first champion: a recommender trained on everybody, put before the gates and released like every later one."""

from __future__ import annotations

from prefect import flow

from e2urec_core.data.places import VERDICT
from e2urec_core.settings import ScoreRule
from flows.releasing import Candidate, judge, release
from flows.rooms import open_room, settled
from flows.runs import Run
from flows.story import Prepared, prepare
from tasks._notices import run_failed
from tasks._shown import show_results, truthful
from tasks.release import measures_of
from tasks.score import score


@flow(
    name="train",
    flow_run_name="train {run.dataset.kind} {run.backbone.kind}",
    persist_result=False,
    validate_parameters=True,
    on_failure=[run_failed],
    on_crashed=[run_failed],
)
@truthful
def train(run: Run, workspace: str = "") -> str:
    """Train a recommender and release it: ingest, split, tokenise, train, score, verdict, bundle. Returns the run's name."""
    run = settled(run, workspace)
    with open_room(run, ("train", run.dataset.kind, run.backbone.kind), workspace, run) as room:
        prepared, candidate = tell(run)
        if run.release.then != "nothing":
            release(run, prepared, judge(run, prepared, candidate))
        measures = measures_of(room, candidate.scores, candidate.name)
        verdict = room.reports / VERDICT
        table = [["Measure", "Value"], *([name.replace("_", " "), f"{value:.4f}"] for name, value in measures.items())]
        show_results(room, table, verdict if verdict.exists() else None)
        return room.journal.record.run


def tell(run: Run) -> tuple[Prepared, Candidate]:
    """The stages up to the scores in their order; returns what the recommender was made of, and the recommender."""
    prepared = prepare(run)
    scores = score(prepared.original, prepared.tokens, prepared.request, ScoreRule(), run.seat())
    return prepared, Candidate(prepared.original, "model", "model", "", scores)
