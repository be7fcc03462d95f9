"""Training anew at night: on what stays, with a tokenizer of its own, from one seed or the best of several."""

from __future__ import annotations

from e2urec_core.artifacts import Examples, Interactions, Original, Tokens
from e2urec_core.data.forget import ForgetRule
from e2urec_core.judging import SCORED
from e2urec_core.metrics.utility import auc
from e2urec_core.scoring import read_scores
from e2urec_core.settings import ScoreRule
from flows.nights import Nightly
from flows.releasing import Candidate, Judged, chapter, judge
from flows.story import Prepared
from tasks._progress import say
from tasks._room import ROOM
from tasks.forget import choose_forgotten
from tasks.prune import prune_rows
from tasks.score import score
from tasks.tokenise import tokenise
from tasks.train import train_original

CHOSEN_ON = "validation"


def judge_trained_anew(run: Nightly, prepared: Prepared, name: str) -> Judged:
    """Train on what stays, with a tokenizer of what stays, and judge it on what stays; `name` is what was asked for."""
    rows, examples = prepared.rows, prepared.examples
    if not run.forget.nobody:
        rows, examples = prune_rows(rows, examples, prepared.request)
    tokens = tokenise(rows, examples, run.prompt, run.backbone)
    model = train_best(run, rows, examples, tokens)
    # Whoever never saw the rows has forgotten them whatever a test says, so it is asked alone whether it recommends as well.
    nobody = choose_forgotten(rows, examples, ForgetRule(nobody=True), run.seed)
    scores = score(model, tokens, nobody, ScoreRule(), run.seat())
    told = Prepared(rows, examples, nobody, tokens, prepared.original, None)
    return judge(run, told, Candidate(model, "model", "model", "", scores, asked=name))


def train_best(run: Nightly, rows: Interactions, examples: Examples, tokens: Tokens) -> Original:
    """Train from `night.anew_seeds` seeds, the run's own first, and keep the one with the highest AUC on validation rows.

    Args:
        run: Settings of the night.
        rows: Interactions without those of the forgotten, so that nobody who is forgotten has a say in the choice.
        examples: Of these rows.
        tokens: Of these examples.
    """
    if run.night.anew_seeds == 1:
        return train_original(tokens, run.backbone, run.training, run.seat())
    request = choose_forgotten(rows, examples, ForgetRule(nobody=True), run.seed)
    trained: list[tuple[float, int, Original]] = []
    for seed in range(run.seed, run.seed + run.night.anew_seeds):
        with chapter(f"seed {seed}"):
            model = train_original(tokens, run.backbone, run.training, run.seat().model_copy(update={"seed": seed}))
            scores = score(model, tokens, request, ScoreRule(groups=(CHOSEN_ON,)), run.seat())
        told = read_scores(ROOM.get().store.open(scores), [SCORED], (CHOSEN_ON,))[CHOSEN_ON]
        # Rows of one label rank nothing; then the first seed stays.
        trained.append((auc(told.labels, told.yes[SCORED]) or 0.0, -seed, model))
    best, seed, model = max(trained, key=lambda each: each[:2])
    say(f"seed {-seed} was trained best of {len(trained)}: AUC on validation rows {best:.4f}, worst {min(trained)[0]:.4f}")
    return model
