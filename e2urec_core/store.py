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
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from e2urec_core.artifacts import KINDS, Artifact, canonical_json, digest_of, file_digest
from e2urec_core.errors import DamagedArtifact, StorageFailed
from e2urec_core.stage_record import StageRecord

A = TypeVar("A", bound=Artifact)
MANIFEST = "manifest.json"


class Store:
    """Keeps artifacts under one folder; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        """Open or create the store at `root`.

        Raises:
            StorageFailed: The folder cannot be written.
        """
        self.root = root
        with storage_errors(root):
            for name in ("objects", "keys", "tmp"):
                (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = root / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex}.probe"
            probe.touch()
            probe.unlink()
        self._sweep()

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A private folder on the store's file system; whatever is left in it at the end is dropped."""
        place = self.root / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex}"
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
        files = {str(path.relative_to(place)): _described(path, known) for path in sorted(place.rglob("*")) if path.is_file()}
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
            raise DamagedArtifact(
                f"{handle.kind} {handle.short} is damaged: {damage}",
                hint=f"run the stage `{handle.made_by or 'that made it'}` again; the damaged copy is not used",
            )
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
        for path in (self.root / "objects" / kind.kind).glob(f"*/{MANIFEST}"):
            try:
                manifest = json.loads(path.read_bytes())
                found.append((path.stat().st_mtime, kind(digest=path.parent.name, parents=tuple(manifest["parents"]))))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return [handle for _, handle in sorted(found, key=lambda each: each[0], reverse=True)]

    def remember(self, key: str, record: StageRecord) -> None:
        """Note that stage key `key` gave `record`."""
        with storage_errors(self.root):
            plain = record.canonical()
            write_whole(self.root / "keys" / f"{key}.json", canonical_json({"record": plain, "sha256": digest_of(plain)}))

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
            noted = json.loads((self.root / "keys" / f"{key}.json").read_bytes())
            return StageRecord.model_validate(noted["record"]) if digest_of(noted["record"]) == noted["sha256"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_code(self, digest: str, files: Mapping[str, str]) -> None:
        """Note the digests of the files of code whose own digest is `digest`; what is noted already stays."""
        place = self.root / "code" / f"{digest}.json"
        if not place.exists():
            with storage_errors(self.root):
                place.parent.mkdir(exist_ok=True, mode=0o700)
                write_whole(place, canonical_json(files))

    def code(self, digest: str) -> dict[str, str] | None:
        """The files of the code of this digest, each with its own; None where they were never noted, or cannot be read."""
        try:
            files = json.loads((self.root / "code" / f"{digest}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return files if isinstance(files, dict) and digest_of(files) == digest else None

    def _move_in(self, place: Path, handle: Artifact) -> None:
        target = self._folder(handle)
        for path in place.rglob("*"):
            sync(path)
        sync(place)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if target.exists() and self.damage(handle) is not None:
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

    def _sweep(self) -> None:
        for path in (self.root / "tmp").iterdir():
            owner = path.name.split("-", 1)[0]
            if not owner.isdigit() or not _alive(int(owner)):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def damage_of(
    folder: Path, digest: str, parents: Sequence[str] | None = None, *, apart_from: str = "", nothing_else: bool = False
) -> str | None:
    """What is wrong with a folder that was published as `digest`, or None when every byte is as it was.

    Args:
        folder: With its manifest.
        digest: Of the artifact.
        parents: What it was made from; None where that is not known.
        apart_from: A folder inside whose files only the size is looked at.
        nothing_else: Whether files that were not published are damage too.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if digest_of(manifest) != digest or (parents is not None and sorted(parents) != manifest["parents"]):
            return f"its {MANIFEST} was altered"
        for name, described in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                return f"`{name}` is missing"
            read = not apart_from or not name.startswith(f"{apart_from}/")
            if path.stat().st_size != described["bytes"] or (read and file_digest(path) != described["sha256"]):
                return f"the bytes of `{name}` have changed"
        if nothing_else:
            there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
            if more := sorted(there - manifest["files"].keys() - {MANIFEST}):
                return f"`{more[0]}` was not published"
    except (FileNotFoundError, NotADirectoryError):
        return "its folder is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"its {MANIFEST} cannot be read"
    return None


def write_whole(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it there, so that a reader sees the old file or the new one, never half."""
    beside = path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}")
    try:
        beside.write_text(text)
        sync(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _described(path: Path, linked: Sequence[Mapping[tuple[int, int], Mapping[str, Any]]]) -> Mapping[str, Any]:
    """Digest and size of a file; those of a file that a parent holds too are taken from there, without reading it."""
    told = path.stat()
    for files in linked:
        if (told.st_dev, told.st_ino) in files:
            return files[told.st_dev, told.st_ino]
    return {"sha256": file_digest(path), "bytes": told.st_size}


def sync(path: Path) -> None:
    """Wait until a file's or folder's contents are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def storage_errors(root: Path) -> Iterator[None]:
    """Say of whatever the operating system refuses inside that the workspace `root` cannot be written."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"the workspace cannot be written: {error.strerror or error}",
            facts={"folder": root},
            hint="free some space, mend the folder's rights, or name another folder with `--workspace`",
        ) from error
