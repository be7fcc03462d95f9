"""What a check gives, and what several checks share: things that are looked at once, however many ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from e2urec_core.settings import Settings

if TYPE_CHECKING:
    from flows.health.subject import Subject

T = TypeVar("T")
State = Literal["ok", "warning", "fault"]
GIVE_UP_S = 5.0
"""Seconds after which a server that does not answer is given up."""


class Finding(Settings):
    """What one check has found."""

    state: State
    """`fault`: a night would fail or do harm; `warning`: it would run, and somebody should look; `ok`: neither."""
    said: str
    """One sentence with its numbers, no secret and no user identifier."""
    hint: str = ""
    """What to do; empty where it is ok."""


@dataclass(frozen=True)
class Check:
    """One check.

    Args:
        topic: Under which it is shown.
        name: What it is called.
        look: Gives the finding; whatever it raises is a fault.
        within_s: Seconds after which it is given up.
    """

    topic: str
    name: str
    look: Callable[[Subject], Finding]
    within_s: float = 20.0


class Once(Generic[T]):
    """What a look gave or raised, kept for everybody who asks; those who ask meanwhile wait for it, and give it up together."""

    def __init__(self, look: Callable[[], T], within_s: float = GIVE_UP_S + 0.5) -> None:
        """Look when first asked, in a thread that is left behind where it does not end within `within_s` seconds."""
        self._look, self._within_s, self._lock = look, within_s, threading.Lock()
        self._kept: Future[T] = Future()
        self._end_s: float | None = None

    def __call__(self) -> T:
        """What the look gave; what it raised is raised again.

        Raises:
            TimeoutError: It does not end.
        """
        with self._lock:
            if self._end_s is None:
                self._end_s = time.monotonic() + self._within_s
                threading.Thread(target=self._run, daemon=True).start()
        return self._kept.result(max(0.0, self._end_s - time.monotonic()))

    def _run(self) -> None:
        try:
            self._kept.set_result(self._look())
        except Exception as error:
            self._kept.set_exception(error)


def ok(said: str) -> Finding:
    """A finding that is no reason to do anything."""
    return Finding(state="ok", said=said)


def warning(said: str, hint: str) -> Finding:
    """A finding that somebody should look at."""
    return Finding(state="warning", said=said, hint=hint)


def fault(said: str, hint: str) -> Finding:
    """A finding with which a night would fail or do harm."""
    return Finding(state="fault", said=said, hint=hint)


def listed(names: list[str], most: int = 5) -> str:
    """The first names with commas between them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "run"), counted(2, "run"), counted(3, "key is", "keys are")
    ('1 run', '2 runs', '3 keys are')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
