"""The main story: from raw ratings to an unlearned recommender, its distance to Retrain, and a report."""

from __future__ import annotations

from prefect import flow

from e2urec_core.artifacts import Augmented, Report, TeacherLogits, Unlearned
from flows.rooms import earlier_interactions, open_room, settled
from flows.runs import Run
from tasks._room import ROOM
from tasks.cache_logits import cache_original_logits, cache_teacher_logits
from tasks.evaluate import evaluate
from tasks.forget import choose_forgotten
from tasks.ingest import ingest
from tasks.report import hand_out, write_report
from tasks.split import split_by_time
from tasks.tokenise import tokenise
from tasks.train import train_augmented, train_original, train_retrained
from tasks.unlearn import unlearn_users


@flow(name="unlearn", flow_run_name="unlearn {run.dataset.kind} {run.method.kind}", persist_result=False, validate_parameters=True)
def unlearn(run: Run, workspace: str = "workspace") -> str:
    """Forget users and measure it: ingest, split, forget, tokenise, train, cache, unlearn, evaluate, report. Returns the run's name."""
    run = settled(run, workspace)
    with open_room(run, workspace) as room:
        report, unlearned = tell(run)
        hand_out(room, report, unlearned)
        return room.journal.record.run


def tell(run: Run) -> tuple[Report, Unlearned]:
    """The stages in their order; each is taken from the store where it was run before."""
    room, seat = ROOM.get(), run.seat()
    rows = ingest(run.dataset, run.ingest, earlier_interactions(room, run))
    examples = split_by_time(rows, run.history, run.split, run.seed)
    request = choose_forgotten(rows, examples, run.forget, run.seed)
    tokens = tokenise(rows, examples, run.prompt, run.backbone)
    original = train_original(tokens, run.backbone, run.training, seat)

    augmented = remembering = teachers = None
    rule = run.cache.planned(run.method.retained_draws(), run.method.freezes_encoder())
    if run.method.wants(Augmented) or run.method.wants(TeacherLogits):
        augmented = train_augmented(original, tokens, request, run.augment, seat)
    if run.method.wants(TeacherLogits):
        remembering = cache_original_logits(original, tokens, request, rule, seat)
        teachers = cache_teacher_logits(original, augmented, tokens, request, rule, seat)
    unlearned = unlearn_users(run.method, original, tokens, request, augmented, remembering, teachers, rule, seat)

    seats = [seat.model_copy(update={"seed": run.seed + further}) for further in range(run.evaluate.floor_seeds + 1)]
    retrained, *further = (train_retrained(tokens, request, run.backbone, run.training, each, paired=each == seat) for each in seats)
    scores = evaluate(run.method.kind, unlearned, original, retrained, further, tokens, request, seat)
    seconds = {label: entry.seconds for label, entry in room.journal.record.stages.items() if label != "report"}
    report = write_report(
        room.journal.record.run,
        run.method.kind,
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
    return report, unlearned
