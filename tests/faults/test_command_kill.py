"""Kills, termination and flipped bits through the command: nothing half-made is kept or used, and the same command goes on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2urec_console import (
    COMMAND,
    TINY,
    WORDS,
    Console,
    Story,
    clean_environment,
    command,
    digests,
    rerun,
    states,
)

from tests.by_default import few

pytestmark = pytest.mark.slow


def records(workspace: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text() or "{}") for path in sorted((workspace / "runs").glob("[!.]*.json"))]


class Underway:
    """A command in the middle of its stage `train-original`, just after that began."""

    def __init__(self, workspace: Path, log: Path) -> None:
        with log.open("w") as talk:
            self.process = subprocess.Popen(
                [COMMAND, *WORDS, *TINY, "--workspace", workspace], stdout=talk, stderr=talk, env=clean_environment()
            )
        self.log, self.tree = log, [psutil.Process(self.process.pid)]
        for _ in range(6000):
            assert self.process.poll() is None, log.read_text()
            running = any(run.get("stages", {}).get("train-original", {}).get("state") == "running" for run in records(workspace))
            if running and list((workspace / "store" / "tmp").iterdir()):
                break
            time.sleep(0.02)
        self.tree += self.tree[0].children(recursive=True)

    def servers(self) -> list[psutil.Process]:
        """Processes that it started."""
        return self.tree[1:]

    def clear(self) -> None:
        """End what is left of it."""
        for process in self.tree:
            if process.is_running():
                process.kill()
        self.process.wait(30)


def started_before(story: Story, place: Path) -> Path:
    """A workspace whose Prefect has been started before, and nothing else."""
    shutil.copytree(story.workspace / "prefect", place / "workspace" / "prefect")
    return place / "workspace"


@pytest.fixture(scope="module")
def killed(story: Story, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A workspace in which a run was killed in the middle of training its original, and the id of its process."""
    place = tmp_path_factory.mktemp("killed")
    workspace = started_before(story, place)
    underway = Underway(workspace, place / "log.txt")
    try:
        # Held still, so that the training cannot end while the list is read.
        underway.process.send_signal(signal.SIGSTOP)
        assert [run["state"] for run in command("runs", "--workspace", workspace, "--json").json()] == ["running"]
        underway.process.send_signal(signal.SIGKILL)
        assert underway.process.wait(30) == -signal.SIGKILL
    finally:
        underway.clear()
    return workspace, underway.process.pid


def test_a_killed_run_leaves_nothing_half_made_where_results_are_kept(killed: tuple[Path, int]) -> None:
    workspace, process = killed
    kept = {"Interactions", "Examples", "ForgetRequest", "Tokens"}
    assert {path.name for path in (workspace / "store" / "objects").iterdir()} == kept
    assert [path.name.split("-")[0] for path in (workspace / "store" / "tmp").iterdir()] == [str(process)]


def test_a_run_whose_process_was_killed_is_not_listed_as_running(killed: tuple[Path, int]) -> None:
    (run,) = command("runs", "--workspace", killed[0], "--json").json()
    assert run["state"] != "running"
    assert "running" not in states(run).values()


def test_the_same_command_completes_a_killed_run_as_if_it_had_not_been_disturbed(story: Story, killed: tuple[Path, int]) -> None:
    workspace, _ = killed
    answer = command(*WORDS, *TINY, "--workspace", workspace, "--json")
    assert answer.code == 0, answer.stderr
    assert list((workspace / "store" / "tmp").iterdir()) == []
    run = next(run for run in records(workspace) if run["run"] == answer.json()["run"])
    assert {stage for stage, state in states(run).items() if state == "cached"} == {"ingest", "split", "forget", "tokenise"}
    (undisturbed,) = records(story.workspace)
    assert {**digests(run), "report": ""} == {**digests(undisturbed), "report": ""}
    rows = json.loads((story.reports / "report.json").read_text())["rows"]
    for here, there in zip(answer.json()["rows"], rows, strict=True):
        assert {name: here[name] for name in here if "seconds" not in name} == {
            name: there[name] for name in there if "seconds" not in name
        }


def test_a_terminated_run_leaves_no_server_and_says_that_it_failed(story: Story, tmp_path: Path) -> None:
    workspace = started_before(story, tmp_path)
    underway = Underway(workspace, tmp_path / "log.txt")
    try:
        assert any("uvicorn" in " ".join(process.cmdline()) for process in underway.servers())
        underway.process.send_signal(signal.SIGTERM)
        assert underway.process.wait(60) == 128 + signal.SIGTERM
        _, alive = psutil.wait_procs(underway.servers(), timeout=30)
        assert alive == []
    finally:
        underway.clear()
    assert "Traceback" not in underway.log.read_text()
    (run,) = records(workspace)
    assert (run["state"], states(run)["train-original"]) == ("failed", "failed")
    assert list((workspace / "store" / "tmp").iterdir()) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def stored(console: Console, run: dict[str, Any], stage: str) -> Path:
    entry = run["stages"][stage]
    return console.workspace / "store" / "objects" / entry["kind"] / entry["handle"]["digest"]


@pytest.mark.parametrize(
    ("stage", "name"),
    few(
        {("split", "examples.parquet"), ("unlearn", "adapter/adapter_model.safetensors")},
        [
            ("split", "examples.parquet"),
            ("tokenise", "tokens.parquet"),
            ("train-original", "model.safetensors"),
            ("cache-original", "original.parquet"),
            ("cache-teachers", "forgotten.parquet"),
            ("unlearn", "adapter/adapter_model.safetensors"),
            ("evaluate", "scores.parquet"),
        ],
    ),
)
def test_a_flipped_bit_makes_its_stage_run_again_and_no_other(story: Story, console: Console, stage: str, name: str) -> None:
    run = console.run(story.run)
    path = stored(console, run, stage) / name
    whole = path.read_bytes()
    flip(path)
    assert console.unlearn().code == 0
    again = console.last()
    assert rerun(again) == {stage}
    assert digests(again) == digests(run)
    assert path.read_bytes() == whole


def test_a_truncated_and_a_missing_file_are_made_again(story: Story, console: Console) -> None:
    run = console.run(story.run)
    short, gone = stored(console, run, "train-retrained") / "model.safetensors", stored(console, run, "forget") / "users.parquet"
    short.write_bytes(short.read_bytes()[:100])
    gone.unlink()
    assert console.unlearn().code == 0
    assert rerun(console.last()) == {"forget", "train-retrained"}


def test_a_stage_over_a_damaged_input_is_refused_and_the_hint_mends_it(story: Story, console: Console) -> None:
    run = console.run(story.run)
    flip(stored(console, run, "train-original") / "model.safetensors")
    answer = console("stage", "unlearn", "--run", story.run)
    assert answer.code == 2
    fact, hint = answer.stderr.splitlines()[-2:]
    short = digests(run)["train-original"][:12]
    assert fact == f"DamagedArtifact: Original {short} is damaged: the bytes of `model.safetensors` have changed"
    assert hint.startswith("hint: run the stage `train-original` again")
    assert console("stage", "train-original", "--run", story.run).code == 0
    assert console("stage", "unlearn", "--run", story.run).code == 0
    assert digests(console.run(story.run)) == digests(run)
