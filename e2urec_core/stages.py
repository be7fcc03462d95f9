"""What each stage does, on opened folders: read from the folders of earlier artifacts, write into `place`, return the rows.

Nothing here knows of handles, keys, retries or tracking, so that a stage can also be run alone. Every function that trains or scores
leaves a `facts.json` beside its files: what it did, in numbers that do not depend on the clock.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.data.places import EXAMPLES, FACTS, MARKS, USERS

if TYPE_CHECKING:
    import numpy
    import polars

    from data_contracts.teacher_logits import Part
    from e2urec_core.backbones.base import Backbone
    from e2urec_core.checkpoints import KeptTables
    from e2urec_core.data.batches import Prompts
    from e2urec_core.data.examples import HistoryRule
    from e2urec_core.data.forget import ForgetRule
    from e2urec_core.data.ingest import IngestRule
    from e2urec_core.data.prompts import PromptRule
    from e2urec_core.data.split import SplitRule
    from e2urec_core.datasets.base import Dataset
    from e2urec_core.engine import Bench
    from e2urec_core.methods.base import Method
    from e2urec_core.recommender import Recommender
    from e2urec_core.settings import Augment, CacheRule, ScoreRule, Sharding, Training
    from e2urec_core.training_state import Fitted

ADAPTER = "adapter"
SCORED = "model"
"""What `score` calls the recommender that it scores."""


def ingest(dataset: Dataset, rule: IngestRule, earlier: Path | None, place: Path) -> int:
    """Read the dataset and store its interactions, items and users, and what was put aside."""
    from e2urec_core.data.ingest import ingest as read

    return read(dataset, rule, place, earlier)


def split(interactions: Path, history: HistoryRule, rule: SplitRule, seed: int, place: Path) -> int:
    """Find every interaction's history, and cut the examples by time."""
    from e2urec_core.data.examples import write_examples

    return write_examples(interactions, history, rule, seed, place)


def forget(interactions: Path, examples: Path, rule: ForgetRule, seed: int, place: Path) -> int:
    """Choose who is forgotten and mark every example's part; the users' ids stay in a file of their own."""
    import polars as pl

    from e2urec_core.data.forget import choose_forgotten, mark_parts

    rows = pl.read_parquet(examples / EXAMPLES, columns=["example_id", "user_id", "timestamp_s", "split"])
    cohorts = pl.read_parquet(interactions / USERS, columns=["user_id", "cohort"])
    users = choose_forgotten(rows, cohorts, rule, seed)
    marks = mark_parts(rows, cohorts, users)
    _write(pl.DataFrame({"user_id": users}), place / "users.parquet")
    _write(marks, place / MARKS)
    counts = {str(part): int(count) for part, count in marks["part"].value_counts().iter_rows()}
    _note(place, counts={**counts, "forgotten_users": len(users), "users": rows["user_id"].n_unique()})
    return counts["forgotten"]


def tokenise(examples: Path, interactions: Path, prompt: PromptRule, backbone: Backbone, place: Path) -> int:
    """Write every example as a prompt, and that as token ids of the backbone's tokenizer, which is stored beside them."""
    from e2urec_core.data.tokens import training_texts, write_tokens

    told = write_tokens(examples, interactions, prompt, backbone.tokenizer(training_texts(examples, interactions, prompt)), place)
    _note(place, **dataclasses.asdict(told))
    return told.rows


def train_original(tokens: Path, backbone: Backbone, training: Training, bench: Bench, place: Path) -> int:
    """Train a recommender on all training rows."""
    from e2urec_core.data.tokens import prompts_of_split

    recommender = _fresh(tokens, backbone, bench)(bench.seed)
    rows, validation = (prompts_of_split(tokens, split) for split in ("train", "validation"))
    return _fit_and_save(recommender, rows, validation, training, bench, place)


def train_retrained(tokens: Path, request: Path, backbone: Backbone, training: Training, bench: Bench, place: Path) -> int:
    """Train a recommender on the retained rows alone.

    With the original's seed it is paired with the original: the same initial weights, and the same rows in the same steps less the
    forgotten ones. The tokenizer is the original's, because distances between vocabularies mean nothing.
    """
    import numpy

    from e2urec_core.data.tokens import prompts_of_part, prompts_of_split

    recommender = _fresh(tokens, backbone, bench)(bench.seed)
    rows = prompts_of_split(tokens, "train")
    left_out = numpy.isin(rows.example_ids, prompts_of_part(tokens, request, "forgotten").example_ids)
    _fit_and_save(recommender, rows, prompts_of_part(tokens, request, "validation"), training, bench, place, left_out=left_out)
    return int((~left_out).sum())


def train_augmented(original: Path, tokens: Path, request: Path, augment: Augment, bench: Bench, place: Path) -> int:
    """Train the original further on the forgotten rows alone: the whole of it, or an adapter that is merged at the end."""
    from e2urec_core.data.tokens import prompts_of_part
    from e2urec_core.recommender import load

    recommender = load(original, bench.device)
    student = recommender.with_adapter(augment.lora, bench.seed) if augment.trains == "adapter" else recommender.trainable()
    forgotten, validation = (prompts_of_part(tokens, request, part) for part in ("forgotten", "validation"))
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
        _note(place, **told, **_of(fitted))
    return len(rows)


def cache_original(original: Path, tokens: Path, request: Path, rule: CacheRule, earlier: Sequence[Path], bench: Bench, place: Path) -> int:
    """Keep the original's outputs on the retained rows that unlearning may draw."""
    import numpy

    from e2urec_core.data.teacher_scoring import Stamp, write_original
    from e2urec_core.data.tokens import prompts_of_part, prompts_of_split
    from e2urec_core.recommender import load

    rows = prompts_of_split(tokens, "train")
    forgotten = numpy.isin(rows.example_ids, prompts_of_part(tokens, request, "forgotten").example_ids)
    stamp = Stamp.of(rows, original)
    return write_original(place, load(original, bench.device), rows, forgotten, rule, stamp, bench, earlier, _kept(bench))


def cache_teachers(original: Path, augmented: Path, tokens: Path, request: Path, rule: CacheRule, bench: Bench, place: Path) -> int:
    """Keep both teachers' outputs on the rows to forget."""
    from e2urec_core.data.teacher_scoring import Stamp, write_forgotten
    from e2urec_core.data.tokens import prompts_of_part
    from e2urec_core.recommender import load

    rows = prompts_of_part(tokens, request, "forgotten")
    teachers = load(original, bench.device), load(augmented, bench.device)
    return write_forgotten(place, *teachers, rows, rule, Stamp.of(rows, original, augmented), bench, _kept(bench))


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
) -> int:
    """Let the method forget; store the merged recommender, and beside it the adapter that made it."""
    from e2urec_core.data.logit_cache import TeacherCache
    from e2urec_core.data.teacher_scoring import Stamp
    from e2urec_core.data.tokens import prompts_of_part, prompts_of_split
    from e2urec_core.methods.base import Problem
    from e2urec_core.recommender import load
    from e2urec_core.sharding.system import ShardsFolder

    recommender = load(original, bench.device)
    retained, forgotten, validation = (prompts_of_part(tokens, request, part) for part in ("retained", "forgotten", "validation"))
    cache = None
    if remembering and teachers and augmented:
        stamps: dict[Part, Stamp] = {
            "forgotten": Stamp.of(forgotten, original, augmented),
            "retained": Stamp.of(prompts_of_split(tokens, "train"), original),
        }
        cache = TeacherCache(remembering, teachers, {"forgotten": forgotten, "retained": retained}, stamps, rule)
    opened, fresh = ShardsFolder(shards) if shards else None, _fresh(tokens, backbone, bench)
    outcome = method.unlearn(Problem(recommender, retained, forgotten, validation, cache, opened, fresh, training), bench)
    if bench.workers.is_main:
        counted = outcome.recommender.count()
        if outcome.recommender.has_adapter:
            outcome.recommender.save_adapter(place / ADAPTER)
        merged = outcome.recommender.merged()
        merged.save(place)
        total = merged.count()["total_parameters"]
        counts = {"trainable_parameters": counted["trainable_parameters"], "total_parameters": total}
        _note(place, **_of(outcome.fitted), **counts, **outcome.facts)
    return len(forgotten)


def score(model: Path, tokens: Path, request: Path, asked: ScoreRule, bench: Bench, place: Path) -> int:
    """Score one recommender on the groups of rows that are asked for."""
    from e2urec_core.data.tokens import prompts_of_part
    from e2urec_core.scoring import write_scores

    rows = {str(group): prompts_of_part(tokens, request, group) for group in asked.groups}
    return write_scores(place, [(SCORED, model)], rows, bench, _kept(bench))


def evaluate(models: Sequence[tuple[str, Path]], subject: str, tokens: Path, request: Path, bench: Bench, place: Path) -> int:
    """Score every model on every group of rows and measure them against the paired Retrain.

    Args:
        models: Name and folder of each: `original`, `retrain`, the method's kind, then further Retrains.
        subject: The method's kind.
        tokens: Folder of the tokens.
        request: Folder of the forget request.
        bench: Seed, device, watcher.
        place: Where `scores.parquet` and `facts.json` go.
    """
    from e2urec_core.data.tokens import prompts_of_part
    from e2urec_core.evaluation import GROUPS, ORIGINAL, RETRAIN, histogram, measure, measure_apart, seed_floor
    from e2urec_core.scoring import read_scores, write_scores

    rows = {group: prompts_of_part(tokens, request, group) for group in GROUPS}
    scored = write_scores(place, models, rows, bench, _kept(bench))
    if not bench.workers.is_main:
        return scored
    groups = read_scores(place, [name for name, _ in models])
    compared = [ORIGINAL, RETRAIN, subject]
    further = [name for name, _ in models if name not in compared]
    floor = seed_floor(groups, further)
    _note(
        place,
        rows={name: measure(groups, name) for name in compared},
        forgotten_test=[{"method": name, **measure_apart(groups, name)} for name in compared] if len(rows["forgotten_test"]) else [],
        seed_floor=floor.canonical() if floor else None,
        probabilities=histogram(groups, compared).canonical(),
    )
    return scored


def facts(folder: Path) -> dict[str, Any]:
    """What a stage noted about itself."""
    noted: dict[str, Any] = json.loads((folder / FACTS).read_bytes())
    return noted


def _kept(bench: Bench) -> KeptTables | None:
    from e2urec_core.checkpoints import KeptTables

    return KeptTables(bench.checkpoints.folder) if bench.checkpoints else None


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
) -> int:
    from e2urec_core.training import fit_answers

    fitted = fit_answers(recommender, rows, validation, training, bench, purpose=purpose, left_out=left_out)
    if bench.workers.is_main:
        counted = recommender.count()
        merged = recommender.merged()
        merged.save(place)
        _note(place, **_of(fitted), **{**merged.count(), "trainable_parameters": counted["trainable_parameters"]})
    return len(rows)


def _of(fitted: Fitted) -> dict[str, Any]:
    curve = [{"step": point.step, "loss": point.loss, "parts": dict(point.parts)} for point in fitted.curve]
    memory = {"token_budget": fitted.token_budget, "halved_at": list(fitted.halved_at)}
    return {"curve": curve, "validation": list(fitted.validation), "best_check": fitted.best_check, **memory}


def _note(place: Path, **noted: Any) -> None:
    (place / FACTS).write_text(json.dumps(noted, sort_keys=True, allow_nan=False))


def _write(table: polars.DataFrame, path: Path) -> None:
    # Statistics would put the smallest and largest user id into the footer, where a scan for them must look too.
    table.write_parquet(path, compression="zstd", statistics=False)
