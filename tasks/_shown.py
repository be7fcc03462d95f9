"""What people see of a run in Prefect: names, tags, links, tries, progress, tables, failures, events. Nobody is named in any of it.

Prefect is a view: where it does not take what it is told, the run says so once and goes on.
"""

from __future__ import annotations

import functools
import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Completed, Crashed, Failed, Running

from e2urec_core.artifacts import Artifact
from e2urec_core.errors import ProcessDied, StorageFailed, UserError
from tasks import _log, _notices
from tasks._progress import Report, say
from tasks._room import Room

P = ParamSpec("P")
R = TypeVar("R")
PROGRESS_EVERY_S = 10.0
MOST_TRIES = 3


def sentence(error: BaseException) -> str:
    """What Prefect may hold of an error: the sentence and the hint of a `UserError`, of others the kind, as their texts may name users."""
    if isinstance(error, UserError):
        return f"{type(error).__name__}: {error.fact} (hint: {error.hint})"
    told = (
        error.strerror
        if isinstance(error, OSError) and error.strerror
        else "a fault of the program; its text is left out, as it may name users"
    )
    return f"{type(error).__name__}: {told}"


def slug(text: str) -> str:
    """A key of an artifact: lower-case letters, digits and dashes.

    >>> slug("unlearn (seed 1, npo)")
    'unlearn-seed-1-npo'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@contextmanager
def aside(what: str) -> Iterator[None]:
    """Whatever Prefect does not take inside is left out, and that is said; the run goes on."""
    try:
        yield
    except Exception as error:
        say(f"Prefect was not told {what}: {type(error).__name__}; going on", level="WARNING")


def introduce(room: Room, tags: Sequence[str]) -> None:
    """Give the flow run the name of the journal's run and its tags, and link the MLflow run where that has an address."""
    from prefect.artifacts import create_link_artifact
    from prefect.client.orchestration import get_client

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    name, flow_run = room.journal.record.run, context.flow_run
    with aside("the run's name"):
        flow_run.tags = sorted({*flow_run.tags, *tags})
        get_client(sync_client=True).update_flow_run(flow_run.id, name=name, tags=flow_run.tags)
        # Prefect's engine and its hooks go by the record that they have read before.
        flow_run.name = name
    if (flow_run.run_count or 0) > 1:
        with aside("which stages were killed"):
            _end_killed_stages(flow_run.id)
    if page := room.tracker.page():
        with aside("where MLflow's run is"):
            create_link_artifact(
                key=f"mlflow-{slug(name)}", link=page, link_text=f"MLflow run {name}", description=f"id {room.tracker.run_id}"
            )


def _end_killed_stages(flow_run: UUID) -> None:
    """Call the stages crashed at which an earlier process of a flow run was killed: Prefect would show them as running for ever."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    client = get_client(sync_client=True)
    for stage in client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))):
        if stage.state is None or not stage.state.is_final():
            client.set_task_run_state(stage.id, Crashed(message="its process was killed"), force=True)


class Tries:
    """One stage's tries, as Prefect's states and log tell them."""

    def __init__(self, title: str) -> None:
        """None was begun yet."""
        self.title = title
        self.faults: list[Exception] = []

    def begin(self) -> None:
        """A try begins; from the second on the stage's state says which it is, and why."""
        from prefect.logging import get_run_logger
        from prefect.utilities.engine import emit_task_run_state_change_event

        context = TaskRunContext.get()
        if not self.faults or context is None:
            return
        told = f"try {len(self.faults) + 1} of {MOST_TRIES}, because of {sentence(self.faults[-1])}"
        with aside(f"of {told}"):
            run, before = context.task_run, context.task_run.state
            # Prefect enters the retry by itself and leaves no place for the cause.
            state: State[Any] = Running(name="Retrying", message=told, state_details=before.state_details if before else None)
            run.state, run.state_id, run.state_name = state, state.id, state.name
            emit_task_run_state_change_event(task_run=run, initial_state=before, validated_state=state)
            get_run_logger().warning("%s: %s", self.title, told)

    def failed(self, error: Exception) -> State[Any]:
        """The state after a try that failed."""
        self.faults.append(error)
        told, number = sentence(error), len(self.faults)
        if not may_pass(error):
            return Failed(message=told)
        return Failed(message=f"try {number} of {MOST_TRIES}: {told}" if number < MOST_TRIES else f"given up after {number} tries: {told}")

    def passed(self, handle: Artifact) -> State[Any]:
        """The state after a try that gave its artifact."""
        told = f"{handle.kind} {handle.short}, {handle.rows:,} rows"
        if self.faults:
            told += f"; try {len(self.faults) + 1} of {MOST_TRIES}, after {sentence(self.faults[-1])}"
        return Completed(message=told)

    def taken(self, handle: Artifact) -> State[Any]:
        """The state of a stage that was not run."""
        return Completed(name="Cached", message=f"{self.title} was taken from the store: {handle.kind} {handle.short}")

    def may_pass(self) -> bool:
        """Whether what the last try failed of may be gone at the next."""
        return may_pass(self.faults[-1])


def may_pass(error: BaseException) -> bool:
    """Whether a failure may be gone at the next try: memory and files may, bad input may not."""
    if isinstance(error, UserError):
        return isinstance(error, StorageFailed | ProcessDied)
    return isinstance(error, MemoryError | OSError) or type(error).__name__ == "OutOfMemoryError"


@contextmanager
def progress_artifact(title: str) -> Iterator[Report]:
    """A watcher that keeps a progress artifact while the block runs: from ten seconds on, every ten seconds."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    last, artifact, lost = time.perf_counter(), cast("UUID | None", None), False

    def report(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        nonlocal last, artifact, lost
        if lost or time.perf_counter() - last < PROGRESS_EVERY_S:
            return
        share = 100.0 * min(1.0, done / max(1, total))
        told = ", ".join([f"{title}: {done:,} of {total:,} {unit}", *(f"{name} {value:.3f}" for name, value in numbers.items())])
        # One call that fails may have waited long; a second one would hold the stage up again.
        lost = True
        with aside(f"how far {title} is"):
            if artifact is None:
                artifact = cast("UUID", create_progress_artifact(share, key=f"progress-{slug(title)}", description=told))
            else:
                update_progress_artifact(artifact, share, description=told)
            lost = False
        last = time.perf_counter()

    yield report
    if artifact is not None and not lost:
        with aside(f"that {title} is done"):
            update_progress_artifact(artifact, 100.0, description=f"{title}: done")


def show_results(room: Room, table: Sequence[Sequence[str]], page: Path | None) -> None:
    """The table of a run's results as an artifact of its flow run, and where its report is; a row of `table` names the columns."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    head, *rows = table
    run = room.journal.record.run
    with aside("the results"):
        told = [dict(zip(head, row, strict=True)) for row in rows]
        create_table_artifact(key=f"results-{slug(run)}", table=told, description=f"Results of {run}")
        if page is not None:
            lines = [f"Report of {run}: `{page.relative_to(room.workspace)}` in the workspace"]
            if address := room.tracker.page(f"report/{page.name}"):
                lines.append(f"[In MLflow]({address})")
            create_markdown_artifact(key=f"report-{slug(run)}", markdown="\n\n".join(lines), description=f"Report of {run}")


def show_table(name: str, room: Room, table: Sequence[Sequence[str]], description: str) -> None:
    """A further table of a run as an artifact of its flow run."""
    from prefect.artifacts import create_table_artifact

    head, *rows = table
    with aside(f"the table `{name}`"):
        told = [dict(zip(head, row, strict=True)) for row in rows]
        create_table_artifact(key=f"{name}-{slug(room.journal.record.run)}", table=told, description=description)


class ShownError(Exception):
    """What Prefect's log may hold of an error that ends a flow run of a worker: its sentence."""


def truthful(body: Callable[P, R]) -> Callable[P, R]:
    """Let a flow that fails say why in one sentence, and in nothing else; whoever called it gets the error itself."""

    @functools.wraps(body)
    def flow(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return body(*args, **kwargs)
        except Exception as error:
            return _failed(error)  # type: ignore[return-value]

    # Prefect reads the types of parameters, and would look for their names in this file.
    vars(flow)["__signature__"] = inspect.signature(body, eval_str=True)
    return flow


def _failed(error: Exception) -> State[Any]:
    from prefect.logging import get_run_logger

    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    told = sentence(error)
    if flow_run is not None:
        if not isinstance(error, UserError):
            get_run_logger().error("\n".join([told, *_log.code_lines(error.__traceback__)]))
        _notices.told_once(error, flow_run.id)
    # A worker's process writes the error that it gets into Prefect's log, with all that it says.
    by_worker = flow_run is not None and flow_run.deployment_id is not None
    return Failed(message=told, data=ShownError(told) if by_worker else error)
