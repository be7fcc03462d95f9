"""What each stage does, on opened folders: read from the folders of earlier artifacts, write into `place`, return the rows.

Nothing here knows of handles, keys, retries or tracking, so that a stage can also be run alone. Every function that trains or scores
leaves a `facts.json` beside its files: what it did, in numbers that do not depend on the clock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.data.rows import EXAMPLES, MARKS, rows_of_part, rows_of_split

if TYPE_CHECKING:
    import numpy
    import polars

    from e2urec_core.backbones.base import Backbone
    from e2urec_core.data.batches import Prompts
    from e2urec_core.data.forget import ForgetRule
    from e2urec_core.data.logit_cache import Part
    from e2urec_core.data.prompts import PromptRule
    from e2urec_core.data.split import SplitRule
    from e2urec_core.datasets.base import Dataset
    from e2urec_core.methods.base import Method
    from e2urec_core.recommender import Recommender
    from e2urec_core.settings import CacheRule, Training
    from e2urec_core.training import Bench, Fitted

FACTS = "facts.json"
INTERACTIONS, ITEMS, USERS = "interactions.parquet", "items.parquet", "users.parquet"
ADAPTER = "adapter"


def ingest(dataset: Dataset, place: Path) -> int:
    """Read the dataset and store its three tables in one fixed order."""
    from e2urec_core.datasets.base import ordered

    tables = ordered(dataset.read())
    for name, table in ((INTERACTIONS, tables.interactions), (ITEMS, tables.items), (USERS, tables.users)):
        _write(table, place / name)
    return tables.interactions.height


def split(interactions: Path, prompt: PromptRule, rule: SplitRule, seed: int, place: Path) -> int:
    """Render the prompts and cut them by time."""
    import polars as pl

    from e2urec_core.data.prompts import build_prompts
    from e2urec_core.data.split import split_by_time
    from e2urec_core.datasets.base import Tables

    tables = Tables(*(pl.read_parquet(interactions / name) for name in (INTERACTIONS, ITEMS, USERS)))
    rows = split_by_time(build_prompts(tables, prompt), tables.users.select("user_id", "cohort"), rule, seed)
    _write(rows.select("example_id", "user_id", "item_id", "timestamp_s", "rating", "split", "prompt", "label"), place / EXAMPLES)
    return rows.height


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


def train_original(examples: Path, backbone: Backbone, training: Training, bench: Bench, place: Path) -> int:
    """Train a recommender on all training rows."""
    rows = rows_of_split(examples, "train")
    recommender = _on(bench, backbone.build(rows.texts, bench.seed))
    return _fit_and_save(
        recommender, rows.tokenised(recommender), rows_of_split(examples, "validation").tokenised(recommender), training, bench, place
    )


def train_retrained(
    original: Path, examples: Path, request: Path, backbone: Backbone, training: Training, bench: Bench, place: Path
) -> int:
    """Train a recommender on the retained rows alone.

    With the original's seed it is paired with the original: the same initial weights, and the same rows in the same steps less the
    forgotten ones. The tokenizer is the original's, because distances between vocabularies mean nothing.
    """
    import numpy

    from e2urec_core.recommender import load_tokenizer

    rows, forgotten = rows_of_split(examples, "train"), rows_of_part(examples, request, "forgotten")
    recommender = _on(bench, backbone.build([], bench.seed, load_tokenizer(original)))
    validation = rows_of_part(examples, request, "validation").tokenised(recommender)
    left_out = numpy.isin(rows.example_ids, forgotten.example_ids)
    _fit_and_save(recommender, rows.tokenised(recommender), validation, training, bench, place, left_out=left_out)
    return int((~left_out).sum())


def train_augmented(original: Path, examples: Path, request: Path, training: Training, bench: Bench, place: Path) -> int:
    """Train the original further on the forgotten rows alone."""
    from e2urec_core.recommender import load

    recommender = load(original, bench.device).trainable()
    forgotten = rows_of_part(examples, request, "forgotten").tokenised(recommender)
    validation = rows_of_part(examples, request, "validation").tokenised(recommender)
    return _fit_and_save(recommender, forgotten, validation, training, bench, place, purpose="augmented")


def cache_teachers(original: Path, augmented: Path, examples: Path, request: Path, rule: CacheRule, bench: Bench, place: Path) -> int:
    """Score the rows that unlearning may draw with both teachers and keep their outputs."""
    from e2urec_core.checkpoints import KeptTables
    from e2urec_core.data.logit_cache import Stamp, planned_rows, write_cache
    from e2urec_core.recommender import load

    teachers = load(original, bench.device), load(augmented, bench.device)
    rows = _request_rows(examples, request, teachers[0])
    total = sum(len(order) for order in planned_rows(len(rows["retained"]), len(rows["forgotten"]), rule, bench.seed).values())
    done = 0

    def each(count: int) -> None:
        nonlocal done
        done += count
        bench.watch(done, total, "rows", {})

    kept = KeptTables(bench.checkpoints.folder) if bench.checkpoints else None
    return write_cache(place, *teachers, rows, rule, Stamp.of(original, augmented), bench.seed, each, kept)


def unlearn(
    method: Method,
    original: Path,
    examples: Path,
    request: Path,
    augmented: Path | None,
    teachers: Path | None,
    bench: Bench,
    place: Path,
) -> int:
    """Let the method forget; store the merged recommender, and beside it the adapter that made it."""
    from e2urec_core.data.logit_cache import Stamp, TeacherCache
    from e2urec_core.methods.base import Problem
    from e2urec_core.recommender import load

    recommender = load(original, bench.device)
    rows = _request_rows(examples, request, recommender)
    cache = TeacherCache(teachers, Stamp.of(original, augmented), rows) if teachers and augmented else None
    validation = rows_of_part(examples, request, "validation").tokenised(recommender)
    outcome = method.unlearn(Problem(recommender, rows["retained"], rows["forgotten"], validation, cache), bench)
    counted = outcome.recommender.count()
    if outcome.recommender.has_adapter:
        outcome.recommender.save_adapter(place / ADAPTER)
    merged = outcome.recommender.merged()
    merged.save(place)
    _note(
        place,
        **_of(outcome.fitted),
        trainable_parameters=counted["trainable_parameters"],
        total_parameters=merged.count()["total_parameters"],
    )
    return len(rows["forgotten"])


def evaluate(models: Sequence[tuple[str, Path]], subject: str, examples: Path, request: Path, bench: Bench, place: Path) -> int:
    """Score every model on every group of rows and measure them against the paired Retrain.

    Args:
        models: Name and folder of each: `original`, `retrain`, the method's kind, then further Retrains.
        subject: The method's kind.
        examples: Folder of the examples.
        request: Folder of the forget request.
        bench: Seed, device, watcher.
        place: Where `scores.parquet` and `facts.json` go.
    """
    import polars as pl

    from e2urec_core.evaluation import GROUPS, ORIGINAL, RETRAIN, Scored, histogram, measure, measure_apart, seed_floor
    from e2urec_core.recommender import load

    rows = {group: rows_of_part(examples, request, group) for group in GROUPS}
    yes: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for done, (name, folder) in enumerate(models):
        recommender = load(folder, bench.device)
        for group in GROUPS:
            yes[group][name] = recommender.score(rows[group].tokenised(recommender))
        bench.watch(done + 1, len(models), "models", {})
    groups = {group: Scored(rows[group].example_ids, rows[group].labels, yes[group]) for group in GROUPS}
    table = pl.concat(
        pl.DataFrame({"example_id": scored.example_ids, "label": scored.labels, "yes_probability": scored.yes[name]}).with_columns(
            pl.lit(group).alias("group"), pl.lit(name).alias("model")
        )
        for group, scored in groups.items()
        for name, _ in models
    )
    _write(table.select("example_id", "label", "group", "model", "yes_probability"), place / "scores.parquet")
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
    return table.height


def facts(folder: Path) -> dict[str, Any]:
    """What a stage noted about itself."""
    noted: dict[str, Any] = json.loads((folder / FACTS).read_bytes())
    return noted


def _request_rows(examples: Path, request: Path, recommender: Recommender) -> dict[Part, Prompts]:
    return {
        "forgotten": rows_of_part(examples, request, "forgotten").tokenised(recommender),
        "retained": rows_of_part(examples, request, "retained").tokenised(recommender),
    }


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
    recommender.save(place)
    _note(place, **_of(fitted), **recommender.count())
    return len(rows)


def _of(fitted: Fitted) -> dict[str, Any]:
    curve = [{"step": point.step, "loss": point.loss, "parts": dict(point.parts)} for point in fitted.curve]
    return {"curve": curve, "validation": list(fitted.validation), "best_pass": fitted.best_pass}


def _note(place: Path, **noted: Any) -> None:
    (place / FACTS).write_text(json.dumps(noted, sort_keys=True, allow_nan=False))


def _write(table: polars.DataFrame, path: Path) -> None:
    # Statistics would put the smallest and largest user id into the footer, where a scan for them must look too.
    table.write_parquet(path, compression="zstd", statistics=False)
