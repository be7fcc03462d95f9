"""How many times faster unlearning is here than as the reference runs it: by row drawn, and until equal quality.

A ratio is the rival's seconds over ours: above 1, this project is faster. See `benchmarks/README.md` for what is inside of the timings.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import Stamps, clock, emit, machine, median_ratio, progress, ready
from benchmarks.ours import FORMS, PREPARING, Judge, rounded, spread, unlearn, with_form
from benchmarks.problem import Inputs, flags_of, parser_of, settings_of, timed, workspace
from benchmarks.rival import draws, run_rival
from e2urec_core import stages
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.data.teacher_scoring import Stamp
from e2urec_core.data.tokens import load_tokenizer, prompts_of_split, write_tokens
from e2urec_core.methods.base import Method
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.recommender import Recommender
from e2urec_core.settings import CacheRule

DATASET = "sample"
BATCH = 16
"""Forgotten rows in a step of the reference."""
RIVAL_RATES = (1e-3, 4e-3)
"""Learning rates of which the rival takes the one that reaches the target first on the tuning seed."""
TUNING_SEED = 10
PASSES = 2
"""Passes over the forgotten rows in which seconds by row are measured."""
QUICK = {"dataset.num_users": "120", "training.num_epochs": "3"}


@dataclass(frozen=True)
class Check:
    """The rival's student at one point of its run; `seconds` leaves the checks themselves out."""

    step: int
    seconds: float
    quality: dict[str, float | None]

    def meets(self, residual: float, validation_auc: float) -> bool:
        """Whether both bounds are kept."""
        reached, useful = self.quality["residual"], self.quality["validation_auc"]
        return reached is not None and useful is not None and reached <= residual and useful >= validation_auc


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
    rule = run.cache.planned(method.retained_draws(), method.freezes_encoder())
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
            rule,
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
    forgotten, retained = inputs.prompts("forgotten"), inputs.prompts("retained")
    everyone = prompts_of_split(inputs.tokens, "train")
    cache = TeacherCache(
        caches / "cache_original",
        caches / "cache_teachers",
        {"forgotten": forgotten, "retained": retained},
        {"forgotten": Stamp.of(forgotten, inputs.original, augmented), "retained": Stamp.of(everyone, inputs.original)},
        rule,
    )
    seed = inputs.run.seed
    beside = cache.endless("retained", batch_size, seed, 0)
    passes = (cache.batches("forgotten", batch_size, seed, number) for number in range(PASSES))
    return [len(part.index) + len(next(beside).index) for part in itertools.chain.from_iterable(passes)]


def rival_checks(
    inputs: Inputs, judge: Judge, rate: float, *, targets: Sequence[tuple[float, float]], passes: int, seed: int
) -> list[Check]:
    """The rival's student at fixed points, until it has met all `targets` or its passes are over.

    It runs at its best: with the answer position alone, as the original was trained, and the suppression and weight of ours.
    """
    run = with_form(inputs.run, DATASET, "method")
    method = run.method
    assert isinstance(method, E2URec)
    forgotten, retained = inputs.rows("forgotten"), inputs.rows("retained")
    every = max(1, min(len(forgotten), len(retained)) // BATCH // 4)
    checks: list[Check] = []

    def after(step: int, seconds: float, student: Recommender) -> bool:
        if step % every:
            return True
        checks.append(Check(step, seconds, judge.quality(student)))
        return not all(any(check.meets(*target) for check in checks) for target in targets)

    done = run_rival(
        inputs.original,
        inputs.augmented(inputs.run.augment),
        forgotten,
        retained,
        suppression=method.suppression,
        forget_weight=method.forget_weight,
        learning_rate=rate,
        num_epochs=passes,
        batch_size=BATCH,
        seed=seed,
        after_step=after,
        target_tail=(),
    )
    if not checks or checks[-1].step != done.steps:
        checks.append(Check(done.steps, done.seconds, judge.quality(done.student)))
    return checks


def our_end(inputs: Inputs, judge: Judge, form: str, place: Path) -> dict[str, Any]:
    """What a form of ours takes and where it ends; tokenising all rows once is counted."""
    run = with_form(inputs.run, DATASET, form)
    augmented = inputs.augmented(run.augment)
    place.mkdir(parents=True)
    tokenising = timed(lambda: write_tokens(inputs.examples, load_tokenizer(inputs.tokens), place))
    made = unlearn(inputs, run, augmented, place / form)
    seconds = {"tokenise": tokenising, **made.seconds}
    return {"seconds": sum(seconds.values()), "by_stage": seconds, "steps": made.steps, **judge.quality(made.folder)}


def one_seed(inputs: Inputs, root: Path, rates: Sequence[float], *, further: int, passes: int) -> dict[str, Any]:
    """Ours, then the rival, then ours again, so that load of the machine hits both; our seconds are the mean of both times."""
    judge, seed = Judge(inputs, further), inputs.run.seed
    retrains = judge.retrains()
    floor, best = spread(retrains, "validation_auc"), retrains[0]["validation_auc"]
    assert floor is not None, "the validation rows have one label only"
    assert best is not None
    first = {form: our_end(inputs, judge, form, root / f"before-{form}") for form in FORMS[DATASET]}
    # Where the original is worse than a Retrain, nobody has to mend it.
    original = judge.quality(inputs.original)["validation_auc"]
    assert original is not None
    bar = min(best, original) - floor
    targets = [(end["residual"], bar) for end in first.values()]
    rival = {rate: rival_checks(inputs, judge, rate, targets=targets, passes=passes, seed=seed) for rate in rates}
    second = {form: our_end(inputs, judge, form, root / f"after-{form}") for form in first}
    forms = {}
    for form, end in first.items():
        seconds = statistics.mean([end["seconds"], second[form]["seconds"]])
        useful = end["validation_auc"] >= bar
        forms[form] = {**end, "seconds": seconds, "useful": useful, "rival": {}}
        for rate, checks in rival.items():
            met = next((check for check in checks if check.meets(end["residual"], bar)), None)
            at = met or checks[-1]
            forms[form]["rival"][str(rate)] = {"reached": met is not None, "seconds": at.seconds, "step": at.step, **at.quality}
            forms[form]["rival"][str(rate)]["ratio"] = at.seconds / seconds if useful else None
        progress(f"  seed {seed}, {form}: residual {end['residual']:.3f}, validation AUC {end['validation_auc']:.4f}, {seconds:.1f} s")
    return {"seed": seed, "least_validation_auc": bar, "floor": floor, "retrains": retrains, "forms": forms}


def best_rate(tuned: dict[str, Any], form: str) -> float:
    """The rival's rate that reached the target of a form first; without one that did, the one that came nearest."""
    by_rate = tuned["forms"][form]["rival"]
    return float(min(by_rate, key=lambda rate: (not by_rate[rate]["reached"], by_rate[rate]["seconds"], by_rate[rate]["residual"])))


def summary(seeds: list[dict[str, Any]], form: str, rate: float) -> dict[str, Any]:
    """The median ratio of one form over the seeds on which it kept the utility; without one, null."""
    ends = [seed["forms"][form]["rival"][str(rate)] for seed in seeds]
    counted = [end for end in ends if end["ratio"] is not None]
    ratio = statistics.median(end["ratio"] for end in counted) if counted else None
    return {"ratio": ratio, "seeds_counted": len(counted), "reached": all(end["reached"] for end in counted)}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = parser_of("unlearning", "The rival's seconds over ours: by row drawn, and until equal quality.")
    parser.add_argument("--passes", type=int, help="Most passes of the rival over the forgotten rows.")
    parser.add_argument("--pairs", type=int, help="Pairs of the ratio by row.")
    told = parser.parse_args(arguments)
    ready()
    seeds = told.seeds or ([0] if told.quick else [0, 1, 2])
    passes, num_pairs = told.passes or (3 if told.quick else 10), told.pairs or (3 if told.quick else 7)
    further, flags = 1 if told.quick else 2, flags_of(told, QUICK)
    with workspace(told.workspace) as kept, workspace(None) as scratch:

        def inputs_of(seed: int) -> Inputs:
            return Inputs(settings_of(DATASET, seed, flags), kept)

        inputs = inputs_of(seeds[0])
        progress("by row drawn")
        by_row = per_row(inputs, scratch, BATCH, num_pairs)
        own = per_row(inputs, scratch, inputs.run.method.canonical()["training"]["batch_size"], num_pairs)
        progress("until equal quality")
        tuned = None if told.quick else one_seed(inputs_of(TUNING_SEED), scratch / "tuning", RIVAL_RATES, further=further, passes=passes)
        rates = {form: best_rate(tuned, form) if tuned else RIVAL_RATES[-1] for form in FORMS[DATASET]}
        tried = sorted(set(rates.values()))
        ends = [one_seed(inputs_of(seed), scratch / str(seed), tried, further=further, passes=passes) for seed in seeds]
        method, variants = (summary(ends, form, rates[form]) for form in ("method", "variants"))
    emit(
        rounded(
            {
                "per_row_ratio": by_row["ratio"],
                "per_row_ratio_own_batch": own["ratio"],
                "same_quality_ratio": method["ratio"],
                "same_quality_ratio_variants": variants["ratio"],
                "reached": method["reached"],
                "reached_variants": variants["reached"],
                "seeds_counted": method["seeds_counted"],
                "seeds_counted_variants": variants["seeds_counted"],
                "rival_learning_rate": rates,
                "per_row": by_row,
                "per_row_own_batch": own,
                "same_quality": ends,
                "tuning": tuned,
                "settings": FORMS[DATASET],
                "quick": told.quick,
                "machine": machine(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
