"""Shadow Retrains: what training anew on tonight's data would have given, and how far the champion lies from that."""

from __future__ import annotations

from e2urec_core.artifacts import Model
from e2urec_core.data.forget import ForgetRule
from e2urec_core.judging import SCORED
from e2urec_core.scoring import read_scores
from e2urec_core.settings import ScoreRule
from flows.night_forgetting import Night
from flows.releasing import chapter
from tasks._progress import say
from tasks.drift import note_shadow
from tasks.forget import choose_forgotten
from tasks.score import score
from tasks.tokenise import read_by
from tasks.train import train_original

GROUP = "test"


def measure_shadow(night: Night) -> float | None:
    """How far the champion lies from a Retrain on its data, over how far two Retrains lie from each other; None where they agree.

    The distance is the mean absolute difference of p(Yes) on test rows. Two Retrains are trained, of two seeds.
    """
    import numpy

    run, snapshot, champion = night.run, night.snapshot(), night.champion()
    bundle = night.desk.bundle_of(champion)
    with chapter("shadow"):
        request = choose_forgotten(snapshot.rows, snapshot.examples, ForgetRule(nobody=True), run.seed)
        answers = []
        for further in range(2):
            seat = run.seat().model_copy(update={"seed": run.seed + further})
            with chapter(f"shadow {further + 1}"):
                shadow: Model = train_original(snapshot.tokens, run.backbone, run.training, seat)
                answers.append(score(shadow, snapshot.tokens, request, ScoreRule(groups=(GROUP,)), run.seat()))
        tokens = read_by(night.room, bundle, snapshot.rows, snapshot.examples, snapshot.tokens, run.prompt)
        answers.append(score(bundle, tokens, request, ScoreRule(groups=(GROUP,)), run.seat()))
    one, other, ours = (read_scores(night.room.store.open(each), [SCORED], (GROUP,))[GROUP].yes[SCORED] for each in answers)
    floor, distance = (float(numpy.abs(one - each).mean()) for each in (other, ours))
    if not floor:
        return None
    note_shadow(night.desk, champion, distance / floor)
    say(f"the champion lies {distance / floor:.2f} times as far from a shadow Retrain as two of them lie from each other")
    return distance / floor
