"""What the manifest of an artifact says of its files, and whether they are still as it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from e2urec_core.artifacts import digest_of, file_digest

MANIFEST = "manifest.json"


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


def described(path: Path, linked: Sequence[Mapping[tuple[int, int], Mapping[str, Any]]]) -> Mapping[str, Any]:
    """Digest and size of a file; those of a file that a parent holds too are taken from there, without reading it."""
    told = path.stat()
    for files in linked:
        if (told.st_dev, told.st_ino) in files:
            return files[told.st_dev, told.st_ino]
    return {"sha256": file_digest(path), "bytes": told.st_size}
