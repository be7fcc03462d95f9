"""How much faster `compare` is with sharded methods when two workers share its stages and their shards than when one runs them all.

Both run the same command on the same rows, in workspaces of their own, and must give the same artifacts bit by bit. They take turns in
going first; the ratio is the median over pairs. Wall-clock time counts, of the whole command: its start, reading and splitting rows,
and the report are no work that is shared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import emit, machine, median_ratio, progress
from benchmarks.ours import rounded
from benchmarks.problem import workspace

METHODS = "sisa,rec-eraser,apa"
FEW, MANY = 1, 2
QUICK = {"dataset.num-users": "150", "training.num-epochs": "2"}
# Stages whose artifact tells times, or who ran it.
TELLS_TIMES = "compare"


def compared(place: Path, workers: int, told: argparse.Namespace, flags: Mapping[str, str]) -> tuple[float, dict[str, Any]]:
    """Wall-clock seconds of one comparison in an empty workspace, and the journal of its stages."""
    words = ["compare", "sample", "tiny-t5", "--methods", METHODS, "--seeds", str(told.seeds), "--budget", "1", "--json"]
    words += ["--parallel", str(workers), "--fan-out", told.fan_out, "--workspace", str(place)]
    words += [word for name, value in flags.items() for word in (f"--{name}", value)]
    # Prefect lays out its database once for all.
    environment = {**os.environ, "PREFECT_HOME": str(place.parent / "prefect"), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "flows.cli", *words], env=environment, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - started
    (journal,) = (place / "runs").glob("*.json")
    return seconds, json.loads(journal.read_bytes())["stages"]


def digests(stages: Mapping[str, Any]) -> dict[str, str]:
    """What every stage gave, but for the one that tells times."""
    return {title: entry["handle"]["digest"] for title, entry in stages.items() if title != TELLS_TIMES}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fan_out", description="Speed-up of `compare` by a second worker.")
    parser.add_argument("--quick", action="store_true", help="Few rows, one pair: tells whether the benchmark works, and no more.")
    parser.add_argument("--pairs", type=int, help="Pairs of comparisons.")
    parser.add_argument("--seeds", type=int, default=2, help="Seeds that are reported.")
    parser.add_argument("--fan-out", choices=("threads", "ray"), default="threads", help="Who runs the stages.")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="Settings of the comparison.")
    told = parser.parse_args(arguments)
    flags = {"evaluate.floor-seeds": "0", **(QUICK if told.quick else {}), **dict(each.split("=", 1) for each in told.set)}
    runs: list[dict[str, Any]] = []
    with workspace(None) as scratch:
        compared(scratch / "first", MANY, told, {**flags, "dataset.num-users": "150", "training.num-epochs": "1"})
        for number in range(told.pairs or (1 if told.quick else 3)):
            seconds, made = {}, {}
            for workers in (FEW, MANY) if number % 2 == 0 else (MANY, FEW):
                seconds[workers], stages = compared(scratch / f"{number}-{workers}", workers, told, flags)
                made[workers] = digests(stages)
            assert made[FEW] == made[MANY], "two workers have made something else than one"
            runs.append({"one_worker_seconds": seconds[FEW], "two_workers_seconds": seconds[MANY], "stages": len(made[FEW])})
            progress(f"  pair {number + 1}: one worker {seconds[FEW]:.1f} s, two workers {seconds[MANY]:.1f} s")
    pairs = [(run["one_worker_seconds"], run["two_workers_seconds"]) for run in runs]
    result = {
        "speed_up": median_ratio(pairs),
        "speed_up_of_all": [first / second for first, second in pairs],
        "one_worker_seconds": statistics.median(first for first, _ in pairs),
        "two_workers_seconds": statistics.median(second for _, second in pairs),
        "same_artifacts": True,
        "pairs": runs,
        "fan_out": told.fan_out,
        "quick": told.quick,
        "machine": machine(),
    }
    emit(rounded(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
