"""Runs one stage that trains or scores from a stage file: `python -m e2urec_core.run STAGE.json`.

Needs torch, transformers, peft, accelerate, pyarrow, pydantic and jaxtyping; nothing of Prefect, MLflow, Great Expectations or
Polars. Progress goes to stderr. With `--events`, stdout carries one JSON object a line: how far the stage is, and at the end its rows
or its fault. `--serve` reads the names of stage files from stdin, one a line, and runs one after the other, so that torch is imported
once for many stages. Several processes: `python -m torch.distributed.run --standalone --nproc-per-node 2 -m e2urec_core.run STAGE.json`.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from e2urec_core.errors import BadSetting, StorageFailed, UserError
from e2urec_core.stage_file import StageFile

if TYPE_CHECKING:
    from e2urec_core.engine import Watcher

EXIT_USER_ERROR = 2
LINE_EVERY_S = 5.0
# Seconds that the main process is given to say what all of them were refused for: when one ends, the launcher ends the others.
HEARD_S = 30.0


def main(arguments: list[str] | None = None) -> int:
    """Run the stage; returns the exit code: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m e2urec_core.run", description="Runs one stage from a stage file.")
    parser.add_argument("file", type=Path, nargs="?", help="The stage file.")
    parser.add_argument("--events", action="store_true", help="Write one JSON object a line to stdout.")
    parser.add_argument("--tied", action="store_true", help="End when stdin does: when the process that started this one has died.")
    parser.add_argument("--serve", action="store_true", help="Run the stage files that stdin names; says events, and ends when stdin does.")
    told = parser.parse_args(arguments)
    if told.serve:
        return serve()
    if told.file is None:
        parser.error("name a stage file, or `--serve`")
    is_main = os.environ.get("RANK", "0") == "0"
    if told.tied:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    emit: Callable[[dict[str, Any]], None] = _emit if told.events and is_main else _silent
    watch = _watcher(emit, lines=is_main and not told.events)
    fault = _told(emit, partial(run, told.file, watch, alone=not told.tied))
    if fault is None:
        return 0
    if is_main and not told.events:
        sys.stderr.write(f"{fault}\n")
    if not is_main:
        time.sleep(HEARD_S)
    return EXIT_USER_ERROR


def serve() -> int:
    """Run the stage files whose names stdin gives, one a line; each ends with an event of its rows or its fault.

    The end of stdin ends the process, whatever it is at: whoever asked has died.
    """
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            asked.put(line.strip())
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        _told(_emit, partial(run, Path(asked.get()), _watcher(_emit, lines=False), alone=False))


def run_text(text: str, events: str) -> str:
    """Run the stage file whose text this is, for who looks after its checkpoints; returns its last event, which tells rows, fault or crash.

    Text goes in and text comes out, so that a cluster carries it to another machine; the folders lie where both reach them.

    Args:
        text: A stage file; its folders are absolute.
        events: File to which every event is appended as it comes, one JSON object a line.
    """
    last = ""
    with open(events, "a", encoding="utf-8") as file:

        def emit(event: dict[str, Any]) -> None:
            nonlocal last
            last = json.dumps(event)
            file.write(last + "\n")
            file.flush()

        try:
            stage, watch = _parsed(text), _watcher(emit, lines=False)
            _told(emit, partial(_run, stage, Path("/"), watch, alone=False, name="STAGE.json"))
        except Exception:
            traceback.print_exc()
    return last


def _told(emit: Callable[[dict[str, Any]], None], perform: Callable[[], int]) -> UserError | None:
    """Emit the rows that `perform` returns, or its fault, which is returned."""
    try:
        rows = perform()
    except UserError as error:
        emit({"fault": type(error).__name__, "fact": error.fact, "hint": error.hint, "facts": {k: str(v) for k, v in error.facts.items()}})
        return error
    except Exception as error:
        emit({"crash": type(error).__name__})
        raise
    emit({"rows": rows})
    return None


def run(file: Path, watch: Watcher, *, alone: bool = True) -> int:
    """Run the stage that `file` describes; returns its rows, which of one share of its shards are 0.

    Args:
        file: A stage file.
        watch: Told how far the stage is.
        alone: Nobody else looks after the folder of checkpoints: what was kept of another stage, or of other inputs, is not taken for
            this one's, and is removed at the end.

    Raises:
        BadSetting: The file is not a stage file.
        StorageFailed: The stage could not read or write a file, as on a full disk.
        UserError: What else the stage raises.
    """
    try:
        text = file.read_bytes()
    except OSError as error:
        raise BadSetting(f"the stage file cannot be read: {error.strerror}", hint="name a file that `StageFile` has written") from error
    return _run(_parsed(text), file.parent.absolute(), watch, alone=alone, name=file.name)


def _parsed(text: str | bytes) -> StageFile:
    try:
        return StageFile.model_validate_json(text)
    except ValidationError as error:
        raise _refusal(error, "the stage file") from error


def _run(stage: StageFile, root: Path, watch: Watcher, *, alone: bool, name: str) -> int:
    from e2urec_core import stages
    from e2urec_core.engine import ShareTrained, open_bench

    started = int(os.environ.get("WORLD_SIZE", "1"))
    if stage.seat.processes != started:
        raise BadSetting(
            f"the stage file asks for {stage.seat.processes} processes, but {started} were started",
            hint=f"python -m torch.distributed.run --standalone --nproc-per-node {stage.seat.processes} -m e2urec_core.run {name}",
        )
    function = getattr(stages, stage.stage)
    try:
        given = stage.arguments(root)
    except ValidationError as error:
        raise _refusal(error, "a rule of the stage file") from error
    asked = inspect.signature(function).parameters
    wanted = set(asked) - {"bench", "place"}
    if missing := sorted(name for name in wanted - set(given) if asked[name].default is inspect.Parameter.empty):
        raise BadSetting(f"the stage `{stage.stage}` also needs: {', '.join(missing)}", hint="add them to `folders` or `rules`")
    if strange := sorted(set(given) - wanted):
        raise BadSetting(f"the stage `{stage.stage}` does not take: {', '.join(strange)}", hint="take them out of `folders` and `rules`")
    if started > 1 and stage.checkpoints is None:
        raise BadSetting(
            f"{started} processes share a stage through its folder of checkpoints, and it names none", hint="add `checkpoints`"
        )
    if stage.share is not None and stage.checkpoints is None:
        raise BadSetting("a share of the shards is kept among the checkpoints, and there is no folder for them", hint="add `checkpoints`")
    checkpoints = None if stage.checkpoints is None else root / stage.checkpoints
    if checkpoints and alone:
        checkpoints /= _fingerprint(stage, root, given)
    bench = open_bench(stage.seat, watch, checkpoints, stage.share)
    try:
        rows: int = function(**given, bench=bench, place=root / stage.place)
    except ShareTrained:
        return 0
    except OSError as error:
        raise StorageFailed(
            f"{stage.stage.replace('_', '-')} could not read or write a file: {error.strerror or error}",
            hint="check the disk, then run the command again",
        ) from error
    bench.workers.wait()
    if checkpoints and alone and bench.workers.is_main:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return rows


def _fingerprint(stage: StageFile, root: Path, given: Mapping[str, Any]) -> str:
    """Digest of what decides what the stage gives: its rules, its seat and the bytes of its inputs, a backbone's checkpoint among them."""
    from e2urec_core.artifacts import digest_of, file_digest

    folders = [*filter(None, stage.folders.values()), *(folder for _, folder in stage.models)]
    files = [path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file()]
    told = stage.model_dump(mode="json", include={"stage", "rules", "subject", "models"})
    started_from = [value.fingerprint() for value in given.values() if hasattr(value, "fingerprint")]
    return digest_of([told, stage.seat.keyed(), [file_digest(path) for path in files], started_from])


def _refusal(error: ValidationError, whose: str) -> BadSetting:
    first = error.errors()[0]
    return BadSetting(
        f"{whose} has {error.error_count()} faults; the first, at `{'.'.join(map(str, first['loc']))}`: {first['msg']}",
        hint="see `e2urec_core/stage_file.py` for its fields",
    )


def _watcher(emit: Callable[[dict[str, Any]], None], *, lines: bool) -> Watcher:
    last = 0.0

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        nonlocal last
        emit({"done": done, "total": total, "unit": unit, "numbers": dict(numbers)})
        if lines and (done == total or time.monotonic() - last >= LINE_EVERY_S):
            last = time.monotonic()
            sys.stderr.write(
                f"  {done:,} of {total:,} {unit}  " + "  ".join(f"{name} {value:.4f}" for name, value in numbers.items()) + "\n"
            )

    return watch


def _emit(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _silent(event: dict[str, Any]) -> None:
    pass


def _end_with_parent() -> None:
    # A parent that was killed closes the pipe and nothing else; work that nobody waits for would go on writing checkpoints.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
