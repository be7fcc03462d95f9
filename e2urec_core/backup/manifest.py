"""What a back-up holds: every file with its digest, sealed by a digest of its own, and what was left out.

FOLDER/manifest.json     this
FOLDER/workspace/        the files, as they lie in a workspace
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, JsonValue, ValidationError

from e2urec_core.artifacts import canonical_json, digest_of, file_digest
from e2urec_core.errors import DamagedBackup
from e2urec_core.ledger.records import DIGEST, Head
from e2urec_core.settings import Settings

FILE, FILES = "manifest.json", "workspace"
_HINT = "use another back-up; nothing was written"


class CopiedFile(Settings):
    """One file of a back-up."""

    sha256: str = Field(pattern=DIGEST)
    """Digest of its bytes."""
    size: int = Field(ge=0)
    """Bytes."""


class Manifest(Settings):
    """What a back-up holds."""

    format: Literal[1] = 1
    """Version of this layout."""
    taken_at: AwareDatetime
    """When it was taken, UTC."""
    program: str
    """The program that took it, with its version."""
    workspace: str
    """Folder of the workspace it was taken of."""
    whole: bool
    """Whether it holds the whole workspace, or what tells of deletions alone: ledger, receipts and keys."""
    ledger: Head | None = None
    """End of the ledger's history when it was taken; nothing where there was no ledger."""
    champion: str | None = Field(None, pattern=DIGEST)
    """Bundle of the champion; nothing where there was none."""
    data: dict[str, JsonValue] | None = None
    """Which data the champion stands on, as the ledger tells it: digests and settings; nothing where that was not known."""
    server_ledger: bool = False
    """Whether the ledger lies in a database server, which has a back-up of its own."""
    keys_left_out: tuple[str, ...] = ()
    """Names of the secret keys of the workspace that are not in it."""
    files: dict[str, CopiedFile]
    """The files by their place below the workspace."""

    @property
    def digest(self) -> str:
        """By which the ledger names the back-up."""
        return digest_of(self.canonical())

    def to_text(self) -> str:
        """The file's text."""
        return canonical_json({"manifest": self.canonical(), "sha256": self.digest})


def verified_backup(folder: Path) -> Manifest:
    """What the back-up in `folder` holds, every file of it read and compared; nothing is written.

    Raises:
        DamagedBackup: It is none, or a file of it is missing, more than was copied, or not what was copied.
    """
    manifest, files = read_manifest(folder), folder / FILES
    there = {path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_symlink() or not path.is_dir()}
    if more := sorted(there - manifest.files.keys()):
        raise DamagedBackup(f"the back-up holds {len(more):,} files that were not copied into it", facts={"first": more[0]}, hint=_HINT)
    for name, told in manifest.files.items():
        path = files / name
        try:
            wrong = "is missing" if name not in there else _wrong(path, told)
        except OSError as error:
            wrong = f"cannot be read: {error.strerror or error}"
        if wrong:
            raise DamagedBackup(f"`{name}` of the back-up {wrong}", facts={"back-up": folder}, hint=_HINT)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """What the back-up in `folder` says it holds.

    Raises:
        DamagedBackup: It says nothing, or its words were altered.
    """
    try:
        told = json.loads((folder / FILE).read_bytes())
        manifest = Manifest.model_validate(told["manifest"])
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in manifest.files) or told["sha256"] != manifest.digest:
            raise DamagedBackup(f"`{FILE}` of the back-up was altered", facts={"back-up": folder}, hint=_HINT)
    except OSError as error:
        raise DamagedBackup(
            f"the folder holds no back-up: `{FILE}` {error.strerror or error}",
            facts={"folder": folder},
            hint="name a folder that `e2urec backup` has written",
        ) from None
    except (ValueError, KeyError, TypeError, ValidationError):
        raise DamagedBackup(f"`{FILE}` of the back-up cannot be read", facts={"back-up": folder}, hint=_HINT) from None
    return manifest


def _wrong(path: Path, told: CopiedFile) -> str:
    if path.is_symlink():
        return "is a link"
    return "" if path.stat().st_size == told.size and file_digest(path) == told.sha256 else "holds other bytes than were copied"
