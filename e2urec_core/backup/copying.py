"""Copies the files of a workspace into a folder beside its place, and moves that there at the end: all of them or none.

Databases are copied by SQLite itself, never as files, and files that the workspace holds once under several names stay so. What can be
drawn or made again, or belongs to one machine, is left out: locks, half-written work, Prefect's folder. Keys are a matter of their own.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from e2urec_core.artifacts import file_digest
from e2urec_core.backup.manifest import CopiedFile
from e2urec_core.disk import sync
from e2urec_core.errors import BadInput, StorageFailed, WorkspaceBusy
from e2urec_core.failpoints import failpoint

KEYS = "keys"
DELETIONS = ("requests.db", "receipts", "erasures", KEYS)
"""Of a workspace what tells of deletions."""
# What belongs to a machine, or is written for one night alone.
_LEFT_OUT = ("prefect", "claims", "store/tmp", "store/checkpoints")
_LEFT_ENDINGS = (".lock", ".probe", ".db-wal", ".db-shm", ".db-journal")
_SQLITE = b"SQLite format 3\0"


def places(workspace: Path, *, only: Collection[str] = (), with_keys: bool) -> list[Path]:
    """The files of a workspace that a back-up has, sorted.

    Args:
        workspace: Its folder.
        only: Names of files and folders directly in it that are asked for; none asks for all.
        with_keys: Whether secret keys are among them.
    """
    found = []
    for path in sorted(workspace.rglob("*")):
        name = path.relative_to(workspace)
        left = any(name.is_relative_to(each) for each in _LEFT_OUT) or path.name.endswith(_LEFT_ENDINGS)
        wanted = (not only or name.parts[0] in only) and (with_keys or name.parts[0] != KEYS)
        if wanted and not left and path.is_file() and not path.is_symlink():
            found.append(path)
    return found


def key_names(workspace: Path) -> list[str]:
    """Names of the secret keys that lie in a workspace."""
    return [path.name for path in places(workspace, only=(KEYS,), with_keys=True)]


def copy_all(files: Collection[Path], source: Path, target: Path) -> dict[str, CopiedFile]:
    """Copy files from below `source` to below `target`, for their owner's eyes alone; returns what was written.

    Raises:
        OSError: The disk refuses.
    """
    written: dict[str, CopiedFile] = {}
    seen: dict[tuple[int, int], str] = {}
    for path in files:
        name, told = path.relative_to(source).as_posix(), path.stat()
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        first = seen.setdefault((told.st_dev, told.st_ino), name)
        if first != name:
            os.link(target / first, place)
            written[name] = written[first]
            continue
        copy_database(path, place) if is_database(path) else _copy(path, place)
        written[name] = CopiedFile(sha256=file_digest(place), size=place.stat().st_size)
        failpoint("backup.file")
    return written


def is_database(path: Path) -> bool:
    """Whether a file is a SQLite database."""
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def copy_database(path: Path, place: Path) -> None:
    """Copy a SQLite database through its own means, with everything that is committed; one that is there is replaced.

    Raises:
        OSError: It cannot be read or written.
    """
    place.unlink(missing_ok=True)
    os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
    try:
        with closing(sqlite3.connect(path, timeout=30)) as source, closing(sqlite3.connect(place)) as target:
            source.backup(target)
            # A copy that keeps a log of its own beside it would be two files.
            target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise OSError(0, f"{path.name}: {error}") from error
    sync(place)


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place at the end; after an error, or a kill and the next call, nothing is left.

    Raises:
        BadInput: There is something in `target` already.
        WorkspaceBusy: Somebody else writes there.
        StorageFailed: The disk refuses.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput("the folder to write into is not empty", facts={"folder": target}, hint="name a new folder")
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock", timeout=0, mode=0o600):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o700)
            try:
                yield part
                failpoint("backup.rename")
                for folder in {path.parent for path in part.rglob("*")} | {part}:
                    sync(folder)
                os.rename(part, target)
                sync(target.parent)
            finally:
                shutil.rmtree(part, ignore_errors=True)
                Path(f"{part}.lock").unlink(missing_ok=True)
    except Timeout:
        raise WorkspaceBusy("another command writes into this folder", facts={"folder": target}, hint="let it finish") from None
    except OSError as error:
        raise StorageFailed(
            f"the copy cannot be written: {error.strerror or error}",
            facts={"folder": target},
            hint="free some space, or name another folder; nothing is left of the copy",
        ) from error


def _copy(path: Path, place: Path) -> None:
    with path.open("rb") as source, open(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as target:
        shutil.copyfileobj(source, target, 2**20)
    told = path.stat()
    os.utime(place, ns=(told.st_atime_ns, told.st_mtime_ns))
    sync(place)
