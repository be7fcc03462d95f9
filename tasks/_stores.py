"""Where the artifacts of a workspace and the records of its runs are kept: in it, in a folder elsewhere, or in an object store.

`E2UREC_STORE`, which `--store` sets, is an address such as `s3://bucket/folder`, or a folder that several machines may share.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.data.object_stores import is_remote
from e2urec_core.disk import storage_errors, write_whole
from e2urec_core.store import Store
from e2urec_core.store_to_read import StoreToRead
from tasks._journal import Journal, RunRecord, all_runs

if TYPE_CHECKING:
    from e2urec_core.remote import Remote

VARIABLE = "E2UREC_STORE"
FOLDER, CACHES, RUNS = "store", "cache", "runs"


def address_of(workspace: Path) -> str:
    """Where the artifacts of a workspace are kept: the address of an object store, or the absolute path of a folder."""
    given = os.environ.get(VARIABLE, "")
    return given if is_remote(given) else str(Path(given or workspace / FOLDER).expanduser().absolute())


def remote_of(workspace: Path) -> Remote | None:
    """The object store that keeps the artifacts of a workspace, if one does.

    Raises:
        BadSetting: The address is refused.
    """
    address = address_of(workspace)
    if not is_remote(address):
        return None
    from e2urec_core.remote import Remote

    return Remote(address)


def store_of(workspace: Path) -> Store:
    """The store of a workspace, opened; whatever is elsewhere leaves checkpoints of unfinished stages here.

    Raises:
        StorageFailed: It cannot be written, or does not answer.
        BadSetting: Its address is refused.
    """
    remote, checkpoints = remote_of(workspace), workspace / FOLDER / "checkpoints"
    if remote is None:
        return Store(Path(address_of(workspace)), checkpoints)
    from e2urec_core.shared_store import SharedStore

    return SharedStore(cache_of(workspace, remote), remote, checkpoints)


def store_to_read(workspace: Path) -> Store:
    """The store of a workspace to look into; nothing is made or changed, and it need not be there."""
    remote = remote_of(workspace)
    if remote is None:
        return StoreToRead(Path(address_of(workspace)))
    from e2urec_core.shared_store import SharedStoreToRead

    return SharedStoreToRead(remote)


def cache_of(workspace: Path, remote: Remote) -> Path:
    """The folder of a workspace that holds copies of what lies in an object store."""
    return workspace / CACHES / hashlib.sha256(remote.address.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Journals:
    """The records of all runs of a workspace; those in an object store are everybody's, and copied into the workspace to be read.

    Args:
        folder: Of the workspace.
        remote: The object store, if one keeps the artifacts.
    """

    folder: Path
    remote: Remote | None = None

    def start(self, prefix: str, settings: dict[str, Any]) -> Journal:
        """A new run; see `Journal.start`."""
        if self.remote is None:
            return Journal.start(self.folder, prefix, settings)
        # Two machines may begin within one second.
        return Journal.start(self.folder, f"{prefix}-{os.urandom(2).hex()}", settings, self._send)

    def open(self, run: str) -> Journal:
        """The journal of a run that was started before; see `Journal.open`."""
        self._fetch()
        return Journal.open(self.folder, run, self._send if self.remote else None)

    def all(self) -> list[RunRecord]:
        """Every readable run, oldest first."""
        self._fetch()
        return all_runs(self.folder)

    def _send(self, path: Path) -> None:
        assert self.remote is not None
        self.remote.write(f"{RUNS}/{path.name}", path.read_bytes())

    def _fetch(self) -> None:
        listed = [each for each in self.remote.list(RUNS) if each.name.endswith(".json")] if self.remote else []
        if not listed:
            return
        assert self.remote is not None
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            changed = {each.name: each for each in listed if not _is_copy(self.folder / Path(each.name).name, each.size, each.changed_s)}
            for name, content in self.remote.read_all(changed).items():
                path = self.folder / Path(name).name
                write_whole(path, content.decode(errors="replace"))
                os.utime(path, (changed[name].changed_s,) * 2)


def journals_of(workspace: Path) -> Journals:
    """The records of the runs of a workspace."""
    return Journals(workspace / RUNS, remote_of(workspace))


def _is_copy(path: Path, size: int, changed_s: float) -> bool:
    try:
        told = path.stat()
    except FileNotFoundError:
        return False
    return told.st_size == size and abs(told.st_mtime - changed_s) < 1e-3
