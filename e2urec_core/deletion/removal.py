"""Takes things out of a store for good: artifacts, what remembers them, and what unfinished stages kept."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from e2urec_core.artifacts import KINDS, Artifact
from e2urec_core.failpoints import failpoint
from e2urec_core.store import Store, storage_errors, sync


def everything(store: Store) -> Iterator[Artifact]:
    """Handles of all artifacts of every kind; not verified."""
    for kind in KINDS.values():
        yield from store.all(kind)


def strange_folders(store: Store) -> list[Path]:
    """Folders among the artifacts that are none: without a manifest that can be read, or of a kind that nobody knows."""
    known = {(handle.kind, handle.digest) for handle in everything(store)}
    return [path for path in sorted((store.root / "objects").glob("*/*")) if (path.parent.name, path.name) not in known]


def remove(store: Store, path: Path) -> None:
    """Remove an artifact's folder, or a strange one: it disappears whole, then its bytes go. One that is gone is no fault.

    Raises:
        StorageFailed: The disk refuses.
    """
    with storage_errors(store.root):
        failpoint("erase.artifact")
        if not path.exists():
            return
        gone = store.root / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex}"
        os.rename(path, gone)
        sync(path.parent)
        failpoint("erase.renamed")
        shutil.rmtree(gone)


def folder_of(store: Store, handle: Artifact) -> Path:
    """Where an artifact lies."""
    return store.root / "objects" / handle.kind / handle.digest


def drop_keys(store: Store) -> None:
    """Remove the records of stage keys whose artifact is gone, and those that cannot be read."""
    stored = {handle.digest for handle in everything(store)}
    with storage_errors(store.root):
        for path in sorted((store.root / "keys").iterdir()):
            if _digest_in(path) not in stored:
                path.unlink(missing_ok=True)


def drop_unfinished(store: Store) -> None:
    """Remove what unfinished stages and half-written work have left; nothing else may be running."""
    with storage_errors(store.root):
        for folder in ("checkpoints", "tmp"):
            for path in sorted((store.root / folder).glob("*")):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _digest_in(path: Path) -> str:
    try:
        return str(json.loads(path.read_bytes())["record"]["handle"]["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
