"""Shows how far a stage has come: a bar with rate and time left in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tasks import _log

LINE_EVERY_S = 10.0

Report = Callable[[int, int, str, Mapping[str, float]], None]


def say(line: str, facts: Mapping[str, str | float] | None = None, *, level: str = "INFO") -> None:
    """One line to people, on stderr; for JSON `facts` are what it tells, by name, and `level` is logging's name of how grave it is."""
    _log.write(line, facts or {}, level)


@contextmanager
def progress(label: str, *, live: bool = True) -> Iterator[Report]:
    """A watcher for the stage `label` while the block runs: a live bar in a terminal, unless several would be shown at once."""
    if not live or not sys.stderr.isatty() or _log.as_json():
        yield _lines(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[numbers]}"), console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task(label, total=None, rate="", numbers="")
        started = time.perf_counter()

        def report(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
            rate = done / max(1e-9, time.perf_counter() - started)
            bar.update(shown, completed=done, total=total, rate=f"{rate:,.0f} {unit}/s", numbers=_told(numbers))

        yield report


def _lines(label: str) -> Report:
    started = last = time.perf_counter()

    def report(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last < LINE_EVERY_S:
            return
        last = now
        rate = done / max(1e-9, now - started)
        left = (total - done) / max(1e-9, rate)
        line = f"  {label}  {done:,} of {total:,} {unit}  {rate:,.0f} {unit}/s  {left:,.0f} s left  {_told(numbers)}".rstrip()
        say(line, {**numbers, "done": done, "total": total, "unit": unit, "seconds_left": round(left, 1)})

    return report


def _told(numbers: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
