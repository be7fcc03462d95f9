"""A store whose truth lies in an object store, and of which every machine keeps a cache.

    objects/<kind>/<digest>/   as in every store; the manifest is written last and removed first: without it the artifact is not there
    keys/, code/               as in every store; no machine keeps copies

An artifact is uploaded before it is put into the cache, so whatever a cache holds has been published. What the object store no longer
lists was removed, and goes from a cache when the store is opened or the artifact asked for: a cache brings nothing back.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import TypeVar

from e2urec_core.artifacts import Artifact, digest_of
from e2urec_core.disk import ABANDONED_S, storage_errors
from e2urec_core.errors import StorageFailed
from e2urec_core.failpoints import failpoint
from e2urec_core.manifests import MANIFEST, damage_of
from e2urec_core.object_versions import cannot_remove
from e2urec_core.remote import Listed, Remote
from e2urec_core.stage_record import StageRecord
from e2urec_core.store import Store, damaged, record_in

A = TypeVar("A", bound=Artifact)
TRIES = 3
"""Uploads of an artifact before others that remove half-uploaded ones are taken to work against it."""


class SharedStore(Store):
    """Keeps artifacts in an object store; processes of several machines may use it at once, each machine with caches of its own."""

    def __init__(self, cache: Path, remote: Remote, checkpoints: Path | None = None) -> None:
        """Open the store, and drop from the cache what is not in it any more.

        Args:
            cache: Folder of this machine, for this object store alone.
            remote: The object store.
            checkpoints: Where unfinished stages keep theirs.

        Raises:
            StorageFailed: The folder cannot be written, or the object store does not answer.
        """
        self.remote = remote
        self._manifests_read: dict[str, bytes] = {}
        self._damaged: set[str] = set()
        super().__init__(cache, checkpoints)
        # Looked at first: what comes to lie there meanwhile was uploaded just now.
        cached = super().folders()
        there = self._listed("objects")
        for folder in cached:
            if not _is_whole(there.get(self._name(folder), {})):
                super().remove(folder)
        self._sweep_uploads(there)

    def publish(self, kind: type[A], place: Path, *, parents: tuple[str, ...], rows: int, made_by: str) -> A:
        """See `Store.publish`; everybody sees the artifact, or nobody.

        Raises:
            StorageFailed: Nothing was published: the object store does not answer, or what it was made from was removed meanwhile.
        """
        self._refuse_orphans(parents, made_by)
        handle = super().publish(kind, place, parents=parents, rows=rows, made_by=made_by)
        try:
            self._refuse_orphans(parents, made_by)
        except StorageFailed:
            self.remove(self._folder(handle))
            raise
        return handle

    def damage(self, handle: Artifact, *, apart_from: str = "") -> str | None:
        """What is wrong with an artifact, or None when every byte in the cache is as published; it is downloaded if need be."""
        folder = self._folder(handle)
        if not self.remote.holds(f"{self._name(folder)}/{MANIFEST}"):
            super().remove(folder)
            return "its folder is missing"
        if super().damage(handle, apart_from=apart_from) is None:
            return None
        found = self._fetch(handle)
        if found is not None:
            self._damaged.add(handle.digest)
        return found

    def folders(self) -> list[Path]:
        """Where artifacts lie that the object store holds, whole or half uploaded, or the cache; sorted."""
        return sorted({*super().folders(), *(self.root / name for name in self._listed("objects"))})

    def num_files(self, folder: Path) -> int:
        """How many objects one of the `folders` has."""
        return len(self.remote.list(self._name(folder)))

    def measure(self, folder: Path) -> tuple[float, dict[Hashable, int]]:
        """When one of the `folders` was published, seconds since 1970, and the bytes of its objects by name.

        Raises:
            FileNotFoundError: It is gone.
        """
        name = self._name(folder)
        listed = {each.name: each for each in self.remote.list(name)}
        if f"{name}/{MANIFEST}" not in listed:
            raise FileNotFoundError(name)
        return listed[f"{name}/{MANIFEST}"].changed_s, {each.name: each.size for each in listed.values()}

    def remove(self, folder: Path) -> None:
        """Remove one of the `folders`: its manifest, then its other objects, with all their versions; then it goes from the cache.

        Raises:
            StorageFailed: The object store or the disk refuses.
            BadSetting: Versions that the object store may keep cannot be removed.
        """
        name = self._name(folder)
        self.remote.remove(f"{name}/{MANIFEST}")
        failpoint("erase.manifest")
        self.remote.remove(name)
        super().remove(folder)

    def refuse_to_leave_versions(self) -> None:
        """Refuse where the object store may keep versions of what is removed that cannot be removed from here.

        Raises:
            BadSetting: It may.
        """
        if refusal := cannot_remove(self.remote.address):
            raise refusal

    def records(self) -> dict[str, StageRecord | None]:
        """What every stage key gave, oldest first; None where that cannot be read."""
        found = sorted(self.remote.list("keys"), key=lambda each: each.changed_s)
        contents = self.remote.read_all(each.name for each in found)
        names = {each.name: each.name.removeprefix("keys/").removesuffix(".json") for each in found}
        return {key: record_in(contents[name]) for name, key in names.items() if name in contents}

    def forget(self, key: str) -> None:
        """Remove what is noted of a stage key."""
        self.remote.remove(f"keys/{key}.json")

    def _read(self, name: str) -> bytes:
        return self.remote.read(name)

    def _write(self, name: str, text: str) -> None:
        self.remote.write(name, text.encode())

    def _manifests(self, kind: type[Artifact]) -> Iterator[tuple[float, str, bytes]]:
        listed = self._listed(f"objects/{kind.kind}")
        whole = {name: files[MANIFEST] for name, files in listed.items() if _is_whole(files)}
        missing = [told.name for name, told in whole.items() if name not in self._manifests_read]
        self._manifests_read |= {name.rpartition("/")[0]: content for name, content in self.remote.read_all(missing).items()}
        for name, told in whole.items():
            if name in self._manifests_read:
                yield told.changed_s, name.rpartition("/")[2], self._manifests_read[name]

    def _move_in(self, place: Path, handle: Artifact) -> None:
        name = self._name(self._folder(handle))
        sizes = {str(path.relative_to(place)): path.stat().st_size for path in sorted(place.rglob("*")) if path.is_file()}
        for _ in range(TRIES):
            if handle.digest not in self._damaged and self._sizes(name) == sizes:
                break
            for file in sorted(sizes, key=lambda file: file == MANIFEST):
                failpoint("publish.manifest" if file == MANIFEST else "publish.file")
                self.remote.send(place / file, f"{name}/{file}")
            self._damaged.discard(handle.digest)
            failpoint("publish.uploaded")
        else:
            raise StorageFailed(
                f"{handle.kind} {handle.short} was not published: what was uploaded was removed {TRIES} times meanwhile",
                facts={"store": self.remote.address},
                hint="see who erases or sweeps in this store, then give the same command again",
            )
        super()._move_in(place, handle)

    def _fetch(self, handle: Artifact) -> str | None:
        """Download an artifact into the cache; returns what is wrong with it, if anything."""
        name = self._name(self._folder(handle))
        with self.workplace() as place, storage_errors(self.root):
            try:
                for file in self._listed(name).get(name, {}).values():
                    self.remote.fetch(file.name, place / file.name.removeprefix(f"{name}/"))
            except FileNotFoundError:
                return "its folder is missing"
            found = damage_of(place, handle.digest, handle.parents)
            if found is None:
                super()._move_in(place, handle)
        return found

    def _refuse_orphans(self, parents: tuple[str, ...], made_by: str) -> None:
        """Refuse to publish what was made from something that was removed: if that was erased, so is this."""
        there = {name.rpartition("/")[2] for name, files in self._listed("objects").items() if _is_whole(files)} if parents else set()
        gone = [parent for parent in parents if parent not in there]
        if gone:
            raise StorageFailed(
                f"{made_by} was not published: {len(gone)} of {len(parents)} artifacts that it was made from were removed meanwhile",
                facts={"store": self.remote.address, "gone": ", ".join(parent[:12] for parent in gone)},
                hint="give the same command again: it makes anew what was removed",
            )

    def _sweep_uploads(self, there: dict[str, dict[str, Listed]]) -> None:
        """Remove what was half uploaded more than a day ago."""
        if cannot_remove(self.remote.address) is not None:
            return
        for name, files in there.items():
            if not _is_whole(files) and time.time() - max(each.changed_s for each in files.values()) > ABANDONED_S:
                self.remote.remove(name)

    def _listed(self, below: str) -> dict[str, dict[str, Listed]]:
        """The objects of every artifact below a folder: by the artifact's folder, then by file."""
        found: dict[str, dict[str, Listed]] = {}
        for each in self.remote.list(below):
            parts = each.name.split("/", maxsplit=3)
            if len(parts) == 4:
                found.setdefault("/".join(parts[:3]), {})[parts[3]] = each
        return found

    def _sizes(self, name: str) -> dict[str, int]:
        return {file: each.size for file, each in self._listed(name).get(name, {}).items()}

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()


class SharedStoreToRead(SharedStore):
    """A shared store in which nothing is changed, on this machine neither; what is opened is downloaded to be gone with this object."""

    def __init__(self, remote: Remote) -> None:
        """The store as it lies at `remote`."""
        self._elsewhere = tempfile.TemporaryDirectory()
        self.remote, self.root = remote, Path(self._elsewhere.name)
        self.checkpoints = self.root / "checkpoints"
        (self.root / "tmp").mkdir()
        self._manifests_read, self._damaged = {}, set()

    def damage(self, handle: Artifact, *, apart_from: str = "") -> str | None:
        """What is wrong with an artifact by its manifest and the sizes of its objects, or None; `open` reads them."""
        name = self._name(self._folder(handle))
        try:
            manifest = json.loads(self.remote.read(f"{name}/{MANIFEST}"))
            if digest_of(manifest) != handle.digest:
                return f"its {MANIFEST} was altered"
            sizes = self._sizes(name)
            wrong = [file for file, told in manifest["files"].items() if sizes.get(file) != told["bytes"]]
        except FileNotFoundError:
            return "its folder is missing"
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"its {MANIFEST} cannot be read"
        return f"`{wrong[0]}` is missing or has changed" if wrong else None

    def open(self, handle: Artifact, *, apart_from: str = "") -> Path:
        """The folder of `handle` in a copy, every file hashed.

        Raises:
            DamagedArtifact: A file is missing or not what was published.
        """
        damage = SharedStore.damage(self, handle, apart_from=apart_from)
        if damage is not None:
            raise damaged(handle, damage)
        return self._folder(handle)


def _is_whole(files: dict[str, Listed]) -> bool:
    return MANIFEST in files
