"""One command for a bare GPU machine: how fast networks of the published sizes train, cache and unlearn on it.

Networks have random weights, because only their speed is asked for. The machine needs torch, transformers, peft, accelerate, pyarrow
and pydantic. Rows come from a folder that `--prepare` has written on another machine; without one they are random tokens.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from benchmarks.measuring import emit, machine, matmul_ceiling, progress, ready
from benchmarks.ours import rounded
from benchmarks.pace import Pace, Track
from benchmarks.problem import NOTE, Inputs, settings_of, workspace
from benchmarks.shapes import SHAPES, Folders, backbone_of, cut_rows, random_rows, tokenizer_of, untrained_tokenizer
from e2urec_core.data.places import MARKS
from e2urec_core.errors import BadSetting, UserError
from e2urec_core.settings import EngineRule, Seat
from flows.runs import Run, build_run

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FORMS = ("method", "variants")
SETTINGS, RANDOM_TOKENS_A_ROW = "run.json", 128


def prepare(folder: Path, data: Path | None) -> None:
    """Write rows, request and the run's settings into `folder`, to be carried to the GPU machine; MovieLens-1M's where `data` is."""
    dataset = "ml-1m" if data else "sample"
    with workspace(None) as scratch:
        # Words of the published T5's number, so that ids reach over its embeddings.
        inputs = Inputs(settings_of(dataset, 0, {"backbone.vocabulary": str(SHAPES["t5-base"]["vocabulary"])}, data), scratch)
        for name, made in (("tokens", inputs.tokens), ("request", inputs.request)):
            shutil.copytree(made, folder / name, ignore=shutil.ignore_patterns(NOTE))
    # Who was forgotten is no business of another machine; the marks are enough.
    (folder / "request" / "users.parquet").unlink()
    run = inputs.run.canonical()
    told = {name: run[name] for name in ("training", "augment", "method", "cache")}
    (folder / SETTINGS).write_text(json.dumps({**told, **counts(Folders(folder / "tokens", folder / "request"))}))


def counts(rows: Folders) -> dict[str, int]:
    """Training rows, and how many of them are forgotten."""
    parts = pq.read_table(rows.request / MARKS)["part"]
    forgotten, retained = (pc.sum(pc.equal(parts, name)).as_py() or 0 for name in ("forgotten", "retained"))
    return {"training_rows": forgotten + retained, "forgotten_rows": forgotten}


def run_counts(tokens: Path | None) -> dict[str, int]:
    """Rows and passes of the run whose ratio is estimated: the carried one's, or those of the preset `smoke`."""
    if tokens is not None:
        told = json.loads((tokens / SETTINGS).read_bytes())
    else:
        run: Run = build_run({"dataset": "sample", "backbone": "tiny-t5", "method": "e2urec"}, "smoke", {})
        told, rows = run.canonical(), round((run.split.last_examples or 0) * run.split.train_share)
        told |= {"training_rows": rows, "forgotten_rows": round(rows * run.forget.share)}
    passes = {"training": told["training"], "augment": told["augment"], "method": told["method"]["training"]}
    return {
        "training_rows": told["training_rows"],
        "forgotten_rows": told["forgotten_rows"],
        **{f"{name}_passes": int(schedule["num_epochs"]) for name, schedule in passes.items()},
    }


def estimate(counted: dict[str, int], training: Pace, unlearning: Pace, caching: dict[str, float]) -> dict[str, Any]:
    """Seconds of every stage of a whole run, taken from rows a second; the run itself is not made."""
    rows, forgotten = counted["training_rows"], counted["forgotten_rows"]
    train, unlearn = (pace.rows / pace.seconds for pace in (training, unlearning))
    drawn = min(rows - forgotten, forgotten * counted["method_passes"])
    retrain = counted["training_passes"] * (rows - forgotten) / train
    seconds = {
        "train_augmented": counted["augment_passes"] * forgotten / train,
        "cache_original": drawn / caching["cache_original"],
        "cache_teachers": forgotten / caching["cache_teachers"],
        "unlearn": 2 * counted["method_passes"] * forgotten / unlearn,
    }
    return {
        "estimated_all_in_ratio": sum(seconds.values()) / retrain,
        "estimated_unlearn_alone_ratio": seconds["unlearn"] / retrain,
        "estimated_seconds": {"train_retrained": retrain, **seconds},
    }


def told_of(pace: Pace, ceiling: float) -> dict[str, float]:
    """A loop's pace in plain numbers."""
    return {
        "steps_per_second": pace.steps / pace.seconds,
        "rows_per_second": pace.rows / pace.seconds,
        "utilisation": pace.flops / pace.seconds / ceiling,
    }


def one_shape(
    shape: str, told: argparse.Namespace, ceilings: dict[str, float], counted: dict[str, int], place: Path
) -> list[dict[str, Any]]:
    """Everything about one network: a line for each number format, compiled or not."""
    num_rows = 2 * told.steps * told.batch_size
    if told.tokens is not None:
        rows = cut_rows(told.tokens / "tokens", tokenizer_of(told.tokens / "tokens", shape), num_rows, 0.5, place)
    else:
        rows = random_rows(untrained_tokenizer(shape), num_rows, told.tokens_a_row, 0.5, place)
    lines = []
    for precision in told.precision:
        for compiled in ("off", "on") if told.compiled == "both" else (told.compiled,):
            if told.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            engine = EngineRule.model_validate({"compiled": compiled})
            seat = Seat(seed=0, device=told.device, threads=told.threads, precision=precision, engine=engine)
            track = Track(rows, backbone_of(shape), told.batch_size, seat, place)
            training = track.training()
            line: dict[str, Any] = {"shape": shape, "precision": precision, "compiled": compiled}
            line["training"] = told_of(training, ceilings[precision])
            # Compiling pays where a loop is long; unlearning is short, so it is measured as it is run.
            for form in FORMS if compiled == "off" else ():
                caching, unlearning = track.caching(form), track.unlearning(form)
                line[form] = {
                    "unlearning": told_of(unlearning, ceilings[precision]),
                    "cache_rows_per_second": caching,
                    **estimate(counted, training, unlearning, caching),
                }
            if told.device == "cuda":
                line["peak_bytes"] = torch.cuda.max_memory_allocated()
            lines.append(line)
            progress(row_of(line))
    return lines


def row_of(line: dict[str, Any]) -> str:
    """One line of the table on stderr."""
    training = line["training"]
    cells = [f"{line['shape']:<10} {line['precision']:<5} {line['compiled']:<8}"]
    cells += [f"{training['steps_per_second']:9.2f} {training['rows_per_second']:10.1f} {training['utilisation']:6.3f}"]
    for form in FORMS:
        if form in line:
            one = line[form]
            cells.append(
                f"{one['unlearning']['rows_per_second']:10.1f} {one['cache_rows_per_second']['cache_original']:10.1f} "
                f"{one['estimated_all_in_ratio']:8.3f}"
            )
    return "  ".join(cells)


HEADING = (
    f"{'shape':<10} {'bits':<5} {'compiled':<8}  {'steps/s':>9} {'rows/s':>10} {'MFU':>6}"
    f"  {'method/s':>10} {'cache/s':>10} {'all-in':>8}  {'variants/s':>10} {'cache/s':>10} {'all-in':>8}"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Training, caching and unlearning on a bare GPU machine.")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="Write rows to carry into a new folder, and measure nothing.")
    parser.add_argument("--data", type=Path, help="Folder of MovieLens-1M, for --prepare.")
    parser.add_argument("--tokens", type=Path, metavar="FOLDER", help="What --prepare has written.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="Where the networks run.")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["t5-base", "bart-base"], help="Networks to measure.")
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=["bf16", "fp32"], help="Of matrix products.")
    parser.add_argument("--compiled", choices=("off", "on", "both"), default="both", help="Whether training is compiled.")
    parser.add_argument("--batch-size", type=int, default=64, help="Rows of a training step; forgotten rows of an unlearning step.")
    parser.add_argument("--steps", type=int, default=12, help="Steps of unlearning, warm-up included; training takes twice as many.")
    parser.add_argument("--tokens-a-row", type=int, default=RANDOM_TOKENS_A_ROW, help="Mean tokens of a random row.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads.")
    parser.add_argument("--ceiling-seconds", type=float, default=4.0, help="Time to look for the ceiling.")
    told = parser.parse_args(arguments)
    try:
        if told.prepare is not None:
            prepare(told.prepare, told.data)
        else:
            measure(told)
    except UserError as error:
        progress(str(error))
        return 2
    return 0


def measure(told: argparse.Namespace) -> None:
    """Measure every network and print the result.

    Raises:
        BadSetting: There is no CUDA device, and none was renounced.
    """
    if told.device == "cuda" and not torch.cuda.is_available():
        raise BadSetting("torch sees 0 CUDA devices on this machine", hint="try the code path alone: --device cpu --shape tiny")
    ready()
    torch.set_num_threads(told.threads)
    counted = run_counts(told.tokens)
    ceilings = {
        precision: matmul_ceiling(told.device, DTYPES[precision], told.threads, seconds=told.ceiling_seconds)
        for precision in told.precision
    }
    for precision, ceiling in ceilings.items():
        progress(f"ceiling in {precision}: {ceiling / 1e12:.2f} TFLOP/s")
    progress(HEADING)
    with workspace(None) as scratch:
        lines = [line for shape in told.shape for line in one_shape(shape, told, ceilings, counted, scratch / shape)]
    emit(
        rounded(
            {
                "measured": lines,
                "ceilings_flops_per_second": ceilings,
                "estimated_for": counted,
                "rows": "carried" if told.tokens else "random",
                "batch_size": told.batch_size,
                "machine": machine(told.device),
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
