"""What Prefect is told of a run: causes of retries, one sentence of a failure, progress of long stages; never what may name somebody."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2urec_core.artifacts import Original
from e2urec_core.errors import BadInput, ProcessDied

if TYPE_CHECKING:
    from tasks._room import Room
    from tasks._stage import Work

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]

SECRET = "subject-4711-"
DIED = ProcessDied("the process of `train-original` ended with signal 9", hint="run it again")
TOLD = "ProcessDied: the process of `train-original` ended with signal 9 (hint: run it again)"
HIDDEN = "a fault of the program; its text is left out, as it may name users"


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import _stage

    monkeypatch.setattr(_stage, "FIRST_DELAY_S", 0)


@contextmanager
def log_of(name: str) -> Iterator[list[str]]:
    """What is written into one of Prefect's logs."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter().format(record))

    logger, handler = logging.getLogger(name), Kept()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def told_of(faults: list[Exception], *, steps: int = 0) -> tuple[Any, list[tuple[str, str]], BaseException | None]:
    """Run a flow of one stage that raises these faults in turn, after so many of four steps.

    Returns its run, the states of the stage, and what it ended with.
    """
    from prefect import flow
    from prefect.client.orchestration import get_client

    from tasks._shown import truthful
    from tasks._stage import stage

    @stage("train-original", writes=Original)
    def toy(work: Work) -> int:
        """Fail as told."""
        for step in range(1, steps + 1):
            work.watch(step, 4, "steps", {"loss": 0.5})
        if faults:
            raise faults.pop(0)
        (work.place / "line.txt").write_text("a")
        return 1

    seen = []

    @flow(name="toy", persist_result=False)
    @truthful
    def story() -> str:
        from prefect.runtime import flow_run

        seen.append(flow_run.id)
        toy()
        return "done"

    ended: BaseException | None = None
    try:
        assert story() == "done"
    except Exception as error:
        ended = error
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(seen[0])
        states = until(lambda: recorded(client, seen[0]))
    return run, states, ended


def recorded(client: Any, flow_run: str) -> list[tuple[str, str]]:
    """States of the only task run of a flow run, once the last of them is there."""
    from prefect.client.schemas.filters import FlowRunFilter

    runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [flow_run]}))
    if not runs or not runs[0].state or not runs[0].state.is_final():
        return []
    answer = client.request("GET", "/task_run_states/", params={"task_run_id": str(runs[0].id)})
    return [(state["name"], state["message"] or "") for state in sorted(answer.json(), key=lambda state: state["timestamp"])]


def until(look: Callable[[], list[Any]]) -> list[Any]:
    """What `look` finds, once it finds something: Prefect's server takes states in when it comes to it."""
    for _ in range(300):
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("Prefect never showed it")


def test_a_retry_says_which_try_it_is_and_why(room: Room) -> None:
    with log_of("prefect.task_runs") as lines:
        _, states, ended = told_of([DIED])
    assert ended is None
    assert ("Retrying", f"try 2 of 3, because of {TOLD}") in states
    name, message = states[-1]
    assert name == "Completed"
    assert message.endswith(f" 1 rows; try 2 of 3, after {TOLD}")
    assert any(line.startswith(f"train-original: try 2 of 3, because of {TOLD}") for line in lines)


def test_a_stage_that_is_given_up_says_so_and_the_flow_says_why(room: Room) -> None:
    run, states, ended = told_of([DIED, DIED, DIED])
    assert isinstance(ended, ProcessDied)
    assert states[-1] == ("Failed", f"given up after 3 tries: {TOLD}")
    assert [message for name, message in states if name == "Retrying" and message] == [
        f"try {number} of 3, because of {TOLD}" for number in (2, 3)
    ]
    assert (run.state.name, run.state.message) == ("Failed", TOLD)


def test_bad_input_fails_task_and_flow_with_its_sentence_and_hint_alone(room: Room) -> None:
    fault = BadInput("3 of 9 rows are blue", hint="paint them", facts={"row": SECRET})
    run, states, ended = told_of([fault])
    assert ended is fault
    assert states[-1] == ("Failed", "BadInput: 3 of 9 rows are blue (hint: paint them)")
    assert run.state.message == "BadInput: 3 of 9 rows are blue (hint: paint them)"


@pytest.mark.parametrize("faults", [1, 3], ids=["at once", "after two that may pass"])
def test_the_text_of_a_bug_reaches_neither_states_nor_logs(room: Room, faults: int) -> None:
    bug = ValueError(f"user {SECRET}1 is odd")
    with log_of("prefect.task_runs") as of_tasks, log_of("prefect.flow_runs") as of_flows:
        run, states, ended = told_of([*[DIED] * (faults - 1), bug])
    assert ended is bug
    assert (states[-1], run.state.message) == (("Failed", f"ValueError: {HIDDEN}"), f"ValueError: {HIDDEN}")
    assert SECRET not in "\n".join([*of_tasks, *of_flows, *(message for _, message in states)])
    # Where it came up is told, so that it can be mended.
    assert any("raise faults.pop(0)" in line for line in of_flows)


def test_a_failed_flow_leaves_no_pickled_error(room: Room, tmp_path: Path) -> None:
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        told_of([ValueError(SECRET)])
    assert not (tmp_path / "results").exists()


def test_a_worker_hands_the_sentence_alone_to_prefects_log(room: Room) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    from tasks._shown import ShownError, truthful

    @flow(name="deployed", persist_result=False)
    @truthful
    def deployed() -> None:
        raise ValueError(SECRET)

    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(deployed), name="toy")
        run = client.create_flow_run_from_deployment(deployment)
        with log_of("prefect.toy_worker") as lines, pytest.raises(ShownError, match="ValueError: a fault of the program") as caught:
            run_flow(deployed, flow_run=run, error_logger=logging.getLogger("prefect.toy_worker"))
    assert any("Engine execution exited" in line for line in lines)
    assert SECRET not in "\n".join([*lines, str(caught.value)])


def progress_of(flow_run: str) -> list[tuple[str, float, str]]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run])))
    return [(each.key, each.data, each.description) for each in found if each.type == "progress"]


def test_a_long_stage_has_one_progress_artifact_that_ends_at_a_hundred(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import _shown

    monkeypatch.setattr(_shown, "PROGRESS_EVERY_S", 0.0)
    run, _, _ = told_of([], steps=4)
    assert progress_of(run.id) == [("progress-train-original", 100.0, "train-original: done")]


def test_the_progress_of_a_failed_stage_stays_where_it_was(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import _shown

    monkeypatch.setattr(_shown, "PROGRESS_EVERY_S", 0.0)
    run, _, _ = told_of([BadInput("3 of 9 rows are blue", hint="paint them")], steps=3)
    # 100 * 3 / 4.
    assert progress_of(run.id) == [("progress-train-original", 75.0, "train-original: 3 of 4 steps, loss 0.500")]


def test_a_quick_stage_has_no_progress_artifact(room: Room) -> None:
    run, _, _ = told_of([], steps=4)
    assert progress_of(run.id) == []


def test_a_prefect_that_takes_no_progress_is_asked_once_and_breaks_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import prefect.artifacts

    from tasks import _shown

    asked = []

    def refuse(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise ConnectionError(SECRET)

    monkeypatch.setattr(_shown, "PROGRESS_EVERY_S", 0.0)
    monkeypatch.setattr(prefect.artifacts, "create_progress_artifact", refuse)
    _, states, ended = told_of([], steps=4)
    assert (ended, states[-1][0], len(asked)) == (None, "Completed", 1)
    told = capfd.readouterr().err
    assert "Prefect was not told how far train-original is: ConnectionError; going on" in told
    assert SECRET not in told


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (BadInput("1 row is bad", hint="mend it", facts={"row": SECRET}), "BadInput: 1 row is bad (hint: mend it)"),
        (OSError(28, "No space left on device", SECRET), "OSError: No space left on device"),
        (OSError(SECRET), f"OSError: {HIDDEN}"),
        (KeyError(SECRET), f"KeyError: {HIDDEN}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_sentence_holds_what_was_written_for_people_and_nothing_else(fault: Exception, told: str) -> None:
    from tasks._shown import sentence

    assert sentence(fault) == told


def test_keys_of_artifacts_are_lower_case_letters_digits_and_dashes() -> None:
    from tasks._shown import slug

    assert slug("train-retrained seed 1 (seed 12, E2URec)") == "train-retrained-seed-1-seed-12-e2urec"
