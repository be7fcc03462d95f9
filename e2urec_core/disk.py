"""What everybody does who writes into a folder that others use: names of half-written work, whole files, and one sentence for refusals.

A folder may be used by several machines at once. Process numbers mean something on one machine alone, and clocks differ, so names carry
the machine, and ages are told by the clock of the file system.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from e2urec_core.errors import StorageFailed

ABANDONED_S = 24 * 3600.0
"""Seconds without a change after which half-written work of another machine is taken for left behind."""
OWNED = re.compile(r"^(\d+)-([0-9a-f]{12})-[0-9a-f]{32}")


@cache
def machine() -> str:
    """Twelve hex digits that tell this machine from others: another restart, and another container with its own processes, is another."""
    told = [platform.node()]
    with suppress(OSError):
        told += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def own_name() -> str:
    """A name for half-written work of this process, which nobody else has."""
    return f"{os.getpid()}-{machine()}-{uuid.uuid4().hex}"


def is_left(path: Path, now_s: float) -> bool:
    """Whether nobody works at `path` any more: its process on this machine is gone, or it is not of this machine and a day old.

    Args:
        path: A file or folder that is called by `own_name`, or whose owner is not known.
        now_s: The time by the clock of its file system, seconds since 1970.
    """
    owner = OWNED.match(path.name)
    if owner is not None and owner[2] == machine():
        return not _alive(int(owner[1]))
    return now_s - changed_s(path) > ABANDONED_S


def is_of_others(path: Path) -> bool:
    """Whether a name says that `path` belongs to another process that works on this machine, or to any of another machine."""
    owner = OWNED.match(path.name)
    if owner is None or int(owner[1]) == os.getpid():
        return owner is not None and owner[2] != machine()
    return owner[2] != machine() or _alive(int(owner[1]))


def changed_s(path: Path) -> float:
    """When `path`, or anything below it, was changed last; seconds since 1970."""
    times = [0.0]
    for each in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            times.append(each.lstat().st_mtime)
    return max(times)


def time_on(folder: Path) -> float:
    """The time by the clock of a folder's file system, seconds since 1970; shows that it can be written, too."""
    probe = folder / own_name()
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it there, so that a reader sees the old file or the new one, never half."""
    beside = path.with_name(f".{path.name}.{own_name()}")
    try:
        beside.write_text(text)
        sync(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's or folder's contents are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(root: Path) -> Iterator[None]:
    """Say of whatever the operating system refuses inside that the workspace `root` cannot be written."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"the workspace cannot be written: {error.strerror or error}",
            facts={"folder": root},
            hint="free some space, mend the folder's rights, or name another folder with `--workspace` or `--store`",
        ) from error


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
