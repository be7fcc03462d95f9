"""Keeps artifacts: all or nothing on the way in, every byte hashed again on the way out.

No file format notices a flipped bit by itself, so the store trusts none. Beside the artifacts it remembers which handle each stage
key gave, so that an equal stage is not run twice.

    objects/<kind>/<digest>/   manifest.json and the files it lists
    keys/<stage key>.json      what this key was made of, the handle that it gave, and what it took
    code/<digest>.json         the files of the code that stage keys tell by this digest
    tmp/                       half-written work; swept when its process is gone
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from e2urec_core.artifacts import KINDS, Artifact, canonical_json, digest_of
from e2urec_core.disk import is_left, own_name, storage_errors, sync, time_on, write_whole
from e2urec_core.errors import DamagedArtifact
from e2urec_core.failpoints import failpoint
from e2urec_core.manifests import MANIFEST, damage_of, described
from e2urec_core.stage_record import StageRecord

A = TypeVar("A", bound=Artifact)


class Store:
    """Keeps artifacts under one folder; several processes, of several machines, may use it at once."""

    def __init__(self, root: Path, checkpoints: Path | None = None) -> None:
        """Open or create the store at `root`.

        Args:
            root: Its folder.
            checkpoints: Where unfinished stages keep theirs; None: in it. A folder that several machines share is no place for them.

        Raises:
            StorageFailed: The folder cannot be written.
        """
        self.root, self.checkpoints = root, checkpoints or root / "checkpoints"
        with storage_errors(root):
            for name in ("objects", "keys", "tmp"):
                (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            now_s = time_on(root / "tmp")
        for path in (root / "tmp").iterdir():
            if is_left(path, now_s):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A private folder on the store's file system; whatever is left in it at the end is dropped."""
        place = self.root / "tmp" / own_name()
        with storage_errors(self.root):
            place.mkdir(mode=0o700)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def publish(self, kind: type[A], place: Path, *, parents: tuple[str, ...], rows: int, made_by: str) -> A:
        """Move the finished folder `place` into the store, all or nothing.

        Args:
            kind: What the folder holds.
            place: A `workplace` of this store with all files written.
            parents: Digests of the artifacts it was made from.
            rows: Number of rows it holds.
            made_by: Stage that made it.

        Raises:
            StorageFailed: The disk is full or refuses.
        """
        known = [self._linked(parent) for parent in parents]
        files = {str(path.relative_to(place)): described(path, known) for path in sorted(place.rglob("*")) if path.is_file()}
        assert files, f"{made_by} wrote nothing"
        manifest = {"kind": kind.kind, "files": files, "parents": sorted(parents)}
        digest = digest_of(manifest)
        handle = kind(digest=digest, parents=tuple(sorted(parents)), rows=rows, made_by=made_by)
        with storage_errors(self.root):
            (place / MANIFEST).write_text(canonical_json(manifest))
            self._move_in(place, handle)
        return handle

    def open(self, handle: Artifact, *, apart_from: str = "") -> Path:
        """The folder of `handle`, every file hashed again.

        Args:
            handle: The artifact.
            apart_from: A folder inside whose files are only to be linked, not read: their size alone is looked at.

        Raises:
            DamagedArtifact: A file is missing or not what was published.
        """
        damage = self.damage(handle, apart_from=apart_from)
        if damage is not None:
            raise damaged(handle, damage)
        return self._folder(handle)

    def damage(self, handle: Artifact, *, apart_from: str = "") -> str | None:
        """What is wrong with the stored files of `handle`, or None when every byte is as published; see `open`."""
        return damage_of(self._folder(handle), handle.digest, handle.parents, apart_from=apart_from)

    def adopt(self, kind: type[A], digest: str, folder: Path) -> A:
        """Take in a copy of what was published as `digest`; `folder` must lie in a `workplace` of this store.

        Raises:
            DamagedArtifact: It is not what was published.
            StorageFailed: The disk is full or refuses.
        """
        damage = damage_of(folder, digest, nothing_else=True)
        if damage is not None:
            raise DamagedArtifact(f"a copy of {kind.kind} {digest[:12]} is damaged: {damage}", hint="fetch it again")
        handle = kind(digest=digest, parents=tuple(json.loads((folder / MANIFEST).read_bytes())["parents"]))
        with storage_errors(self.root):
            self._move_in(folder, handle)
        return handle

    def made_from(self, kind: type[A], parent: Artifact) -> list[A]:
        """Handles of the artifacts of `kind` that were made from `parent`, newest first; not verified."""
        return [handle for handle in self.all(kind) if parent.digest in handle.parents]

    def all(self, kind: type[A]) -> list[A]:
        """Handles of all artifacts of `kind`, newest first; not verified, and without their number of rows."""
        found = []
        for changed, digest, content in self._manifests(kind):
            try:
                found.append((changed, kind(digest=digest, parents=tuple(json.loads(content)["parents"]))))
            except (ValueError, KeyError, TypeError):
                continue
        return [handle for _, handle in sorted(found, key=lambda each: each[0], reverse=True)]

    def folders(self) -> list[Path]:
        """Where artifacts lie, and folders among them that are none, sorted."""
        return sorted((self.root / "objects").glob("*/*"))

    def num_files(self, folder: Path) -> int:
        """How many files one of the `folders` holds, of whatever kind."""
        return sum(1 for each in (folder, *folder.rglob("*")) if each.is_file())

    def measure(self, folder: Path) -> tuple[float, dict[Hashable, int]]:
        """When one of the `folders` was published, seconds since 1970, and the bytes of its files by where they are kept; some share files.

        Raises:
            FileNotFoundError: It is gone.
        """
        told = [path.stat() for path in folder.rglob("*") if path.is_file()]
        return (folder / MANIFEST).stat().st_mtime, {(each.st_dev, each.st_ino): each.st_size for each in told}

    def remove(self, folder: Path) -> None:
        """Remove one of the `folders`: it disappears whole, then its bytes go. One that is gone is no fault.

        Raises:
            StorageFailed: The disk refuses.
        """
        with storage_errors(self.root):
            if not folder.exists():
                return
            gone = self.root / "tmp" / own_name()
            os.rename(folder, gone)
            sync(folder.parent)
            failpoint("erase.renamed")
            shutil.rmtree(gone)

    def refuse_to_leave_versions(self) -> None:
        """Refuse where the store may keep versions of what is removed; a folder keeps none."""

    def remember(self, key: str, record: StageRecord) -> None:
        """Note that stage key `key` gave `record`."""
        plain = record.canonical()
        self._write(f"keys/{key}.json", canonical_json({"record": plain, "sha256": digest_of(plain)}))

    def recall(self, key: str) -> StageRecord | None:
        """What `key` gave before, if its artifact is still whole."""
        record = self.record(key)
        if record is None or record.kind not in KINDS:
            return None
        handle = KINDS[record.kind].model_validate(record.handle)
        return record if self.damage(handle) is None else None

    def record(self, key: str) -> StageRecord | None:
        """What `key` gave before, without a look at the artifact."""
        try:
            return record_in(self._read(f"keys/{key}.json"))
        except OSError:
            return None

    def records(self) -> dict[str, StageRecord | None]:
        """What every stage key gave, oldest first; None where that cannot be read."""
        found = []
        for path in (self.root / "keys").glob("*.json"):
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path.stem))
        return {key: self.record(key) for _, key in sorted(found)}

    def forget(self, key: str) -> None:
        """Remove what is noted of a stage key."""
        with storage_errors(self.root):
            (self.root / "keys" / f"{key}.json").unlink(missing_ok=True)

    def keep_code(self, digest: str, files: Mapping[str, str]) -> None:
        """Note the digests of the files of code whose own digest is `digest`; what is noted already stays."""
        if self.code(digest) is None:
            self._write(f"code/{digest}.json", canonical_json(files))

    def code(self, digest: str) -> dict[str, str] | None:
        """The files of the code of this digest, each with its own; None where they were never noted, or cannot be read."""
        try:
            files = json.loads(self._read(f"code/{digest}.json"))
        except (OSError, ValueError):
            return None
        return files if isinstance(files, dict) and digest_of(files) == digest else None

    def _read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def _write(self, name: str, text: str) -> None:
        place = self.root / name
        with storage_errors(self.root):
            place.parent.mkdir(exist_ok=True, mode=0o700)
            write_whole(place, text)

    def _manifests(self, kind: type[Artifact]) -> Iterator[tuple[float, str, bytes]]:
        """When each artifact of a kind was published, its digest, and what its manifest holds."""
        for path in (self.root / "objects" / kind.kind).glob(f"*/{MANIFEST}"):
            try:
                yield path.stat().st_mtime, path.parent.name, path.read_bytes()
            except OSError:
                continue

    def _move_in(self, place: Path, handle: Artifact) -> None:
        target = self._folder(handle)
        for path in place.rglob("*"):
            sync(path)
        sync(place)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if target.exists() and damage_of(target, handle.digest, handle.parents) is not None:
            shutil.rmtree(target)
        if not target.exists():
            try:
                os.rename(place, target)
            except OSError:
                # Another process published the same content first.
                if not target.exists():
                    raise
        sync(target.parent)

    def _linked(self, parent: str) -> dict[tuple[int, int], Mapping[str, Any]]:
        """What the manifest of an artifact says of its files, by device and number of the file."""
        for manifest in (self.root / "objects").glob(f"*/{parent}/{MANIFEST}"):
            try:
                told = json.loads(manifest.read_bytes())
                if digest_of(told) == parent:
                    places = {name: (manifest.parent / name).stat() for name in told["files"]}
                    return {(place.st_dev, place.st_ino): told["files"][name] for name, place in places.items()}
            except (OSError, ValueError, KeyError, TypeError):
                # A parent that was damaged or removed meanwhile vouches for nothing: the files are read.
                continue
        return {}

    def _folder(self, handle: Artifact) -> Path:
        return self.root / "objects" / handle.kind / handle.digest


def damaged(handle: Artifact, damage: str) -> DamagedArtifact:
    """The refusal of an artifact that is not what was published."""
    return DamagedArtifact(
        f"{handle.kind} {handle.short} is damaged: {damage}",
        hint=f"run the stage `{handle.made_by or 'that made it'}` again; the damaged copy is not used",
    )


def record_in(content: bytes) -> StageRecord | None:
    """The record of a stage key as it was noted; None where it is not whole."""
    try:
        noted = json.loads(content)
        return StageRecord.model_validate(noted["record"]) if digest_of(noted["record"]) == noted["sha256"] else None
    except (ValueError, KeyError, TypeError):
        return None
