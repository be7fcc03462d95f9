"""Reads what lies in a folder of receipts: links by their numbers, and public keys; nothing here is verified."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from pydantic import Field

from e2urec_core.errors import BadKey, BadReceipt
from e2urec_core.receipts.envelope import PublicKey
from e2urec_core.receipts.receipt import NO_LINK, Digest
from e2urec_core.settings import Settings

KEYS, KEY_ENDING = "keys", ".pub"
COMPARE = "fetch the files again from their issuer; if they stay as they are, somebody has changed the chain"
_NAME = re.compile(r"([0-9]{6,9})-(?:receipt|key)-[0-9a-f]{16}\.json")
# Bytes; a receipt has a few thousand.
_LARGEST = 4 * 2**20


class Head(Settings):
    """The newest link of a chain; kept elsewhere, it shows later that nothing was cut off."""

    number: int = Field(ge=0)
    """Its place; 0 in an empty chain."""
    digest: Digest
    """SHA-256 of its file; zeros in an empty chain."""


EMPTY = Head(number=0, digest=NO_LINK)


def number_of(path: Path) -> int | None:
    """The number in the name of a link's file; None for a file of another name."""
    named = _NAME.fullmatch(path.name)
    return int(named[1]) if named else None


def links_of(folder: Path) -> dict[int, Path]:
    """The files of the chain in `folder` by their numbers, in order; numbers may be missing.

    Raises:
        BadReceipt: Two files have the same number.
    """
    found: dict[int, str] = {}
    for name in sorted(os.listdir(folder) if folder.is_dir() else []):
        if named := _NAME.fullmatch(name):
            other = found.setdefault(int(named[1]), name)
            if other != name:
                raise BadReceipt(f"link {int(named[1])} is there twice", facts={"files": f"{other}, {name}"}, hint=COMPARE)
    return {number: folder / found[number] for number in sorted(found)}


def read_link(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        BadReceipt: It cannot be read, or is far too large for a receipt.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise BadReceipt(f"cannot be read: {error.strerror or error}", hint="name a receipt") from None
    if len(data) > _LARGEST:
        raise BadReceipt(f"has more than {_LARGEST:,} bytes", hint="name a receipt")
    return data


def digest_of_link(data: bytes) -> str:
    """SHA-256 of a file's bytes, as the next link names it."""
    return hashlib.sha256(data).hexdigest()


def read_public_key(path: Path) -> PublicKey:
    """The public key in a `.pub` file.

    Raises:
        BadKey: It cannot be read, or is none.
    """
    try:
        return PublicKey.from_text(path.read_text())
    except (OSError, UnicodeDecodeError):
        raise BadKey("a public key cannot be read", facts={"file": path}, hint="name the `.pub` file of the issuer") from None


def public_keys_beside(place: Path) -> list[PublicKey]:
    """The public keys that lie beside a receipt or in a folder of them; trust them only if you know where the folder is from.

    Raises:
        BadKey: One of them cannot be read, or is none.
    """
    folder = place if place.is_dir() else place.parent
    return [read_public_key(path) for path in sorted((folder / KEYS).glob(f"*{KEY_ENDING}"))]
