"""Folders of artifacts, wherever a tracking server keeps them: counted, and removed so that nothing is listed there afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from e2urec_core.errors import StorageFailed, TrackingRefused
from e2urec_core.failpoints import failpoint
from tasks._tracking import Tracker


@dataclass(frozen=True)
class ArtifactFolder:
    """A folder of artifacts.

    Args:
        root: Address of the artifacts of its run.
        path: Where it lies below them, with `/`; empty: all of them.
        num_files: Files in it and below.
        num_bytes: Their sizes together.
    """

    root: str
    path: str = ""
    num_files: int = 0
    num_bytes: int = 0


def local_path(address: str) -> Path | None:
    """The folder of this machine that an artifact address names, or None where it names a store.

    >>> local_path("file:///shop/mlartifacts/1")
    PosixPath('/shop/mlartifacts/1')
    >>> local_path("s3://shop/models") is None
    True
    """
    parts = urlsplit(address)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None


class ArtifactFolders:
    """The folders of artifacts of one tracking server.

    Every call is made again with back-off where a server does not answer, and then raises `TrackingFailed`.
    """

    def __init__(self, tracker: Tracker) -> None:
        """Folders behind the tracker's server."""
        self._tracker = tracker

    def names_in(self, root: str, path: str) -> list[str] | None:
        """Names of what lies directly in a folder; None where there is no such folder of this machine."""
        place = local_path(root)
        if place is not None:
            return sorted(each.name for each in (place / path).iterdir()) if (place / path).is_dir() else None
        return sorted(str(each.path).rsplit("/", 1)[-1] for each in self._listed(root, path))

    def measured(self, root: str, path: str = "") -> ArtifactFolder | None:
        """A folder with its size; None where there is none."""
        place = local_path(root)
        if place is None:
            sizes = list(self._sizes(root, path))
            return ArtifactFolder(root, path, len(sizes), sum(sizes)) if sizes else None
        return _measured_here(place / path, root, path)

    def remove(self, folder: ArtifactFolder) -> None:
        """Remove a folder with everything in it, and the folders around it that are then empty; one that is gone is no error.

        Raises:
            TrackingRefused: The store still lists files there.
        """
        self._tracker.patiently(lambda _: self._repository(folder.root).delete_artifacts(folder.path or None))
        failpoint("purge.files")
        place = local_path(folder.root)
        if place is not None:
            _remove_empty((place / folder.path).parent, place.parent)
        elif self._listed(folder.root, folder.path):
            raise TrackingRefused(
                f"the artifact store still lists files in {folder.root}/{folder.path} after it was asked to delete them",
                hint="give its credentials the right to delete, or delete the folder by hand, and run the same command again",
            )

    def strays(self, place: Path, addresses: Collection[str]) -> list[Path]:
        """What lies below a folder of this machine and belongs to none of the addresses; a folder that does as a whole is named once."""
        owned = {path.resolve() for address in addresses if (path := local_path(address)) is not None}
        around = {above for path in owned for above in path.parents}

        def found(folder: Path) -> Iterator[Path]:
            for each in sorted(folder.iterdir()):
                if each in owned:
                    continue
                if each in around and each.is_dir() and not each.is_symlink():
                    yield from found(each)
                else:
                    yield each

        return list(found(place.resolve())) if place.is_dir() else []

    def stray(self, path: Path) -> ArtifactFolder:
        """A stray with its size."""
        found = _measured_here(path, path.parent.as_uri(), path.name)
        return found or ArtifactFolder(path.parent.as_uri(), path.name, 1, path.lstat().st_size)

    def remove_stray(self, path: Path) -> None:
        """Remove what lies at a path of this machine; a link is removed, not what it names."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        failpoint("purge.stray")

    def _repository(self, root: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(root, tracking_uri=self._tracker.address, registry_uri=self._tracker.address)

    def _listed(self, root: str, path: str) -> list[Any]:
        return list(self._tracker.patiently(lambda _: self._repository(root).list_artifacts(path or None)))

    def _sizes(self, root: str, path: str) -> Iterator[int]:
        for each in self._listed(root, path):
            if each.is_dir:
                yield from self._sizes(root, each.path)
            else:
                yield int(each.file_size or 0)


def refuse_elsewhere(place: Path, addresses: Collection[str]) -> None:
    """Refuse to go on where files of this machine lie elsewhere than below `place`.

    Raises:
        StorageFailed: Some do: the workspace is a copy whose database names the files of the one it was copied from, or it was moved.
    """
    own = place.resolve()
    others = [path for address in addresses if (path := local_path(address)) is not None and not path.resolve().is_relative_to(own)]
    if others:
        raise StorageFailed(
            f"{len(others)} runs of the tracking database keep their files outside of this workspace",
            facts={"workspace's": place, "first of the others": others[0]},
            hint="a workspace that was copied or moved still names the files of where it was: erase them there",
        )


def _measured_here(folder: Path, root: str, path: str) -> ArtifactFolder | None:
    if not folder.is_dir() or folder.is_symlink():
        return None
    files = [each.lstat().st_size for each in folder.rglob("*") if each.is_symlink() or each.is_file()]
    return ArtifactFolder(root, path, len(files), sum(files))


def _remove_empty(folder: Path, last: Path) -> None:
    while folder.is_relative_to(last):
        try:
            folder.rmdir()
        except OSError:
            # Not empty, or gone already.
            return
        folder = folder.parent
