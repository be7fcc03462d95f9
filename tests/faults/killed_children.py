"""Runs stages in forked children of one process that has imported everything but used nothing yet: a kill costs no import.

As a script, it reads one job a line and answers with the exit status of the child that did it. The child runs a stage file as
`python -m e2urec_core.run` does, and kills itself where the job says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from e2urec_core.settings import Seat
from e2urec_core.stage_file import StageFile


class Ended(NamedTuple):
    """How a child ended.

    Args:
        status: Its exit status; negative: the signal.
        place: Folder it wrote into.
        told: Steps or rows of which it said that they are done, in the order in which it did.
    """

    status: int
    place: Path
    told: list[int]


class Children:
    """Starts stages in children and has them killed; end it with `close`."""

    def __init__(self, place: Path) -> None:
        """Write stage files and results below `place`."""
        self.place, self._number = place, 0
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def run(
        self, stage: str, given: Mapping[str, Any], seat: Seat, checkpoints: Path | None = None, *, kill_at: int = 0, kill_in_file: int = 0
    ) -> Ended:
        """Run a stage.

        Args:
            stage: Function of `e2urec_core/stages.py`.
            given: Its arguments.
            seat: Its seat.
            checkpoints: Folder of what it keeps; None keeps nothing.
            kill_at: Steps or rows at which it is killed, when they are told; 0 never.
            kill_in_file: Which file that is written for keeping is the last: the kill comes when it is about to be hashed.
        """
        self._number += 1
        place, file, told = (self.place / f"{name}-{self._number}" for name in ("place", "stage", "told"))
        place.mkdir()
        told.touch()
        file.write_text(StageFile.of(stage, given, seat, place, checkpoints).model_dump_json())
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"file": str(file), "told": str(told), "kill_at": kill_at, "kill_in_file": kill_in_file}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ended(int(self._process.stdout.readline()), place, [int(line) for line in told.read_text().splitlines()])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0


def _child(file: Path, told: Path, kill_at: int, kill_in_file: int) -> None:
    from e2urec_core import checkpoints
    from e2urec_core.run import run

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        with told.open("a") as lines:
            lines.write(f"{done}\n")
        if 0 < kill_at <= done:
            os.kill(os.getpid(), signal.SIGKILL)

    hashed, file_digest = [0], checkpoints.file_digest

    def digest(path: Path) -> str:
        # Kept files are written under a name that opens with a dot, below the folder or in one of such a name.
        if any(part.startswith(".") for part in (path.name, path.parent.name)):
            hashed[0] += 1
            if hashed[0] == kill_in_file:
                os.kill(os.getpid(), signal.SIGKILL)
        return file_digest(path)

    checkpoints.file_digest = digest
    # Tied: the tests look after the folder of checkpoints.
    run(file, watch, alone=False)


def _serve() -> None:
    import accelerate.state  # noqa: F401
    import peft  # noqa: F401
    import safetensors.torch  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import transformers.models.t5.modeling_t5  # noqa: F401
    from transformers import AutoModelForSeq2SeqLM  # noqa: F401

    import e2urec_core.methods.e2urec
    import e2urec_core.scoring
    import e2urec_core.training  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _child(Path(job["file"]), Path(job["told"]), job["kill_at"], job["kill_in_file"])
                status = 0
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve()
