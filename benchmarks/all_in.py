"""What forgetting takes with everything it needs, over a Retrain: the share of a Retrain's seconds.

A ratio is ours over Retrain's: below 1, unlearning is cheaper. See `benchmarks/README.md` for what is inside of the timings.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import emit, machine, progress, ready
from benchmarks.ours import FORMS, Judge, rounded, spread, unlearn, with_form
from benchmarks.problem import Inputs, flags_of, parser_of, settings_of, timed, workspace
from e2urec_core import stages

PARTS = ("test", "holdout")
COMPARED = ("test_auc", "forgotten_auc", "attack_auc")
QUICK: dict[str, dict[str, str]] = {
    "sample": {"dataset.num_users": "150", "training.num_epochs": "3"},
    "ml-1m": {"split.last_examples": "4000", "training.num_epochs": "1", "augment.num_epochs": "1"},
}


def retrain(inputs: Inputs, place: Path) -> float:
    """Seconds of the paired Retrain, written into `place`."""
    place.mkdir(parents=True)
    run, tokens, request, bench = inputs.run, inputs.tokens, inputs.request, inputs.bench()
    return timed(lambda: stages.train_retrained(tokens, request, run.backbone, run.training, bench, place))


def ours(inputs: Inputs, dataset: str, form: str, place: Path) -> dict[str, Any]:
    """Seconds by stage of a form, from the original to the merged recommender, which is written below `place`."""
    run, original, tokens, request, bench = (
        with_form(inputs.run, dataset, form),
        inputs.original,
        inputs.tokens,
        inputs.request,
        inputs.bench(),
    )
    augmented = place / "train_augmented"
    augmented.mkdir(parents=True)
    training = timed(lambda: stages.train_augmented(original, tokens, request, run.augment, bench, augmented))
    made = unlearn(inputs, run, augmented, place / "unlearn")
    return {"seconds": {"train_augmented": training, **made.seconds}, "steps": made.steps, "folder": made.folder}


def one_seed(inputs: Inputs, dataset: str, root: Path, further: int) -> dict[str, Any]:
    """Retrain, both forms, then Retrain again, so that load of the machine hits all; Retrain's seconds are the mean of both."""
    judge = Judge(inputs, further)
    _ = inputs.original
    before = retrain(inputs, root / "retrain-before")
    forms = {form: ours(inputs, dataset, form, root / form) for form in FORMS[dataset]}
    after = retrain(inputs, root / "retrain-after")
    seconds = statistics.mean([before, after])
    retrains = judge.retrains(PARTS)
    floor = {name: spread(retrains, name) for name in COMPARED}
    told = {}
    for form, made in forms.items():
        quality = judge.quality(made["folder"], PARTS)
        told[form] = {
            "ratio": sum(made["seconds"].values()) / seconds,
            "unlearn_alone_ratio": made["seconds"]["unlearn"] / seconds,
            "seconds": made["seconds"],
            "steps": made["steps"],
            "quality": quality,
            "equal_quality": equal(quality, retrains[0], floor),
        }
        progress(f"  seed {inputs.run.seed}, {form}: {told[form]['ratio']:.3f} of Retrain, residual {quality['residual']:.3f}")
    return {
        "seed": inputs.run.seed,
        "retrain_seconds": [before, after],
        "retrains": retrains,
        "original": judge.quality(inputs.original, PARTS),
        "floor": floor,
        "forms": told,
    }


def equal(quality: Mapping[str, float | None], retrain: Mapping[str, float | None], floor: Mapping[str, float | None]) -> bool:
    """Whether a recommender lies no further from Retrain than Retrains of other seeds; a better test AUC is no fault."""
    for name in COMPARED:
        ours, exact, least = quality[name], retrain[name], floor[name]
        if ours is None or exact is None or least is None:
            return False
        away = exact - ours if name == "test_auc" else abs(exact - ours)
        if away > least:
            return False
    return True


def summary(seeds: list[dict[str, Any]], form: str) -> dict[str, Any]:
    """Medians over the seeds; `equal_quality` holds where it held on every seed."""
    ends = [seed["forms"][form] for seed in seeds]
    measures = {name: [end["quality"][name] for end in ends] for name in ("residual", "test_auc", "forgotten_auc", "attack_auc")}
    return {
        "ratio": statistics.median(end["ratio"] for end in ends),
        "unlearn_alone_ratio": statistics.median(end["unlearn_alone_ratio"] for end in ends),
        "equal_quality": all(end["equal_quality"] for end in ends),
        **{name: statistics.median(values) if None not in values else None for name, values in measures.items()},
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = parser_of("all_in", "Seconds of unlearning with all it needs, over those of a Retrain.")
    parser.add_argument("--data", type=Path, help="Folder of MovieLens-1M, which is measured too.")
    told = parser.parse_args(arguments)
    ready()
    seeds = told.seeds or ([0] if told.quick else [0, 1, 2])
    datasets = ("sample", "ml-1m") if told.data else ("sample",)
    results: dict[str, Any] = {}
    with workspace(told.workspace) as kept, workspace(None) as scratch:
        for dataset in datasets:
            progress(dataset)
            ends = []
            for seed in seeds:
                data = told.data if dataset == "ml-1m" else None
                inputs = Inputs(settings_of(dataset, seed, flags_of(told, QUICK[dataset]), data), kept)
                ends.append(one_seed(inputs, dataset, scratch / dataset / str(seed), 1 if told.quick else 2))
            forms = {form: summary(ends, form) for form in FORMS[dataset]}
            results[dataset] = {**forms, "settings": FORMS[dataset], "seeds": ends}
    first = results["sample"]
    emit(
        rounded(
            {
                "all_in_ratio": first["method"]["ratio"],
                "all_in_ratio_variants": first["variants"]["ratio"],
                "unlearn_alone_ratio": first["method"]["unlearn_alone_ratio"],
                "unlearn_alone_ratio_variants": first["variants"]["unlearn_alone_ratio"],
                "equal_quality": first["method"]["equal_quality"],
                "equal_quality_variants": first["variants"]["equal_quality"],
                "datasets": results,
                "quick": told.quick,
                "machine": machine(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
