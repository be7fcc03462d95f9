"""A stage: a Prefect task around one function, with a key, the store, a contract, tracking and progress.

The function is handed an open `Work` and the stage's arguments; it writes files into `work.place` and returns the number of rows.
Around it, the stage looks its key up in the store, takes what is there, or runs the function, holds the tables against their
contracts, publishes all or nothing, and notes in the run's journal what it gave.
"""

from __future__ import annotations

import functools
import inspect
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from e2urec_core.artifacts import Artifact, digest_of
from e2urec_core.errors import StorageFailed, UnknownRun, UserError
from e2urec_core.settings import Seat
from e2urec_core.stage_record import StageRecord
from tasks import _gate, _log
from tasks._crew import perform_in_shares
from tasks._gpus import GPU_TAG, gpus_for
from tasks._journal import StageEntry
from tasks._keys import code_files, key_parts
from tasks._progress import Report, progress, say
from tasks._room import CHAPTER, ROOM, Room, StoryEnds
from tasks._shown import MOST_TRIES, Tries, progress_artifact
from tasks._tracking import DIGEST_TAG, STATE_TAG, StageMetrics

A = TypeVar("A", bound=Artifact)

FIRST_DELAY_S = 2


@dataclass
class Work:
    """What a stage's function is handed.

    Args:
        room: Shared with the run's other stages.
        place: Empty folder to write into.
        watch: Told how far the stage has come.
        metrics: Takes the stage's numbers.
        checkpoints: Folder of what an unfinished stage keeps: the same when it is started again after a kill.
        opened: Folders that were opened, by kind; of several of one kind the last.
    """

    room: Room
    place: Path
    watch: Report
    metrics: StageMetrics
    checkpoints: Path
    opened: dict[type[Artifact], Path] = field(default_factory=dict)

    def open(self, handle: Artifact, *, apart_from: str = "") -> Path:
        """The folder of an earlier artifact, every byte verified; see `Store.open`."""
        self.opened[type(handle)] = self.room.store.open(handle, apart_from=apart_from) / handle.inside
        return self.opened[type(handle)]

    def folders(self, **handles: Artifact | None) -> dict[str, Path | None]:
        """The folder of each artifact by its argument's name; None for one that this run goes without."""
        return {name: self.open(handle) if handle else None for name, handle in handles.items()}

    def perform(self, seat: Seat, name: str, **arguments: Any) -> int:
        """Run the core's stage function `name` on opened folders and rules, here or in processes of its own; returns its rows.

        Raises:
            UserError: What the function raised, whichever process it ran in.
            ProcessDied: Its process ended without saying why.
        """

        def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
            self.watch(done, total, unit, numbers)
            if numbers:
                self.metrics.step(done, numbers)

        crew = self.room.crew if seat.processes == 1 else None
        if crew is not None and crew.elsewhere:
            return perform_in_shares(crew, name, arguments, seat, self.place, self.checkpoints, watch)
        with gpus_for(seat, name):
            if crew is not None:
                return perform_in_shares(crew, name, arguments, seat, self.place, self.checkpoints, watch)
            if self.room.execution == "process" or seat.processes > 1:
                from tasks._isolation import perform_apart

                return perform_apart(name, arguments, seat, self.place, self.checkpoints, watch)
            from e2urec_core import stages
            from e2urec_core.engine import open_bench

            rows: int = getattr(stages, name)(**arguments, bench=open_bench(seat, watch, self.checkpoints), place=self.place)
            return rows


def stage(
    name: str,
    *,
    writes: type[A],
    aside: Sequence[str] = (),
    cleansed: Sequence[str] = (),
    label: Callable[[Mapping[str, Any]], str] | None = None,
) -> Callable[[Callable[..., int]], Callable[..., A]]:
    """Make a stage of a function.

    Args:
        name: Name of the stage on the command line and in Prefect.
        writes: Kind of the artifact it gives.
        aside: Arguments that do not change what it gives, such as measured times; they stay out of the key.
        cleansed: Arguments from which the stage carries nothing of the forgotten over, so that what it gives may outlive them: their
            digests are in the key, but neither in its record nor among the parents, which erasure follows.
        label: Tells apart several runs of the stage in one pipeline run, from its arguments.
    """

    def wrap(body: Callable[..., int]) -> Callable[..., A]:
        signature = inspect.signature(body)
        bound_to = signature.replace(parameters=list(signature.parameters.values())[1:])

        @functools.wraps(body)
        def call(*args: Any, **kwargs: Any) -> A:
            room = ROOM.get()
            given = bound_to.bind(*args, **kwargs).arguments
            title = (label(given) if label else name) + (f" ({chapter})" if (chapter := CHAPTER.get()) else "")
            decisive = {argument: value for argument, value in given.items() if argument not in aside}
            parts = key_parts(name, writes, decisive)
            if room.foresight is not None:
                return room.foresight.look(title, writes, decisive, parts)
            room.told[name] = None
            key, mode = digest_of(parts), room.mode(name)
            if mode in ("recorded", "compare"):
                return _recorded(room, title, key, writes, compare=mode == "compare")

            made: list[A] = []
            tries = Tries(title)

            def run_or_take() -> Any:
                tries.begin()
                try:
                    if mode == "use" and (known := room.store.recall(key)) is not None:
                        made.append(_take(room, title, key, writes, known))
                        return tries.taken(made[-1])
                    made.append(_run(room, title, parts, writes, body, given, cleansed))
                except Exception as error:
                    return tries.failed(error)
                return tries.passed(made[-1])

            once = task(
                name=name,
                task_run_name=title,
                description=inspect.getdoc(body),
                tags={GPU_TAG} if any(isinstance(value, Seat) and value.device == "cuda" for value in given.values()) else None,
                retries=MOST_TRIES - 1,
                retry_delay_seconds=exponential_backoff(FIRST_DELAY_S),
                retry_jitter_factor=0.5,
                # Prefect takes plain functions only.
                retry_condition_fn=lambda *_: tries.may_pass(),
                persist_result=False,
                cache_policy=NO_CACHE,
                log_prints=False,
            )(run_or_take)
            with _log.about(stage=title):
                once()  # type: ignore[unused-coroutine]
            # A task that ends in a state of our own gives that state to its caller, so the handle and the error are taken from here.
            if not made:
                raise tries.faults[-1]
            return made[-1]

        return call

    return wrap


def _take(room: Room, title: str, key: str, writes: type[A], known: StageRecord) -> A:
    handle = writes.model_validate(known.handle)
    say(f"{title:<18} cached      {handle.kind} {handle.short}", {"state": "cached", "digest": handle.digest})
    with room.tracker.stage(title) as (_, tags):
        tags |= {STATE_TAG: "cached", DIGEST_TAG: handle.digest}
    entry = StageEntry(state="cached", key=key, kind=handle.kind, handle=handle.canonical(), seconds=known.seconds)
    room.journal.note(title, entry)
    return handle


def _run(
    room: Room,
    title: str,
    parts: Mapping[str, Any],
    writes: type[A],
    body: Callable[..., int],
    given: Mapping[str, Any],
    cleansed: Sequence[str],
) -> A:
    key = digest_of(parts)
    room.journal.note(title, StageEntry(state="running", key=key))
    checkpoints = room.store.checkpoints / key
    started = time.perf_counter()
    try:
        with room.tracker.stage(title) as (metrics, tags), room.store.workplace() as place:
            with progress(title, live=room.crew is None) as first, progress_artifact(title) as second:
                work = Work(room, place, _both(first, second), metrics, checkpoints)
                rows = body(work, **given)
            _gate.check(writes, place, work.opened)
            made_from = [value for argument, value in given.items() if argument not in cleansed]
            parents = tuple(sorted({handle.digest for handle in _handles(made_from)}))
            handle = room.publish(writes, place, parents=parents, rows=rows, made_by=title)
            seconds = time.perf_counter() - started
            room.store.keep_code(parts["code"], code_files(parts["stage"]))
            # What was erased later is named by nothing that outlives it.
            kept = {**parts, "given": {argument: value for argument, value in parts["given"].items() if argument not in cleansed}}
            told = StageRecord(stage=title, kind=writes.kind, handle=handle.canonical(), seconds=seconds, parts=kept)
            room.store.remember(key, told)
            metrics.final({"seconds": seconds, "rows": float(rows)})
            tags |= {STATE_TAG: "completed", DIGEST_TAG: handle.digest}
    except OSError as error:
        _fail(room, title, key, error)
        raise StorageFailed(
            f"{title} could not read or write a file: {error.strerror or error}", hint="check the disk, then run the command again"
        ) from error
    except BaseException as error:
        _fail(room, title, key, error)
        raise
    shutil.rmtree(checkpoints, ignore_errors=True)
    room.journal.note(title, StageEntry(state="completed", key=key, kind=writes.kind, handle=handle.canonical(), seconds=seconds))
    line = f"{title:<18} {seconds:7.1f} s   {handle.kind} {handle.short}  {rows:,} rows"
    say(line, {"state": "completed", "digest": handle.digest, "seconds": round(seconds, 3), "rows": rows})
    return handle


def _both(first: Report, second: Report) -> Report:
    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        first(done, total, unit, numbers)
        second(done, total, unit, numbers)

    return watch


def _fail(room: Room, title: str, key: str, error: BaseException) -> None:
    told = str(error).splitlines()[0] if isinstance(error, UserError) else type(error).__name__
    # A store that does not answer is no news any more, and would hide what has failed.
    with suppress(StorageFailed):
        room.journal.note(title, StageEntry(state="failed", key=key, fault=told))


def _recorded(room: Room, title: str, key: str, writes: type[A], *, compare: bool) -> A:
    entry = room.journal.entry(title)
    handle = entry.artifact() if entry else None
    if entry is None or handle is None:
        if compare:
            raise StoryEnds(title)
        raise UnknownRun(
            f"run `{room.journal.record.run}` never finished its stage `{title}`, which this one needs",
            hint=f"run `e2urec stage {title.split(' ', maxsplit=1)[0]} --run {room.journal.record.run}` first",
        )
    if entry.key != key:
        room.stale.append(title)
        room.journal.note(title, entry.model_copy(update={"state": "stale"}))
    elif entry.state == "stale":
        room.journal.note(title, entry.model_copy(update={"state": "completed"}))
    assert isinstance(handle, writes)
    return handle


def _handles(value: Any) -> list[Artifact]:
    if isinstance(value, Artifact):
        return [value]
    return [handle for item in value for handle in _handles(item)] if isinstance(value, list | tuple) else []
