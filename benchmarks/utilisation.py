"""Which share of the machine's own matrix products original training and unlearning reach: model FLOP utilisation."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import emit, machine, matmul_ceiling, progress, ready
from benchmarks.ours import rounded
from benchmarks.pace import WARM_UP, Track
from benchmarks.problem import Inputs, flags_of, settings_of, workspace
from benchmarks.shapes import SHAPES, backbone_of, cut_rows, tokenizer_of
from e2urec_core.data.batches import pass_order
from e2urec_core.data.tokens import prompts_of_split
from e2urec_core.settings import EngineRule, Seat

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
USUAL = ("tiny", "width-256", "width-512")


def real_share(tokens: Path, batch_size: int) -> float:
    """Share of the tokens of the timed training steps that are not padding."""
    rows = prompts_of_split(tokens, "train")
    batches = [rows.lengths[index] for index in pass_order(rows.lengths, batch_size, 0, 0)][WARM_UP:]
    return float(sum(lengths.sum() for lengths in batches) / sum(len(lengths) * lengths.max() for lengths in batches))


def measured(track: Track, shape: str, ceiling: float) -> dict[str, Any]:
    """One shape in one number format."""
    paces = {"training": track.training()}
    for form in ("method", "variants"):
        track.caching(form)
        paces[f"unlearning_{form}"] = track.unlearning(form)
    told = {
        name: {
            "steps": pace.steps,
            "utilisation": pace.flops / pace.seconds / ceiling,
            "seconds_per_step": pace.seconds / pace.steps,
            "rows_per_second": pace.rows / pace.seconds,
            "flops_per_step": pace.flops / pace.steps,
        }
        for name, pace in paces.items()
    }
    seat = track.seat
    where = {"shape": shape, "precision": seat.precision, "compiled": seat.engine.compiled}
    progress(
        f"  {shape} {seat.precision} compiled {seat.engine.compiled}: "
        + ", ".join(f"{name} {told[name]['utilisation']:.3f}" for name in paces)
    )
    return {**where, "batch_size": track.batch_size, "real_tokens": real_share(track.rows.tokens, track.batch_size), **told}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.utilisation", description="Model FLOP utilisation of the training loops.")
    parser.add_argument("--quick", action="store_true", help="Two smaller networks and fewer steps.")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, help="Networks to measure.")
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=["fp32", "bf16"], help="Of matrix products.")
    parser.add_argument("--compiled", action="store_true", help="Also measure compiled networks.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="Where the networks run.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads.")
    parser.add_argument("--batch-size", type=int, default=32, help="Rows of a training step.")
    parser.add_argument("--steps", type=int, help="Steps of unlearning, warm-up included; training takes twice as many.")
    parser.add_argument("--ceiling-seconds", type=float, default=4.0, help="Time to look for the ceiling.")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="A setting of the rows, such as dataset.num_users."
    )
    told = parser.parse_args(arguments)
    ready()
    torch.set_num_threads(told.threads)
    shapes = told.shape or (USUAL[:2] if told.quick else USUAL)
    steps = told.steps or (4 if told.quick else 6)
    device = torch.device(told.device)
    ceilings, results = {}, []
    with workspace(None) as scratch:
        inputs = Inputs(settings_of("sample", 0, flags_of(told, {})), scratch / "inputs")
        for precision in told.precision:
            ceilings[precision] = matmul_ceiling(device, DTYPES[precision], told.threads, seconds=told.ceiling_seconds)
            progress(f"ceiling in {precision}: {ceilings[precision] / 1e9:.1f} GFLOP/s")
        for shape in shapes:
            tokenizer, place = tokenizer_of(inputs.tokens, shape), scratch / shape
            rows = cut_rows(inputs.tokens, tokenizer, 2 * steps * told.batch_size, 0.5, place)
            for precision, compiled in itertools.product(told.precision, ("off", "on") if told.compiled else ("off",)):
                engine = EngineRule.model_validate({"compiled": compiled})
                seat = Seat(seed=0, device=told.device, threads=told.threads, precision=precision, engine=engine)
                track = Track(rows, backbone_of(shape), told.batch_size, seat, place)
                results.append(measured(track, shape, ceilings[precision]))
    # The headline is the largest network in the first number format, not compiled.
    head = next(one for one in reversed(results) if one["precision"] == told.precision[0] and one["compiled"] == "off")
    emit(
        rounded(
            {
                "training_utilisation": head["training"]["utilisation"],
                "unlearning_utilisation": head["unlearning_method"]["utilisation"],
                "headline_shape": head["shape"],
                "ceilings_flops_per_second": ceilings,
                "measured": results,
                "quick": told.quick,
                "machine": machine(device),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
