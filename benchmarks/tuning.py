"""Which settings each side takes until the target: as many are tried for the rival as for each form of ours, on seeds of their own.

The settings of a side are those that miss the target on the fewest tuning seeds and, among these, have the least median of seconds,
everything counted; a run that does not reach the target counts as endless. `python -m benchmarks.unlearning --tune` runs it, and what
it chose stands here.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.crossing import Crossing, Target, ours_until, rival_until, target_of
from benchmarks.measuring import progress
from benchmarks.ours import Judge
from benchmarks.problem import Inputs
from flows.runs import Run, change_run

Flags = Mapping[str, str]
TUNING_SEEDS = (10, 11, 12)
"""Seeds on which settings are chosen; none of them is measured."""
UNTIL = {"method.training.schedule": "constant", "method.training.warmup_share": "0", "cache.rows_per_group": "128"}
"""What both forms of ours have in common: no schedule that only its end pays for, and no row cached to fill up a large group."""
DECODER = {"method.lora.layers": "decoder", "method.lora.targets": "all_linear", "method.lora.dropout": "0"}
"""What *variants* trains."""
RATE, PUSH, SIZE, ROWS = "method.training.learning_rate", "method.suppression", "method.training.batch_size", "cache.retained_per_forgotten"


def grid(common: Flags, options: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], ...]:
    """All combinations of `options` over common settings.

    >>> grid({"a": "1"}, {"b": ["2"], "c": ["3", "4"]})
    ({'a': '1', 'b': '2', 'c': '3'}, {'a': '1', 'b': '2', 'c': '4'})
    """
    return tuple({**common, **dict(zip(options, values, strict=True))} for values in itertools.product(*options.values()))


TRIED: dict[int, dict[str, tuple[dict[str, str], ...]]] = {
    64: {
        "rival": grid({}, {RATE: ("2e-3", "3e-3", "4e-3", "6e-3"), PUSH: ("60", "120")}),
        "method": grid(UNTIL, {RATE: ("3e-3", "6e-3"), SIZE: ("16", "32"), ROWS: ("1", "0.5")}),
        "variants": grid({**UNTIL, **DECODER}, {RATE: ("4e-3", "8e-3"), SIZE: ("16", "32"), ROWS: ("1", "0.5")}),
    },
    256: {
        "rival": grid({}, {RATE: ("1e-3", "1.5e-3", "2e-3", "3e-3", "4e-3", "6e-3")}),
        "method": grid({**UNTIL, ROWS: "0.5"}, {RATE: ("1e-3", "2e-3", "4e-3"), SIZE: ("16", "32")}),
        "variants": grid({**UNTIL, ROWS: "0.5", **DECODER}, {RATE: ("1e-3", "2e-3", "4e-3"), SIZE: ("16", "32")}),
    },
}
"""Settings tried for each side, by the width of the network."""
CHOSEN: dict[int, dict[str, dict[str, str]]] = {
    64: {
        "rival": {RATE: "2e-3", PUSH: "120"},
        "method": {**UNTIL, RATE: "3e-3", SIZE: "32", ROWS: "0.5"},
        "variants": {**UNTIL, **DECODER, RATE: "4e-3", SIZE: "32", ROWS: "1"},
    },
    256: {
        "rival": {RATE: "3e-3"},
        "method": {**UNTIL, RATE: "2e-3", SIZE: "16", ROWS: "0.5"},
        "variants": {**UNTIL, **DECODER, RATE: "2e-3", SIZE: "16", ROWS: "0.5"},
    },
}
"""Of these, the ones that the tuning chose."""


def of_width(table: Mapping[int, dict[str, Any]], run: Run) -> dict[str, Any]:
    """The entry for the network of `run`: that of the largest width that is no larger."""
    width: int = run.backbone.canonical()["width"]
    return table[max((known for known in table if known <= width), default=min(table))]


def crossed(side: str, inputs: Inputs, settings: Flags, judge: Judge, target: Target, passes: int, place: Path) -> Crossing:
    """One side's run until the target, in at most so many passes over the forgotten rows."""
    run = change_run(inputs.run, {**settings, "method.training.num_epochs": str(passes)})
    return rival_until(inputs, run, judge, target, passes) if side == "rival" else ours_until(inputs, run, judge, target, place)


def tune(
    inputs_of: Callable[[int], Inputs], seeds: Sequence[int], level: float, *, further: int, passes: int, root: Path
) -> dict[str, Any]:
    """Try all settings of all sides on all seeds; tells what was chosen, and the seconds of each."""
    inputs = {seed: inputs_of(seed) for seed in seeds}
    judges = {seed: Judge(each, further) for seed, each in inputs.items()}
    targets = {seed: target_of(judge, level)[0] for seed, judge in judges.items()}
    places = (root / f"tuning-{number}" for number in itertools.count())
    tried: dict[str, list[dict[str, Any]]] = {}
    for side, all_settings in of_width(TRIED, inputs[seeds[0]].run).items():
        tried[side], shared = [], {name for name in all_settings[0] if len({settings.get(name) for settings in all_settings}) == 1}
        for settings in all_settings:
            runs = [crossed(side, inputs[seed], settings, judges[seed], targets[seed], passes, next(places)) for seed in seeds]
            seconds = [run.seconds() if run.reached else None for run in runs]
            tried[side].append({"settings": settings, "seconds": seconds, "lowest": [lowest(run) for run in runs]})
            varied = ", ".join(f"{name} {value}" for name, value in settings.items() if name not in shared)
            progress(f"  {side}, {varied}: {told(seconds)}, lowest residuals {told(tried[side][-1]['lowest'])}")
    return {"seeds": list(seeds), "level": level, "chosen": {side: best(each) for side, each in tried.items()}, "tried": tried}


def best(tried: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The settings that miss the target on the fewest seeds, and of these the least median of seconds; among equals, the first.

    >>> best([{"settings": "slow", "seconds": [3.0, 3.0, 3.0]}, {"settings": "fast, not always", "seconds": [1.0, 1.0, None]}])
    'slow'
    """

    def order(one: Mapping[str, Any]) -> tuple[int, float]:
        return one["seconds"].count(None), statistics.median(math.inf if s is None else s for s in one["seconds"])

    settings: dict[str, str] = min(tried, key=order)["settings"]
    return settings


def lowest(run: Crossing) -> float | None:
    """The smallest residual at any check of a run."""
    return min((check.quality["residual"] for check in run.checks if check.quality["residual"] is not None), default=None)


def told(values: Sequence[float | None]) -> str:
    """Numbers for a person; one that is missing is a dash."""
    return ", ".join("-" if value is None else f"{value:.2f}" for value in values)
