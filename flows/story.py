"""The chapters that stories are told in: what is made before anybody is forgotten, the forgetting, and the yardstick."""

from __future__ import annotations

from dataclasses import dataclass

from e2urec_core.artifacts import (
    Augmented,
    Examples,
    ForgetRequest,
    Interactions,
    Model,
    Retold,
    Retrained,
    Shards,
    TeacherLogits,
    Tokens,
    Unlearned,
)
from flows.rooms import earlier_interactions
from flows.runs import Run
from tasks._room import ROOM
from tasks.cache_logits import cache_original_logits, cache_teacher_logits
from tasks.forget import choose_forgotten
from tasks.ingest import ingest
from tasks.retell import retell, retell_changed
from tasks.split import split_by_time
from tasks.tokenise import tokenise
from tasks.train import train_augmented, train_original, train_retrained, train_shards
from tasks.unlearn import unlearn_users


@dataclass(frozen=True)
class Prepared:
    """What unlearning starts from.

    Args:
        rows: The ratings.
        examples: Cut by time.
        request: Who is forgotten.
        tokens: The prompts as token ids.
        original: The recommender in production: an `Original`, or the bundle of a release.
        retold: Prompts that are told anew without what is forgotten of their histories; None where nothing is.
    """

    rows: Interactions
    examples: Examples
    request: ForgetRequest
    tokens: Tokens
    original: Model
    retold: Retold | None


def prepare(run: Run) -> Prepared:
    """Ingest, split, choose who is forgotten, tokenise, train the original."""
    rows = ingest(run.dataset, run.ingest, earlier_interactions(ROOM.get(), run))
    examples = split_by_time(rows, run.history, run.split, run.seed)
    request = choose_forgotten(rows, examples, run.forget, run.seed)
    tokens = tokenise(rows, examples, run.prompt, run.backbone)
    retold = _retold(run, rows, request, tokens)
    original = train_original(tokens, run.backbone, run.training, run.seat())
    return Prepared(rows, examples, request, tokens, original, retold)


def _retold(run: Run, rows: Interactions, request: ForgetRequest, tokens: Tokens) -> Retold | None:
    if ROOM.get().awaits(request):
        # What the request changes cannot be read yet; one for whole users changes no row that stays.
        return retell(rows, request, tokens, run.prompt) if run.forget.names_interactions_in else None
    return retell_changed(rows, request, tokens, run.prompt)


def forget(run: Run, prepared: Prepared) -> tuple[Unlearned, Augmented | None]:
    """Let the run's method forget, after what it wants has been made; returns the augmented model too, where it wanted one."""
    original, tokens, request, seat = prepared.original, prepared.tokens, prepared.request, run.seat()
    augmented = remembering = teachers = shards = None
    rule = run.cache.planned(run.method.retained_draws(), run.method.freezes_encoder(), run.method.retained_at_least())
    if run.method.wants(Shards) and (sharding := run.method.sharding(run.training)) is not None:
        shards = train_shards(original if sharding.by == "original" else None, tokens, run.backbone, sharding, seat)
    if run.method.wants(Augmented) or run.method.wants(TeacherLogits):
        augmented = train_augmented(original, tokens, request, run.augment, seat, prepared.retold)
    if run.method.wants(TeacherLogits):
        remembering = cache_original_logits(original, tokens, request, rule, seat, prepared.retold)
        teachers = cache_teacher_logits(original, augmented, tokens, request, rule, seat)
    made = augmented, remembering, teachers, shards
    return unlearn_users(run.method, original, tokens, request, *made, rule, run.backbone, run.training, seat, prepared.retold), augmented


def retrain(run: Run, prepared: Prepared, further: int = 0) -> Retrained:
    """Train without the forgotten rows: paired with the original, or the `further`-th from another seed."""
    seat = run.seat().model_copy(update={"seed": run.seed + further})
    paired, given = further == 0, (prepared.tokens, prepared.request, run.backbone, run.training)
    return train_retrained(*given, seat, paired=paired, retold=prepared.retold)
