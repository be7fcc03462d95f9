"""The workspace: where it lies, whether it can be written, how large it is, and how much room is left."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from flows.health.finding import Check, Finding, counted, fault, ok, warning
from flows.health.subject import Subject
from flows.surroundings import LEAST_ROOM

TOPIC = "workspace"
LITTLE_ROOM = 5 * 2**30
LEAST_FILES, FEW_FILES = 100, 10_000
# What file systems over a network are called; locks on them are a promise that not all of them keep.
REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "glusterfs", "ceph", "lustre")
VOLATILE = ("tmpfs", "ramfs")


def writable(subject: Subject) -> Finding:
    """Whether its folder is there and may be written; nothing is written to see that."""
    place = subject.workspace
    near = nearest(place)
    if not near.is_dir():
        return fault(f"{near} is a file, and no folder", "name another workspace with `--workspace`")
    if not os.access(near, os.R_OK | os.W_OK | os.X_OK):
        return fault(f"{near} may not be written", "give it to the user that nights run as")
    if os.statvfs(near).f_flag & os.ST_RDONLY:
        return fault(f"{near} lies on a file system that is mounted read-only", "mount it to be written")
    if near != place:
        return warning(f"{place} is not there yet", "name the right one with `--workspace`, or let the first command make it")
    mode = place.stat().st_mode & 0o777
    if mode & 0o002:
        return warning(f"everybody may write into {place}: its mode is {mode:o}", "make it 700")
    return ok(f"{place} can be written")


def file_system(subject: Subject) -> Finding:
    """What the workspace lies on."""
    import psutil

    place = nearest(subject.workspace).resolve()
    mounts = [each for each in psutil.disk_partitions(all=True) if place.is_relative_to(each.mountpoint)]
    if not mounts:
        return ok("the kind of file system is not told here")
    # The last one of the longest: a later mount hides an earlier one.
    kind = max(reversed(mounts), key=lambda each: len(each.mountpoint)).fstype
    if kind.startswith(REMOTE):
        return warning(
            f"the workspace lies on {kind}, over a network", "put it on a local disk: SQLite and the locks of nights rely on the kernel's"
        )
    if kind in VOLATILE:
        return warning(f"the workspace lies on {kind}, which a restart empties", "put it on a disk")
    return ok(f"the workspace lies on {kind}")


def size(subject: Subject) -> Finding:
    """How much it holds, by what keeps it."""
    found = subject.contents()
    sizes = ", ".join(f"{kept_by} {num_bytes / 2**20:,.1f} MiB" for kept_by, num_bytes in found.bytes_of.items())
    return ok(f"{'' if found.whole else 'at least '}{counted(found.num_files, 'file')}: {sizes}")


def room(subject: Subject) -> Finding:
    """How many bytes and files can still be written."""
    near = nearest(subject.workspace)
    free, status = shutil.disk_usage(near).free, os.statvfs(near)
    said = f"{free / 2**30:.2f} GiB are free"
    # Some file systems have no limit of files, and say 0 of 0.
    files = status.f_favail if status.f_files else None
    if files is not None:
        said += f", and room for {counted(files, 'file')}"
    if free < LEAST_ROOM or (files is not None and files < LEAST_FILES):
        return fault(f"{said}; {LEAST_ROOM // 2**20} MiB and {LEAST_FILES} files are needed", "free some space")
    if free < LITTLE_ROOM or (files is not None and files < FEW_FILES):
        return warning(f"{said}; {LITTLE_ROOM // 2**30} GiB and {FEW_FILES:,} files are little for a night", "free some space soon")
    return ok(said)


def store(subject: Subject) -> Finding:
    """Whether the store can be reached, where it lies elsewhere; nothing is written to see that."""
    from e2urec_core.data.object_stores import is_remote
    from tasks._stores import address_of

    address = address_of(subject.workspace)
    if is_remote(address):
        return _objects(address)
    place = Path(address)
    if place.is_relative_to(subject.workspace):
        return ok("the store lies in the workspace")
    near = nearest(place)
    if not near.is_dir() or not os.access(near, os.R_OK | os.W_OK | os.X_OK):
        return fault(f"the store's folder {near} may not be written", "give it to the user that nights run as, or mend `E2UREC_STORE`")
    if near != place:
        return warning(f"the store's folder {place} is not there yet", "see that it is mounted, or let the first command make it")
    return ok(f"the store lies in {place}, where {shutil.disk_usage(place).free / 2**30:.2f} GiB are free")


CHECKS = (
    Check(TOPIC, "folder", writable),
    Check(TOPIC, "file system", file_system),
    Check(TOPIC, "size", size),
    Check(TOPIC, "room", room),
    Check(TOPIC, "store", store),
)


def _objects(address: str) -> Finding:
    from e2urec_core.errors import UserError
    from e2urec_core.object_versions import cannot_remove
    from e2urec_core.remote import Remote

    began = time.monotonic()
    try:
        found = Remote(address, patience=0.0).list("keys")
    except UserError as error:
        return fault(f"{address}: {error.fact}", error.hint)
    said = f"{address} answers in {time.monotonic() - began:.2f} s and keeps {counted(len(found), 'stage key')}; writing is not tried"
    refusal = cannot_remove(address)
    return warning(f"{said}; {refusal.fact}", refusal.hint) if refusal else ok(said)


def nearest(place: Path) -> Path:
    """The place itself, or the first above it that exists."""
    return next(each for each in (place, *place.parents) if each.exists())
