"""Runs the command `e2urec` for tests: in a process of its own, or, as it starts in seconds, many times in one that is started once.

As a script, it reads one list of arguments a line, calls the command's entry point with them, and answers with what came of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

WORDS = ("unlearn", "sample", "tiny-t5", "e2urec")
# fmt: off
TINY_NETWORK = (
    "--backbone.width", "16", "--backbone.num-layers", "1", "--backbone.num-heads", "2", "--backbone.inner-width", "32",
    "--backbone.vocabulary", "400", "--training.num-epochs", "1", "--augment.num-epochs", "1", "--method.training.num-epochs", "1",
    "--evaluate.floor-seeds", "0", "--threads", "1",
)
TINY = (
    "--dataset.num-users", "60", "--dataset.ratings-per-user", "12", "--dataset.polluted-share", "0.3", "--split.holdout-share", "0.2",
    *TINY_NETWORK,
)
# fmt: on
# Those of a request for users; one for interactions has `retell` too.
STAGES = (
    "ingest",
    "split",
    "forget",
    "tokenise",
    "train-original",
    "train-augmented",
    "cache-original",
    "cache-teachers",
    "unlearn",
    "train-retrained",
    "evaluate",
    "report",
    "verdict",
    "bundle",
)
COMMAND = Path(sys.executable).with_name("e2urec")
HEAVY = ("prefect", "torch", "mlflow", "polars", "transformers", "great_expectations", "pandas")


@dataclass(frozen=True)
class Answer:
    """What a command ended with; `imported` names the heavy packages that were loaded by then, where that is known."""

    code: int
    stdout: str
    stderr: str
    imported: tuple[str, ...] = ()

    def json(self) -> Any:
        """The one JSON document on stdout; anything beside it is an error."""
        return json.loads(self.stdout)

    def stages_told(self) -> list[str]:
        """The first word of every line of talk but those, set in, in which a stage that takes long says how far it is."""
        return [line.split()[0] for line in self.stderr.splitlines() if not line.startswith(" ")]


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without anything that would steer the command."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "E2UREC_"))}
    return {**kept, "COLUMNS": "160", "PYTHONHASHSEED": "0", **extra}


def command(*arguments: str | Path, **environment: str) -> Answer:
    """Run the installed command in a process of its own."""
    ended = subprocess.run(
        [COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False, env=clean_environment(**environment)
    )
    return Answer(ended.returncode, ended.stdout, ended.stderr)


class Story(NamedTuple):
    """The tiny story, told once in a fresh workspace."""

    workspace: Path
    answer: Answer
    run: str

    @property
    def reports(self) -> Path:
        """Folder of its report."""
        return self.workspace / "reports" / self.run


class Console:
    """One process that runs the command again and again; end it with `close`."""

    def __init__(self, workspace: Path, **environment: str) -> None:
        self.workspace = workspace
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(**environment)
        )

    def __call__(self, *arguments: str | Path, workspace: Path | None = None) -> Answer:
        """Run `e2urec ARGUMENTS` in the workspace."""
        assert self._process.stdin
        assert self._process.stdout
        # Help of the whole command knows no workspace.
        place = [] if str(arguments[0]).startswith("-") else ["--workspace", str(workspace or self.workspace)]
        line = json.dumps([*map(str, arguments), *place])
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Answer(answer["code"], answer["stdout"], answer["stderr"], tuple(answer["imported"]))

    def unlearn(self, *flags: str | Path) -> Answer:
        """Run the tiny story with `flags`."""
        return self(*WORDS, *TINY, *flags)

    def runs(self) -> list[dict[str, Any]]:
        """What `e2urec runs --json` says, oldest first."""
        return list(self("runs", "--json").json())

    def last(self) -> dict[str, Any]:
        """The newest run."""
        return self.runs()[-1]

    def run(self, name: str) -> dict[str, Any]:
        """The run of this name."""
        return next(run for run in self.runs() if run["run"] == name)

    def close(self) -> None:
        """End the process, and with it what it has started."""
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait(60) == 0


def states(run: dict[str, Any]) -> dict[str, str]:
    """State of each stage of a run."""
    return {label: entry["state"] for label, entry in run["stages"].items()}


def digests(run: dict[str, Any]) -> dict[str, str]:
    """Digest of what each stage of a run gave."""
    return {label: entry["handle"]["digest"] for label, entry in run["stages"].items() if entry["handle"]}


def rerun(run: dict[str, Any]) -> set[str]:
    """Stages of a run that were not taken from the store."""
    return {label for label, state in states(run).items() if state != "cached"}


def copied(workspace: Path, to: Path) -> Path:
    """A copy of a workspace without its MLflow part, which holds absolute paths."""
    for name in ("store", "runs", "reports", "prefect"):
        shutil.copytree(workspace / name, to / name)
    return to


def story_told_once(shared: Path) -> Story:
    """The tiny story in a workspace under `shared`, told by whichever test process came first. Copy it before a change."""
    from filelock import FileLock

    workspace, said = shared / "story", shared / "story.json"
    with FileLock(shared / "story.lock"):
        if not said.exists():
            answer = command(*WORDS, *TINY, "--workspace", workspace)
            said.write_text(json.dumps([answer.code, answer.stdout, answer.stderr]))
    answer = Answer(*json.loads(said.read_text()))
    assert answer.code == 0, answer.stderr
    (journal,) = (workspace / "runs").glob("*.json")
    return Story(workspace, answer, journal.stem)


def trained_users(workspace: Path, run: dict[str, Any]) -> list[str]:
    """Users with a training row, sorted."""
    import pyarrow.parquet as pq

    folder = workspace / "store" / "objects" / "Examples" / digests(run)["split"]
    table = pq.read_table(folder / "examples.parquet", columns=["user_id", "split"])
    return sorted({row["user_id"] for row in table.to_pylist() if row["split"] == "train"})


def prefect_rows(workspace: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    """What Prefect's own database answers."""
    connection = sqlite3.connect(workspace / "prefect" / "prefect.db", timeout=30)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def prefect_events(workspace: Path, event: str, flow_run: str = "") -> list[dict[str, Any]]:
    """What the events of this name hold, of one flow run or of all, oldest first; written seconds after they were sent."""
    query = "select payload from events where event = ? and replace(related, '-', '') like ? order by occurred"
    for _ in range(300):
        if found := prefect_rows(workspace, query, event, f"%{flow_run}%"):
            return [json.loads(payload) for (payload,) in found]
        time.sleep(0.1)
    return []


def prefect_table(workspace: Path, run: str) -> list[dict[str, str]]:
    """The rows of the table of a run's results."""
    ((data,),) = prefect_rows(workspace, "select data from artifact where key = ?", f"results-{run}")
    rows: list[dict[str, str]] = json.loads(json.loads(data))
    return rows


def shared_folder(base: Path) -> Path:
    """The folder that all test processes of a session have in common, from pytest's base folder of one of them."""
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as talked:
            os.dup2(said.fileno(), 1)
            os.dup2(talked.fileno(), 2)
            code = _run(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            texts = []
            for file in (said, talked):
                file.seek(0)
                texts.append(file.read().decode())
        imported = [name for name in HEAVY if name in sys.modules]
        answers.write(json.dumps({"code": code, "stdout": texts[0], "stderr": texts[1], "imported": imported}) + "\n")


def _run(arguments: list[str]) -> int:
    from flows.cli import main

    sys.argv = ["e2urec", *arguments]
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve()
