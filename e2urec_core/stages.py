"""What each stage does, on opened folders: read from the folders of earlier artifacts, write into `place`, return the rows.

Nothing here knows of handles, keys, retries or tracking, so that a stage can also be run alone. Every function that trains or scores
leaves a `facts.json` beside its files: what it did, in numbers that do not depend on the clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.judging import evaluate, score
from e2urec_core.notes import facts, kept, note
from e2urec_core.pollution.scoring import fold_scores
from e2urec_core.release.judge import judge

if TYPE_CHECKING:
    import numpy

    from data_contracts.teacher_logits import Part
    from e2urec_core.backbones.base import Backbone
    from e2urec_core.data.batches import Prompts
    from e2urec_core.data.examples import HistoryRule
    from e2urec_core.data.forget import ForgetRule
    from e2urec_core.data.ingest import IngestRule
    from e2urec_core.data.prompts import PromptRule
    from e2urec_core.data.split import SplitRule
    from e2urec_core.data.suppressed import Suppressed
    from e2urec_core.datasets.base import Dataset
    from e2urec_core.engine import Bench
    from e2urec_core.methods.base import Method
    from e2urec_core.recommender import Recommender
    from e2urec_core.settings import Augment, CacheRule, Sharding, Training
    from e2urec_core.training_state import Fitted

__all__ = [
    "cache_original",
    "cache_teachers",
    "evaluate",
    "facts",
    "fold_scores",
    "forget",
    "ingest",
    "judge",
    "probe",
    "score",
    "split",
    "tokenise",
    "tokenise_as",
    "train_augmented",
    "train_original",
    "train_retrained",
    "train_shards",
    "unlearn",
]
ADAPTER = "adapter"


def ingest(dataset: Dataset, rule: IngestRule, earlier: Path | None, place: Path, suppressed: Suppressed | None = None) -> int:
    """Read the dataset and store its interactions, items and users, and what was put aside; nothing that is on the suppression list."""
    from e2urec_core.data.ingest import ingest as read

    return read(dataset, rule, place, earlier, suppressed=suppressed)


def split(interactions: Path, history: HistoryRule, rule: SplitRule, seed: int, place: Path) -> int:
    """Find every interaction's history, and cut the examples by time."""
    from e2urec_core.data.examples import write_examples

    return write_examples(interactions, history, rule, seed, place)


def forget(interactions: Path, examples: Path, rule: ForgetRule, seed: int, place: Path) -> int:
    """Choose who is forgotten and mark every example's part; users and items stay in files of their own."""
    from e2urec_core.data.forget import write_request

    counts = write_request(interactions, examples, rule, seed, place)
    note(place, counts=counts)
    return counts.get("forgotten", 0)


def tokenise(examples: Path, interactions: Path, prompt: PromptRule, backbone: Backbone, place: Path) -> int:
    """Write every example as a prompt, and that as token ids of the backbone's tokenizer, which is stored beside them."""
    from e2urec_core.data.tokens import training_texts, write_tokens

    told = write_tokens(examples, interactions, prompt, backbone.tokenizer(training_texts(examples, interactions, prompt)), place)
    note(place, **dataclasses.asdict(told))
    return told.rows


def tokenise_as(released: Path, examples: Path, interactions: Path, place: Path) -> int:
    """Write every example as a released recommender reads it; `released` is its folder, with the note of how prompts are written."""
    from e2urec_core.data.tokens import load_tokenizer, write_tokens
    from e2urec_core.release.bundle import read_prompt_rule

    return write_tokens(examples, interactions, read_prompt_rule(released), load_tokenizer(released), place).rows


def retell(request: Path, interactions: Path, tokens: Path, prompt: PromptRule, place: Path) -> int:
    """Write the rows that the request tells anew as token ids, as `tokenise` would, with the tokenizer of the tokens."""
    from e2urec_core.data.tokens import load_tokenizer, write_tokens

    return write_tokens(request, interactions, prompt, load_tokenizer(tokens), place).rows


def train_original(tokens: Path, backbone: Backbone, training: Training, bench: Bench, place: Path) -> int:
    """Train a recommender on all training rows."""
    from e2urec_core.data.tokens import prompts_of_split

    recommender = _fresh(tokens, backbone, bench)(bench.seed)
    rows, validation = (prompts_of_split(tokens, split) for split in ("train", "validation"))
    return _fit_and_save(recommender, rows, validation, training, bench, place)


def train_retrained(
    tokens: Path, request: Path, backbone: Backbone, training: Training, bench: Bench, place: Path, *, retold: Path | None = None
) -> int:
    """Train a recommender on the retained rows alone; those that `retold` holds, with the prompts that it gives them.

    With the original's seed it is paired with the original: the same initial weights, and the same rows in the same steps less the
    forgotten ones. The tokenizer is the original's, because distances between vocabularies mean nothing.
    """
    import numpy

    from e2urec_core.data.tokens import prompts_of_part, prompts_of_split

    recommender = _fresh(tokens, backbone, bench)(bench.seed)
    rows, lengths = prompts_of_split(tokens, "train", retold), prompts_of_split(tokens, "train").lengths
    left_out = numpy.isin(rows.example_ids, prompts_of_part(tokens, request, "forgotten").example_ids)
    validation = prompts_of_part(tokens, request, "validation", retold)
    _fit_and_save(recommender, rows, validation, training, bench, place, left_out=left_out, ordered_by=lengths)
    return int((~left_out).sum())


def train_augmented(
    original: Path, tokens: Path, request: Path, augment: Augment, bench: Bench, place: Path, *, retold: Path | None = None
) -> int:
    """Train the original further on the forgotten rows alone: the whole of it, or an adapter that is merged at the end."""
    from e2urec_core.data.tokens import prompts_of_part
    from e2urec_core.recommender import load

    recommender = load(original, bench.device)
    student = recommender.with_adapter(augment.lora, bench.seed) if augment.trains == "adapter" else recommender.trainable()
    forgotten, validation = (prompts_of_part(tokens, request, part, retold) for part in ("forgotten", "validation"))
    return _fit_and_save(student, forgotten, validation, augment, bench, place, purpose="augmented")


def train_shards(original: Path | None, tokens: Path, backbone: Backbone, sharding: Sharding, bench: Bench, place: Path) -> int:
    """Divide the training rows' users into shards, and train each by itself; the original is there for a partition that needs it."""
    from e2urec_core.data.tokens import prompts_of_split
    from e2urec_core.recommender import load
    from e2urec_core.sharding.system import write_shards

    rows, validation = (prompts_of_split(tokens, split) for split in ("train", "validation"))
    trained = load(original, bench.device) if original else None
    fitted, told = write_shards(place, rows, validation, sharding, _fresh(tokens, backbone, bench), trained, bench)
    if bench.workers.is_main:
        note(place, **told, **_of(fitted))
    return len(rows)


def cache_original(
    original: Path,
    tokens: Path,
    request: Path,
    rule: CacheRule,
    earlier: Sequence[Path],
    bench: Bench,
    place: Path,
    *,
    retold: Path | None = None,
) -> int:
    """Keep the original's outputs on the retained rows that unlearning may draw."""
    import numpy

    from e2urec_core.data.teacher_scoring import Stamp, write_original
    from e2urec_core.data.tokens import prompts_of_part, prompts_of_split
    from e2urec_core.recommender import load

    rows = prompts_of_split(tokens, "train", retold)
    forgotten = numpy.isin(rows.example_ids, prompts_of_part(tokens, request, "forgotten").example_ids)
    stamp = Stamp.of(rows, original)
    return write_original(place, load(original, bench.device), rows, forgotten, rule, stamp, bench, earlier, kept(bench))


def cache_teachers(original: Path, augmented: Path, tokens: Path, request: Path, rule: CacheRule, bench: Bench, place: Path) -> int:
    """Keep both teachers' outputs on the rows to forget."""
    from e2urec_core.data.teacher_scoring import Stamp, write_forgotten
    from e2urec_core.data.tokens import prompts_of_part
    from e2urec_core.recommender import load

    rows = prompts_of_part(tokens, request, "forgotten")
    teachers = load(original, bench.device), load(augmented, bench.device)
    return write_forgotten(place, *teachers, rows, rule, Stamp.of(rows, original, augmented), bench, kept(bench))


def unlearn(
    method: Method,
    original: Path,
    tokens: Path,
    request: Path,
    augmented: Path | None,
    remembering: Path | None,
    teachers: Path | None,
    shards: Path | None,
    rule: CacheRule,
    backbone: Backbone,
    training: Training,
    bench: Bench,
    place: Path,
    *,
    retold: Path | None = None,
) -> int:
    """Let the method forget; store the merged recommender, and beside it the adapter that made it."""
    from e2urec_core.data.logit_cache import TeacherCache
    from e2urec_core.data.teacher_scoring import Stamp
    from e2urec_core.data.tokens import prompts_of_part, prompts_of_split, prompts_retold
    from e2urec_core.methods.base import Changed, Problem
    from e2urec_core.recommender import load
    from e2urec_core.sharding.system import ShardsFolder

    recommender = load(original, bench.device)
    retained, forgotten, validation = (prompts_of_part(tokens, request, part, retold) for part in ("retained", "forgotten", "validation"))
    changed = Changed.of(prompts_of_part(tokens, request, "retained"), prompts_retold(retold)) if retold else None
    cache = None
    if remembering and teachers and augmented:
        stamps: dict[Part, Stamp] = {
            "forgotten": Stamp.of(forgotten, original, augmented),
            "retained": Stamp.of(prompts_of_split(tokens, "train", retold), original),
        }
        cache = TeacherCache(remembering, teachers, {"forgotten": forgotten, "retained": retained}, stamps, rule)
    opened, fresh = ShardsFolder(shards) if shards else None, _fresh(tokens, backbone, bench)
    problem = Problem(recommender, retained, forgotten, validation, cache, opened, fresh, training, changed)
    outcome = method.unlearn(problem, bench)
    if bench.workers.is_main:
        trained = outcome.num_changed or outcome.recommender.count()["trainable_parameters"]
        if outcome.recommender.has_adapter:
            outcome.recommender.save_adapter(place / ADAPTER)
        merged = outcome.recommender.merged()
        merged.save(place)
        total = merged.count()["total_parameters"]
        counts = {"trainable_parameters": trained, "total_parameters": total}
        note(place, **_of(outcome.fitted), **counts, **outcome.facts)
    return len(forgotten)


def probe(interactions: Path, model: Path, prompt: PromptRule, history: HistoryRule, bench: Bench, place: Path) -> int:
    """Write invented rows with a recommender's scores, by which its copies are known again."""
    from e2urec_core.data.places import BUNDLE
    from e2urec_core.release.probe import write_probe

    (place / BUNDLE).mkdir(parents=True)
    return write_probe(interactions, prompt, history, model, bench, place / BUNDLE)


def _fresh(tokens: Path, backbone: Backbone, bench: Bench) -> Callable[[int], Recommender]:
    """Builds an untrained network with the tokenizer of the tokens, from a seed."""
    from e2urec_core.data.tokens import load_tokenizer

    return lambda seed: _on(bench, backbone.build(load_tokenizer(tokens), seed))


def _on(bench: Bench, recommender: Recommender) -> Recommender:
    recommender.network.to(bench.device)
    return recommender


def _fit_and_save(
    recommender: Recommender,
    rows: Prompts,
    validation: Prompts,
    training: Training,
    bench: Bench,
    place: Path,
    *,
    purpose: str = "training",
    left_out: numpy.ndarray | None = None,
    ordered_by: numpy.ndarray | None = None,
) -> int:
    from e2urec_core.training import fit_answers

    fitted = fit_answers(recommender, rows, validation, training, bench, purpose=purpose, left_out=left_out, ordered_by=ordered_by)
    if bench.workers.is_main:
        counted = recommender.count()
        merged = recommender.merged()
        merged.save(place)
        note(place, **_of(fitted), **{**merged.count(), "trainable_parameters": counted["trainable_parameters"]})
    return len(rows)


def _of(fitted: Fitted) -> dict[str, Any]:
    curve = [{"step": point.step, "loss": point.loss, "parts": dict(point.parts)} for point in fitted.curve]
    memory = {"token_budget": fitted.token_budget, "halved_at": list(fitted.halved_at)}
    return {"curve": curve, "validation": list(fitted.validation), "best_check": fitted.best_check, **memory}
