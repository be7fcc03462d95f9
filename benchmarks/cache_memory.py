"""Whether the memory of the cache stages grows with their rows: peaks of two processes, one with ten times the rows of the other."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import emit, machine, peak_memory, progress, ready
from benchmarks.problem import workspace
from benchmarks.shapes import Folders, backbone_of, random_rows, untrained_tokenizer
from e2urec_core.recommender import Recommender
from e2urec_core.settings import CacheRule, Seat
from e2urec_core.stage_file import StageFile

FORGOTTEN_SHARE, TOKENS_A_ROW, SHAPE = 0.05, 50, "tiny"
SIZES = {"whole": (10_000, 100_000), "quick": (2_000, 20_000)}
STAGES = ("cache_original", "cache_teachers")


def save_network(place: Path) -> Recommender:
    """A network of random weights, saved into `place`."""
    place.mkdir(parents=True)
    recommender = backbone_of(SHAPE).build(untrained_tokenizer(SHAPE), 0)
    recommender.save(place)
    return recommender


def peak(stage: str, rows: Folders, network: Path, place: Path) -> tuple[int, float]:
    """Peak of a process that runs one cache stage over all rows, bytes, and its seconds; the network stands for both teachers."""
    place.mkdir(parents=True)
    # Every retained row is cached, so that the stage's rows are those of the request.
    rule = CacheRule(retained_per_forgotten=1 / FORGOTTEN_SHARE, encoder_states=False)
    arguments: dict[str, Any] = {"original": network, "tokens": rows.tokens, "request": rows.request, "rule": rule}
    arguments |= {"augmented": network} if stage == "cache_teachers" else {"earlier": ()}
    file = place / "stage.json"
    file.write_text(StageFile.of(stage, arguments, Seat(seed=0), place, None).model_dump_json())
    started = time.perf_counter()
    found = peak_memory([sys.executable, "-m", "e2urec_core.run", file])
    return found, time.perf_counter() - started


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_memory", description="Peak memory of the cache stages over rows.")
    parser.add_argument("--quick", action="store_true", help="A fifth of the rows.")
    parser.add_argument("--rows", type=int, nargs=2, metavar=("FEWER", "MORE"), help="Rows of both processes.")
    told = parser.parse_args(arguments)
    ready()
    fewer, more = told.rows or SIZES["quick" if told.quick else "whole"]
    peaks: dict[str, dict[int, int]] = {stage: {} for stage in STAGES}
    seconds: dict[str, dict[int, float]] = {stage: {} for stage in STAGES}
    with workspace(None) as scratch:
        recommender = save_network(scratch / "network")
        for size in (fewer, more):
            rows = random_rows(recommender.tokenizer, size, TOKENS_A_ROW, FORGOTTEN_SHARE, scratch / f"rows-{size}")
            for stage in STAGES:
                peaks[stage][size], seconds[stage][size] = peak(stage, rows, scratch / "network", scratch / f"{stage}-{size}")
                progress(f"{stage} of {size:,} rows: {peaks[stage][size] / 2**20:.0f} MiB, {seconds[stage][size]:.1f} s")
    ratios = {stage: peaks[stage][more] / peaks[stage][fewer] for stage in STAGES}
    growth = {stage: (peaks[stage][more] - peaks[stage][fewer]) / (more - fewer) for stage in STAGES}
    emit(
        {
            "cache_original_ratio": round(ratios["cache_original"], 4),
            "cache_teachers_ratio": round(ratios["cache_teachers"], 4),
            "bytes_per_further_row": {stage: round(value, 1) for stage, value in growth.items()},
            "peak_bytes": {stage: list(by_size.values()) for stage, by_size in peaks.items()},
            "seconds": {stage: [round(value, 2) for value in by_size.values()] for stage, by_size in seconds.items()},
            "rows": [fewer, more],
            "forgotten_share": FORGOTTEN_SHARE,
            "tokens_per_row": TOKENS_A_ROW,
            "quick": told.quick,
            "machine": machine(),
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
