"""The story told elsewhere: in another workspace, under another order of Python's sets, its stages in processes of their own, one killed.

None of this may show in what it gives, only in what Prefect, MLflow and the journal tell of the way.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from e2urec_console import COMMAND, STAGES, TINY, WORDS, Answer, Story, clean_environment, digests, rerun

from e2urec_core.report import ReportDocument

pytestmark = pytest.mark.long

KILLED = "train-original"
IN_PROCESSES = ("train-original", "train-augmented", "cache-original", "cache-teachers", "unlearn", "train-retrained", "evaluate")


class Elsewhere(NamedTuple):
    """What was told elsewhere.

    Args:
        workspace: Its workspace.
        answer: What the command ended with.
        states: States and faults of the killed stage, as the journal showed them one after another.
        steps: Checkpoints that were there when it was killed.
    """

    workspace: Path
    answer: Answer
    states: list[tuple[str, str]]
    steps: list[str]

    def record(self) -> dict[str, Any]:
        """The journal of its run."""
        return record(self.workspace, self.answer.json()["run"])


def record(workspace: Path, run: str) -> dict[str, Any]:
    return dict(json.loads((workspace / "runs" / f"{run}.json").read_text()))


def worker_below(process: psutil.Process) -> psutil.Process | None:
    """The process of a stage, if one runs."""
    for child in process.children(recursive=True):
        try:
            if "e2urec_core.run" in child.cmdline():
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def kill_in_training(worker: psutil.Process, checkpoints: Path) -> list[str]:
    """Kill `worker` once it has kept a step; it runs in short turns, so that it cannot reach its end between two looks."""
    while not (steps := sorted(path.name for path in checkpoints.glob("*/step-*"))):
        worker.resume()
        time.sleep(0.03)
        worker.suspend()
    worker.kill()
    return steps


@pytest.fixture(scope="module")
def elsewhere(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    place = tmp_path_factory.mktemp("elsewhere")
    workspace, said, talked = place / "workspace", place / "stdout", place / "stderr"
    shutil.copytree(story.workspace / "prefect", workspace / "prefect")
    flags = ("--execution", "process", "--engine.checkpoint-every-steps", "1", "--json", "--workspace", str(workspace))
    states: list[tuple[str, str]] = []
    steps: list[str] = []
    with said.open("w") as out, talked.open("w") as err:
        command = subprocess.Popen([COMMAND, *WORDS, *TINY, *flags], stdout=out, stderr=err, env=clean_environment(PYTHONHASHSEED="1"))
        try:
            while command.poll() is None:
                for path in (workspace / "runs").glob("[!.]*.json"):
                    entry = json.loads(path.read_text() or "{}").get("stages", {}).get(KILLED)
                    if entry and (not states or states[-1] != (entry["state"], entry["fault"])):
                        states.append((entry["state"], entry["fault"]))
                if not steps and states and (worker := worker_below(psutil.Process(command.pid))) is not None:
                    steps = kill_in_training(worker, workspace / "store" / "checkpoints")
                time.sleep(0.02)
        finally:
            command.kill()
            command.wait(30)
    answer = Answer(command.returncode, said.read_text(), talked.read_text())
    assert answer.code == 0, answer.stderr
    return Elsewhere(workspace, answer, states, steps)


def test_json_is_the_only_thing_on_stdout_and_talk_goes_to_stderr(elsewhere: Elsewhere) -> None:
    document = ReportDocument.model_validate(elsewhere.answer.json())
    assert (elsewhere.workspace / "reports" / document.run / "report.json").read_text() == elsewhere.answer.stdout
    assert elsewhere.answer.stages_told() == [*STAGES, "version"]


def test_every_stage_was_run_and_no_other_workspace_asked(elsewhere: Elsewhere) -> None:
    assert rerun(elsewhere.record()) == set(STAGES)


def test_equal_settings_give_the_same_digits(story: Story, elsewhere: Elsewhere) -> None:
    here = json.loads((story.reports / "report.json").read_text())["rows"]
    for one, other in zip(here, elsewhere.answer.json()["rows"], strict=True):
        assert {name: other[name] for name in other if "seconds" not in name} == {name: one[name] for name in one if "seconds" not in name}


def test_equal_settings_give_the_same_digests(story: Story, elsewhere: Elsewhere) -> None:
    # A report holds measured times and its run's name.
    assert {**digests(elsewhere.record()), "report": ""} == {**digests(record(story.workspace, story.run)), "report": ""}


def test_how_stages_are_executed_is_in_no_key_but_that_of_the_report_which_tells_it(story: Story, elsewhere: Elsewhere) -> None:
    here, there = record(story.workspace, story.run), elsewhere.record()
    assert (here["settings"]["execution"], there["settings"]["execution"]) == ("inline", "process")
    keys = [{stage: entry["key"] for stage, entry in run["stages"].items()} for run in (here, there)]
    assert {stage for stage in STAGES if keys[0][stage] != keys[1][stage]} == {"report"}


def test_the_stage_whose_process_was_killed_is_retried_and_completes(elsewhere: Elsewhere) -> None:
    # It was in the middle of its steps.
    assert elsewhere.steps
    fault = f"ProcessDied: the process of `{KILLED}` ended with signal 9"
    assert elsewhere.states == [("running", ""), ("failed", fault), ("running", ""), ("completed", "")]


def test_prefect_shows_the_retry_of_that_stage_and_of_no_other(elsewhere: Elsewhere) -> None:
    connection = sqlite3.connect(elsewhere.workspace / "prefect" / "prefect.db", timeout=30)
    try:
        # The copied database tells of the first story, too.
        flow_run = connection.execute("select id from flow_run order by start_time desc limit 1").fetchone()[0]
        counts = connection.execute("select name, run_count, state_name from task_run where flow_run_id = ?", (flow_run,)).fetchall()
        states = (
            "select s.name, s.message from task_run_state s join task_run t on s.task_run_id = t.id where t.flow_run_id = ? and t.name = ?"
        )
        told = connection.execute(f"{states} order by s.timestamp", (flow_run, KILLED)).fetchall()
        names, messages = [name for name, _ in told], [message for _, message in told]
    finally:
        connection.close()
    assert {name: (count, state) for name, count, state in counts} == {
        stage: (2 if stage == KILLED else 1, "Completed") for stage in STAGES
    }
    assert "AwaitingRetry" in names
    assert any(message.startswith("try 2 of 3, because of ProcessDied: ") for message in messages)
    assert names[-1] == "Completed"


def test_mlflow_keeps_the_losses_of_both_tries_and_of_every_stage_in_a_process(story: Story, elsewhere: Elsewhere) -> None:
    connection = sqlite3.connect(elsewhere.workspace / "mlflow.db")
    try:
        kept = connection.execute(
            "select t.value, r.status, m.step, m.value from metrics m join runs r on m.run_uuid = r.run_uuid "
            "join tags t on t.run_uuid = r.run_uuid and t.key = 'e2urec.stage' where m.key = 'loss'"
        ).fetchall()
    finally:
        connection.close()
    for stage, entry in record(story.workspace, story.run)["stages"].items():
        facts = story.workspace / "store" / "objects" / entry["kind"] / entry["handle"]["digest"] / "facts.json"
        curve = json.loads(facts.read_text()).get("curve", []) if facts.exists() else []
        assert {(step, loss) for name, _, step, loss in kept if name == stage} == {(point["step"], point["loss"]) for point in curve}
    assert {status for name, status, _, _ in kept if name == KILLED} == {"FAILED", "FINISHED"}
    # The second try went on from a checkpoint of the first.
    assert min(step for name, status, step, _ in kept if (name, status) == (KILLED, "FINISHED")) > 1


def test_nothing_half_made_is_left(elsewhere: Elsewhere) -> None:
    store = elsewhere.workspace / "store"
    assert list((store / "tmp").iterdir()) == []
    assert list((store / "checkpoints").iterdir()) == []
