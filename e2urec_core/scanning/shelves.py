"""Artifacts that are kept outside of a workspace, as a search of the workspace looks through them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from e2urec_core.remote import Listed, Remote
from e2urec_core.shared_store import SharedStore
from e2urec_core.store import Store

CALLED = "store"
PARQUET = b"PAR1"


class Shelf(Protocol):
    """Something outside of a workspace whose files are searched with it."""

    def folders(self, *, tables_only: bool) -> Iterator[tuple[Path, str]]:
        """Folders with files and what they are called; each may be gone when the next is asked for.

        Args:
            tables_only: Whether other files than Parquet's may be left out.
        """


class FolderShelf:
    """A folder that is no part of the workspace."""

    def __init__(self, folder: Path) -> None:
        """The folder and everything in it."""
        self._folder = folder

    def folders(self, *, tables_only: bool) -> Iterator[tuple[Path, str]]:
        """The folder itself."""
        if self._folder.is_dir():
            yield self._folder, CALLED


class RemoteShelf:
    """A folder of an object store; its objects are downloaded artifact by artifact, and caches are not trusted."""

    def __init__(self, remote: Remote) -> None:
        """Everything below the address of `remote`."""
        self._remote = remote

    def folders(self, *, tables_only: bool) -> Iterator[tuple[Path, str]]:
        """Copies of the objects of each artifact, and of the keys, the code and the runs, in a folder that is gone afterwards."""
        groups: dict[str, list[Listed]] = {}
        for each in self._remote.list():
            parts = each.name.split("/")[:-1]
            groups.setdefault("/".join(parts[:3] if parts[:1] == ["objects"] else parts[:1]), []).append(each)
        for group, listed in sorted(groups.items()):
            with tempfile.TemporaryDirectory() as place:
                self._fetch(listed, Path(place), group, tables_only=tables_only)
                yield Path(place), f"{CALLED} {group}".rstrip()

    def _fetch(self, listed: Iterable[Listed], place: Path, group: str, *, tables_only: bool) -> None:
        for each in listed:
            path = place / each.name.removeprefix(f"{group}/")
            try:
                if not tables_only or self._remote.read(each.name, len(PARQUET)) == PARQUET:
                    self._remote.fetch(each.name, path)
            except FileNotFoundError:
                # Somebody has removed it since it was listed.
                path.unlink(missing_ok=True)


def shelves_of(store: Store, workspace: Path) -> tuple[Shelf, ...]:
    """What has to be searched beside a workspace for its whole store to be searched."""
    if isinstance(store, SharedStore):
        return (RemoteShelf(store.remote),)
    inside = store.root.resolve().is_relative_to(workspace.resolve())
    return () if inside else (FolderShelf(store.root),)
