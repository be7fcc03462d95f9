"""The story of a search for polluted users: every user is scored by networks that never saw them, and some are proposed."""

from __future__ import annotations

from prefect import flow

from e2urec_core.artifacts import HeldOutScores
from e2urec_core.pollution.rule import NoHistory
from flows.finding import Finding
from flows.rooms import earlier_interactions, open_room, settled
from tasks._notices import run_failed
from tasks._shown import truthful
from tasks.ingest import ingest
from tasks.pollution import fold_scores, hand_out_proposal, propose_polluted
from tasks.split import split_by_time
from tasks.tokenise import tokenise


@flow(
    name="find-polluted",
    flow_run_name="find-polluted {plan.run.dataset.kind}",
    persist_result=False,
    validate_parameters=True,
    on_failure=[run_failed],
    on_crashed=[run_failed],
)
@truthful
def find_polluted(plan: Finding, workspace: str = "") -> str:
    """Ingest, split, tokenise, score in rounds, propose. Returns the run's name."""
    plan = plan.model_copy(update={"run": settled(plan.run, workspace)})
    run, folds = plan.run, plan.folds
    with open_room(plan, ("find-polluted", run.dataset.kind, run.backbone.kind), workspace, run) as room:
        rows = ingest(run.dataset, run.ingest, earlier_interactions(room, run))
        shown = run.history if folds.history == "shown" else NoHistory(at_least=run.history.at_least)
        examples = split_by_time(rows, shown, run.split, run.seed)
        tokens = tokenise(rows, examples, run.prompt, run.backbone)
        scores: HeldOutScores | None = None
        for number in range(1, folds.num_rounds + 1):
            scores = fold_scores(tokens, scores, run.backbone, folds, run.seat(), number)
        assert scores is not None
        hand_out_proposal(room, propose_polluted(examples, scores, folds, plan.finder))
        return room.journal.record.run
