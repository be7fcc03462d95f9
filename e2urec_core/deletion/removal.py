"""Takes things out of a store for good: artifacts, what remembers them, and what unfinished stages kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from e2urec_core.artifacts import KINDS, Artifact
from e2urec_core.disk import changed_s, is_of_others, storage_errors, time_on
from e2urec_core.failpoints import failpoint
from e2urec_core.store import Store

AT_WORK_S = 3600.0
"""Seconds without a change after which erasing removes half-written work of others, who then have to begin it again."""


def everything(store: Store) -> Iterator[Artifact]:
    """Handles of all artifacts of every kind; not verified."""
    for kind in KINDS.values():
        yield from store.all(kind)


def strange_folders(store: Store) -> list[Path]:
    """Folders among the artifacts that are none: without a manifest that can be read, or of a kind that nobody knows."""
    known = {(handle.kind, handle.digest) for handle in everything(store)}
    return [path for path in store.folders() if (path.parent.name, path.name) not in known]


def remove(store: Store, path: Path) -> None:
    """Remove an artifact's folder, or a strange one; see `Store.remove`.

    Raises:
        StorageFailed: The disk refuses.
    """
    with storage_errors(store.root):
        failpoint("erase.artifact")
    store.remove(path)


def folder_of(store: Store, handle: Artifact) -> Path:
    """Where an artifact lies."""
    return store.root / "objects" / handle.kind / handle.digest


def drop_keys(store: Store) -> None:
    """Remove the records of stage keys whose artifact is gone, and those that cannot be read."""
    stored = {handle.digest for handle in everything(store)}
    for key, record in store.records().items():
        if record is None or record.handle.get("digest") not in stored:
            store.forget(key)


def others_at_work(store: Store) -> list[Path]:
    """Half-written work of other processes that was changed within the last hour."""
    with storage_errors(store.root):
        now_s = time_on(store.root / "tmp")
        pieces = [path for path in unfinished(store) if path.parent.name == "tmp" and is_of_others(path)]
    return [path for path in pieces if now_s - changed_s(path) < AT_WORK_S]


def unfinished(store: Store) -> list[Path]:
    """What unfinished stages and half-written work have left on this machine, and in a folder that several machines share."""
    half_written = [path for path in (store.root / "keys").glob(".*") if path.is_file()]
    return [*sorted(store.checkpoints.glob("*")), *sorted((store.root / "tmp").glob("*")), *sorted(half_written)]


def drop_unfinished(store: Store) -> None:
    """Remove what unfinished stages and half-written work have left; nothing else may be running."""
    with storage_errors(store.root):
        for path in unfinished(store):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
