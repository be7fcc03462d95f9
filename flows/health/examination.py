"""Runs all checks side by side, each in a thread that is left behind where it does not end, so that no server holds up the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from pydantic import Field

from flows.health import clock, keys, leftovers, machine, places, servers, versions
from flows.health.asking import without_secrets
from flows.health.finding import Check, Finding, fault
from flows.health.subject import Subject

CHECKS: tuple[Check, ...] = tuple(check for topic in (versions, machine, places, servers, clock, keys, leftovers) for check in topic.CHECKS)


class Result(Finding):
    """A finding with the check that gave it."""

    topic: str
    """Under which it is shown."""
    name: str
    """What the check is called."""
    seconds: float = Field(ge=0)
    """How long it took."""


def examine(subject: Subject, checks: Sequence[Check] = CHECKS) -> list[Result]:
    """What every check finds, in their order; a check that breaks or does not end is a fault."""
    began = time.monotonic()
    given = [_start(check, subject) for check in checks]
    return [_result(check, queue, began) for check, queue in zip(checks, given, strict=True)]


def _start(check: Check, subject: Subject) -> SimpleQueue[tuple[Finding, float]]:
    given: SimpleQueue[tuple[Finding, float]] = SimpleQueue()

    def run() -> None:
        began = time.monotonic()
        try:
            found = check.look(subject)
        except Exception as error:
            # Its message may quote anything.
            found = fault(f"the check broke with {type(error).__name__}", "look at what it names by hand, and report this")
        given.put((found, time.monotonic() - began))

    threading.Thread(target=run, name=check.name, daemon=True).start()
    return given


def _result(check: Check, given: SimpleQueue[tuple[Finding, float]], began: float) -> Result:
    try:
        found, seconds = given.get(timeout=max(0.0, began + check.within_s - time.monotonic()))
    except Empty:
        found = fault(f"gave no answer within {check.within_s:g} s", "see what holds it up: a server, a disk, a driver")
        seconds = check.within_s
    return Result(
        topic=check.topic,
        name=check.name,
        state=found.state,
        said=without_secrets(found.said),
        hint=without_secrets(found.hint),
        seconds=round(seconds, 3),
    )
