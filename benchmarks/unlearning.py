"""How many times faster unlearning is here than as the reference runs it: by row drawn, and until equal quality.

A ratio is the rival's seconds over ours: above 1, this project is faster. See `benchmarks/README.md` for what is inside of the timings.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.crossing import BATCH, LEFT_OUT, Crossing, opened, over_seeds, ratio, target_of
from benchmarks.measuring import Stamps, clock, emit, machine, median_ratio, progress, ready
from benchmarks.ours import PREPARING, Judge, rounded, unlearn
from benchmarks.problem import Inputs, flags_of, parser_of, settings_of, workspace
from benchmarks.rival import draws, run_rival
from benchmarks.tuning import CHOSEN, TUNING_SEEDS, Flags, crossed, of_width, tune
from e2urec_core import stages
from e2urec_core.methods.base import Method
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.recommender import Recommender
from e2urec_core.settings import CacheRule

DATASET = "sample"
FORMS_OF_OURS = ("method", "variants")
LEVEL = 0.5
"""Largest residual that is good enough: both sides came to it on every tuning seed, to 0.4 neither did on one of them (LOG.md)."""
PASSES = 2
"""Passes over the forgotten rows in which seconds by row are measured."""
QUICK = {"dataset.num_users": "120", "training.num_epochs": "3"}


def per_row(inputs: Inputs, root: Path, batch_size: int, num_pairs: int) -> dict[str, Any]:
    """Seconds a drawn row takes on both sides, from the first step to the last.

    Args:
        inputs: Rows, original, augmented model.
        root: Folder for caches and students.
        batch_size: Forgotten rows in a step of ours; the rival keeps the reference's.
        num_pairs: How often both are measured, in turns.
    """
    run, augmented = inputs.run, inputs.augmented(inputs.run.augment)
    plain = E2URec()
    schedule = plain.training.model_copy(update={"batch_size": batch_size, "num_epochs": PASSES})
    method: Method = plain.model_copy(update={"training": schedule})
    rule = run.cache.planned(method.retained_draws(), method.freezes_encoder(), method.retained_at_least())
    made = unlearn(inputs, run.model_copy(update={"method": method}), augmented, root / f"cache-{batch_size}")
    caches = made.folder.parent
    rows = sum(ours_drawn(inputs, rule, augmented, caches, batch_size)[1:])
    forgotten, retained = inputs.rows("forgotten"), inputs.rows("retained")
    drawn = draws(len(forgotten), len(retained), BATCH, PASSES, 0)
    rival_rows = sum(len(one) + len(other) for one, other in itertools.islice(drawn, 1, None))

    def ours() -> float:
        stamps, place = Stamps(), root / "student"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        stages.unlearn(
            method,
            inputs.original,
            inputs.tokens,
            inputs.request,
            augmented,
            caches / "cache_original",
            caches / "cache_teachers",
            None,
            rule,
            run.backbone,
            run.training,
            inputs.bench(stamps),
            place,
        )
        return stamps.between(0) / rows

    def theirs() -> float:
        at: list[float] = []

        def after(step: int, seconds: float, student: Recommender) -> bool:
            at.append(clock())
            return True

        run_rival(
            inputs.original,
            augmented,
            forgotten,
            retained,
            suppression=plain.suppression,
            forget_weight=plain.forget_weight,
            learning_rate=schedule.learning_rate,
            num_epochs=PASSES,
            batch_size=BATCH,
            seed=0,
            after_step=after,
        )
        return (at[-1] - at[0]) / rival_rows

    pairs = []
    for number in range(num_pairs):
        if number % 2:
            mine = ours()
            pairs.append((theirs(), mine))
        else:
            rival = theirs()
            pairs.append((rival, ours()))
    return {
        "ratio": median_ratio(pairs),
        "batch_size": batch_size,
        "rival_seconds_per_row": [rival for rival, _ in pairs],
        "our_seconds_per_row": [mine for _, mine in pairs],
        "rival_rows": rival_rows,
        "our_rows": rows,
        "cache_seconds": sum(made.seconds[stage] for stage in PREPARING),
    }


def ours_drawn(inputs: Inputs, rule: CacheRule, augmented: Path, caches: Path, batch_size: int) -> list[int]:
    """Rows that each step of ours draws."""
    cache, seed = opened(inputs, rule, augmented, caches), inputs.run.seed
    beside = cache.endless("retained", batch_size, seed, 0)
    passes = (cache.batches("forgotten", batch_size, seed, number) for number in range(PASSES))
    return [len(part.index) + len(next(beside).index) for part in itertools.chain.from_iterable(passes)]


def until_target(inputs: Inputs, root: Path, settings: Mapping[str, Flags], level: float, *, further: int, passes: int) -> dict[str, Any]:
    """One seed: each form of ours, then the rival, then ours again, so that load of the machine hits both."""
    judge, seed = Judge(inputs, further), inputs.run.seed
    target, retrains = target_of(judge, level)

    def run(side: str, turn: str) -> Crossing:
        place = root / f"{side}-{turn}"
        made = crossed(side, inputs, settings[side], judge, target, passes, place)
        shutil.rmtree(place, ignore_errors=True)
        word = "reached" if made.reached else "not reached"
        progress(
            f"  seed {seed}, {side}: {word} at step {made.checks[-1].step}, {made.seconds():.2f} s, residual {made.last['residual']:.3f}"
        )
        return made

    before = {form: run(form, "before") for form in FORMS_OF_OURS}
    rival = run("rival", "between")
    ours = {form: [before[form], run(form, "after")] for form in FORMS_OF_OURS}
    return {
        "seed": seed,
        "target": asdict(target),
        "retrains": retrains,
        "original": judge.quality(inputs.original, ("validation", "test")),
        "rival": rival.told(),
        "ours": {form: [one.told() for one in runs] for form, runs in ours.items()},
        "ratios": {form: {counted: ratio(rival, runs, counted) for counted in LEFT_OUT} for form, runs in ours.items()},
    }


def summary(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The keys of the ratio until equal quality, over all seeds."""
    over = {
        (form, counted): over_seeds([seed["ratios"][form][counted] for seed in seeds]) for form in FORMS_OF_OURS for counted in LEFT_OUT
    }
    variants = {counted: over["variants", counted]["ratio"] for counted in LEFT_OUT}
    return {
        "same_quality_ratio": variants["all"],
        "same_quality_ratio_prepared": variants["prepared"],
        "same_quality_ratio_later": variants["later"],
        "same_quality_ratio_method": over["method", "all"]["ratio"],
        "same_quality_bound": over["variants", "all"]["bound"],
        "same_quality_bound_method": over["method", "all"]["bound"],
        "same_quality_by_seed": {
            form: {counted: [seed["ratios"][form][counted]["ratio"] for seed in seeds] for counted in LEFT_OUT} for form in FORMS_OF_OURS
        },
        "reached": {
            "rival": [seed["rival"]["reached"] for seed in seeds],
            **{form: [all(one["reached"] for one in seed["ours"][form]) for seed in seeds] for form in FORMS_OF_OURS},
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = parser_of("unlearning", "The rival's seconds over ours: by row drawn, and until equal quality.")
    parser.add_argument("--level", type=float, default=LEVEL, help="Largest residual that is good enough.")
    parser.add_argument("--passes", type=int, help="Most passes of either side over the forgotten rows until equal quality.")
    parser.add_argument("--pairs", type=int, help="Pairs of the ratio by row; 0 leaves it out.")
    parser.add_argument("--further", type=int, help="Further Retrains, from whose spread the floor is taken.")
    parser.add_argument("--tune", action="store_true", help="Try the settings of both sides on the tuning seeds, and measure nothing.")
    told = parser.parse_args(arguments)
    ready()
    default_seeds = [0] if told.quick else [*TUNING_SEEDS] if told.tune else [0, 1, 2]
    seeds = told.seeds or default_seeds
    passes = told.passes or (2 if told.quick else 4)
    num_pairs = (3 if told.quick else 7) if told.pairs is None else told.pairs
    further, flags = told.further or (1 if told.quick else 2), flags_of(told, QUICK)
    with workspace(told.workspace) as kept, workspace(None) as scratch:

        def inputs_of(seed: int) -> Inputs:
            return Inputs(settings_of(DATASET, seed, flags), kept)

        inputs, result = inputs_of(seeds[0]), dict[str, Any]()
        if told.tune:
            progress("tuning")
            result = {"tuning": tune(inputs_of, seeds, told.level, further=further, passes=passes, root=scratch)}
        else:
            by_row = own = None
            if num_pairs:
                progress("by row drawn")
                by_row = per_row(inputs, scratch, BATCH, num_pairs)
                own = per_row(inputs, scratch, inputs.run.method.canonical()["training"]["batch_size"], num_pairs)
            progress("until equal quality")
            settings = of_width(CHOSEN, inputs.run)
            ends = [
                until_target(inputs_of(seed), scratch / str(seed), settings, told.level, further=further, passes=passes) for seed in seeds
            ]
            result = {
                "per_row_ratio": by_row and by_row["ratio"],
                "per_row_ratio_own_batch": own and own["ratio"],
                **summary(ends),
                "level": told.level,
                "passes": passes,
                "settings": settings,
                "per_row": by_row,
                "per_row_own_batch": own,
                "same_quality": ends,
            }
    emit(
        rounded(
            {
                **result,
                "network": inputs.run.backbone.canonical(),
                "precision": inputs.run.precision,
                "quick": told.quick,
                "machine": machine(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
