"""What a SIGKILL in the middle of a training costs: seconds lost against the same training that ran through."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import emit, machine, progress, ready
from benchmarks.problem import Inputs, flags_of, parser_of, settings_of, workspace
from e2urec_core.artifacts import file_digest
from e2urec_core.seeding import numpy_generator
from e2urec_core.settings import EngineRule
from e2urec_core.stage_file import StageFile

WEIGHTS = "model.safetensors"
QUICK = {"training.num_epochs": "3"}


@dataclass(frozen=True)
class Life:
    """One process from start to end.

    Args:
        seconds: Wall-clock time.
        steps: Seconds after its start at which each step was done, by the step's number.
        returned: Exit status; below 0, the signal that ended it.
    """

    seconds: float
    steps: dict[int, float]
    returned: int

    @property
    def start_up(self) -> float:
        """Seconds until the first step was done."""
        return min(self.steps.values(), default=self.seconds)


def live(file: Path, kill_at: float | None = None) -> Life:
    """Run a stage file in a process of its own, killed with SIGKILL once it has done the share `kill_at` of its steps."""
    started = time.perf_counter()
    steps: dict[int, float] = {}
    with subprocess.Popen([sys.executable, "-m", "e2urec_core.run", str(file), "--events"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            # A killed process may leave half a line.
            if line.endswith("\n") and (event := json.loads(line)).get("unit") == "steps":
                steps[event["done"]] = time.perf_counter() - started
                if kill_at is not None and event["done"] >= kill_at * event["total"]:
                    process.kill()
        returned = process.wait()
        seconds = time.perf_counter() - started
    return Life(seconds, steps, returned)


def stage_file(inputs: Inputs, place: Path, every_s: float) -> Path:
    """A stage file that trains the original with checkpoints, below `place`."""
    run, (out, checkpoints) = inputs.run, (place / "out", place / "checkpoints")
    for folder in (out, checkpoints):
        folder.mkdir(parents=True)
    seat = inputs.seat.model_copy(update={"engine": EngineRule(checkpoint_every_s=every_s)})
    arguments = {"tokens": inputs.tokens, "backbone": run.backbone, "training": run.training}
    file = place / "stage.json"
    file.write_text(StageFile.of("train_original", arguments, seat, out, checkpoints).model_dump_json())
    return file


def one_kill(inputs: Inputs, place: Path, every_s: float, share: float) -> dict[str, Any]:
    """A training that ran through, and one that was killed after `share` of its steps and started again."""
    whole = live(stage_file(inputs, place / "whole", every_s))
    assert whole.returned == 0, f"the training ended with {whole.returned}"
    file = stage_file(inputs, place / "killed", every_s)
    killed = live(file, share)
    assert killed.returned == -signal.SIGKILL, "the training ended before it was killed: let it train longer"
    resumed = live(file)
    assert resumed.returned == 0, f"the second training ended with {resumed.returned}"
    lost = killed.seconds + resumed.seconds - whole.seconds
    # Steps after the last checkpoint were done twice.
    kept = min(resumed.steps) - 1
    repeated = killed.seconds - killed.steps.get(kept, killed.start_up)
    digests = {file_digest(place / name / "out" / WEIGHTS) for name in ("whole", "killed")}
    progress(
        f"  killed after {killed.seconds:.1f} of {whole.seconds:.1f} s: {lost:.1f} s lost, {repeated:.1f} s done twice, "
        f"start-up {resumed.start_up:.1f} s"
    )
    return {
        "lost_seconds": lost,
        "repeated_seconds": repeated,
        "start_up_seconds": resumed.start_up,
        "within_claim": lost <= every_s + resumed.start_up,
        "same_bits": len(digests) == 1,
        "whole_seconds": whole.seconds,
        "killed_after_seconds": killed.seconds,
        "resumed_seconds": resumed.seconds,
        "resumed_from_step": kept,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = parser_of("kill_loss", "Seconds lost to a SIGKILL in the middle of a training.")
    parser.add_argument("--kills", type=int, help="Trainings to kill.")
    parser.add_argument("--every", type=float, default=3.0, help="Seconds between two checkpoints.")
    told = parser.parse_args(arguments)
    ready()
    num_kills, flags = told.kills or (1 if told.quick else 5), flags_of(told, QUICK)
    shares = numpy_generator(0, "benchmark-kills").uniform(0.3, 0.9, num_kills).tolist()
    with workspace(told.workspace) as kept, workspace(None) as scratch:
        inputs = Inputs(settings_of("sample", (told.seeds or [0])[0], flags), kept)
        kills = [one_kill(inputs, scratch / str(number), told.every, share) for number, share in enumerate(shares)]
    lost, repeated, start_up = (
        statistics.median(kill[name] for kill in kills) for name in ("lost_seconds", "repeated_seconds", "start_up_seconds")
    )
    emit(
        {
            "lost_seconds": round(lost, 3),
            "repeated_seconds": round(repeated, 3),
            "interval_seconds": told.every,
            "start_up_seconds": round(start_up, 3),
            "within_claim": lost <= told.every + start_up,
            "same_bits": all(kill["same_bits"] for kill in kills),
            "kills": [{name: round(value, 3) if isinstance(value, float) else value for name, value in kill.items()} for kill in kills],
            "quick": told.quick,
            "machine": machine(),
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
