"""What a request costs by the number of users that it names, for every method: seconds over those of a Retrain for the same request.

Exact methods train again whatever a forgotten user touched, so a few users soon cost them all shards; approximate ones go over the
forgotten rows. A ratio below 1 is cheaper than a Retrain. What a sharded system took before any request is told apart.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.measuring import emit, machine, progress, ready
from benchmarks.ours import rounded
from benchmarks.problem import Inputs, flags_of, parser_of, timed, workspace
from e2urec_core import stages
from e2urec_core.artifacts import Augmented, Shards, TeacherLogits
from e2urec_core.data.places import EXAMPLES
from e2urec_core.errors import UserError
from e2urec_core.methods.base import Method
from e2urec_core.plugins import kinds, word
from e2urec_core.seeding import numpy_generator
from flows.runs import build_run

COUNTS, QUICK_COUNTS = (1, 5, 20, 100), (1, 20)
IDLE = ("original", "do_nothing")
QUICK = {"dataset.num_users": "150", "training.num_epochs": "2"}


def named_users(inputs: Inputs, count: int, folder: Path) -> Path:
    """A file that names `count` training users, drawn by the seed; fewer users are always among more."""
    table = pq.read_table(inputs.examples / EXAMPLES, columns=["user_id", "split"])
    users = sorted(pc.unique(table.filter(pc.equal(table["split"], "train"))["user_id"]).to_pylist())
    drawn = numpy_generator(inputs.run.seed, "benchmark-users").permutation(users)[:count]
    file = folder / f"users-{count}.txt"
    file.write_text("\n".join(drawn) + "\n")
    return file


def prepared(inputs: Inputs, method: Method, place: Path) -> tuple[Path | None, float]:
    """The sharded system of a method that wants one, and the seconds of its training; made before any request."""
    run, sharding = inputs.run, method.sharding(inputs.run.training)
    if not method.wants(Shards) or sharding is None:
        return None, 0.0
    place.mkdir(parents=True)
    original = inputs.original if sharding.by == "original" else None
    return place, timed(lambda: stages.train_shards(original, inputs.tokens, run.backbone, sharding, inputs.bench(), place))


def unlearned(inputs: Inputs, method: Method, shards: Path | None, root: Path) -> float:
    """Seconds of everything that the method needs for this request."""
    run, bench = inputs.run, inputs.bench()
    before = {"original": inputs.original, "tokens": inputs.tokens, "request": inputs.request}
    rule = run.cache.planned(method.retained_draws(), method.freezes_encoder(), method.retained_at_least())
    made: dict[str, Path | None] = dict.fromkeys(("augmented", "remembering", "teachers"))
    seconds = 0.0

    def step(name: str, function: Any, **given: Any) -> Path:
        nonlocal seconds
        place = root / name
        place.mkdir(parents=True)
        seconds += timed(lambda: function(**given, bench=bench, place=place))
        return place

    if method.wants(Augmented) or method.wants(TeacherLogits):
        made["augmented"] = step("augmented", stages.train_augmented, **before, augment=run.augment)
    if method.wants(TeacherLogits):
        made["remembering"] = step("remembering", stages.cache_original, **before, rule=rule, earlier=[])
        made["teachers"] = step("teachers", stages.cache_teachers, **before, augmented=made["augmented"], rule=rule)
    rules = {"method": method, "rule": rule, "backbone": run.backbone, "training": run.training}
    step("unlearned", stages.unlearn, **before, **made, shards=shards, **rules)
    return seconds


def one_seed(
    flags: Mapping[str, str], seed: int, methods: Sequence[str], counts: Sequence[int], kept: Path, scratch: Path
) -> dict[str, Any]:
    """Seconds of a Retrain and of every method, by the number of forgotten users."""

    def inputs_of(method: str, **more: str) -> Inputs:
        words = {"dataset": "sample", "backbone": "tiny-t5", "method": word(method)}
        return Inputs(build_run(words, "demo", {**flags, "seed": str(seed), **more}), kept)

    first = inputs_of(methods[0])
    scratch.mkdir(parents=True)
    requests = {count: {"forget.users-file": str(named_users(first, count, scratch))} for count in counts}
    systems = {}
    for kind in methods:
        inputs = inputs_of(kind)
        systems[kind] = prepared(inputs, inputs.run.method, scratch / kind / "shards")
    told: dict[str, Any] = {"seed": seed, "before": {kind: seconds for kind, (_, seconds) in systems.items() if seconds}, "by_count": {}}
    for count, request in requests.items():
        retrain = inputs_of(methods[0], **request)
        run, folders, bench = retrain.run, (retrain.tokens, retrain.request), retrain.bench()
        place = scratch / "retrain" / str(count)
        place.mkdir(parents=True)
        whole = timed(
            lambda run=run, folders=folders, bench=bench, place=place: stages.train_retrained(
                *folders, run.backbone, run.training, bench, place
            )
        )  # type: ignore[misc]
        rows = stages.facts(retrain.request)["counts"]["forgotten"]
        ratios: dict[str, float | None] = {}
        for kind in methods:
            inputs = inputs_of(kind, **request)
            try:
                ratios[kind] = unlearned(inputs, inputs.run.method, systems[kind][0], scratch / kind / str(count)) / whole
            except UserError as error:
                progress(f"  {kind} refuses {count} users: {error.fact}")
                ratios[kind] = None
        progress(f"  seed {seed}, {count} users, {rows} rows: " + ", ".join(f"{kind} {_shown(ratio)}" for kind, ratio in ratios.items()))
        told["by_count"][str(count)] = {"rows": rows, "retrain_seconds": whole, "ratios": ratios}
    return told


def _shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = parser_of("forgotten_users", "Seconds of every method over those of a Retrain, by the number of forgotten users.")
    parser.add_argument("--methods", nargs="+", help="Methods by their kinds; all that do something by default.")
    told = parser.parse_args(arguments)
    ready()
    methods = told.methods or [kind for kind in kinds(Method.package) if kind not in IDLE]
    counts = QUICK_COUNTS if told.quick else COUNTS
    with workspace(told.workspace) as kept, workspace(None) as scratch:
        flags = flags_of(told, QUICK)
        seeds = [one_seed(flags, seed, methods, counts, kept, scratch / str(seed)) for seed in told.seeds or [0]]
    medians = {
        kind: {str(count): _median([seed["by_count"][str(count)]["ratios"][kind] for seed in seeds]) for count in counts}
        for kind in methods
    }
    emit(rounded({"ratio_by_users": medians, "seeds": seeds, "quick": told.quick, "machine": machine()}))
    return 0


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


if __name__ == "__main__":
    sys.exit(main())
