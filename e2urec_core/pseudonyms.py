"""Names for people that say nothing without the key: what the ledger, logs and receipts write in place of identifiers.

A plain hash of a number can be undone by trying all numbers. The key is drawn once for a workspace and never leaves it; the ledger
keeps the key's fingerprint, so that another key is noticed before it names anybody.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from e2urec_core.artifacts import canonical_json
from e2urec_core.errors import BadKey
from e2urec_core.failpoints import failpoint
from e2urec_core.store import storage_errors, sync

if TYPE_CHECKING:
    from e2urec_core.ledger.history import Ledger

FILE, VARIABLE = Path("keys", "pseudonyms.key"), "E2UREC_PSEUDONYM_KEY"
KEY_BYTES, PSEUDONYM_DIGITS = 32, 20


class Pseudonyms:
    """Gives one pseudonym to one person or interaction, always the same under one key."""

    def __init__(self, key: bytes) -> None:
        """Name people by `key`, 32 bytes.

        >>> Pseudonyms(bytes(32)).of_user("7")
        '58678c6e76f988a878b1'
        """
        assert len(key) == KEY_BYTES
        self._key = key

    def of_user(self, user_id: str) -> str:
        """Pseudonym of a user: 20 hex digits, the first of HMAC-SHA256 over `user:` and the identifier."""
        return self._of(f"user:{user_id}")

    def of_interaction(self, user_id: str, item_id: str) -> str:
        """Pseudonym of a user's interaction with an item, 20 hex digits."""
        return self._of(f"interaction:{canonical_json([user_id, item_id])}")

    @property
    def fingerprint(self) -> str:
        """SHA-256 by which the key is recognised, 64 hex digits; the key cannot be told from it."""
        return hashlib.sha256(b"check" + self._key).hexdigest()

    def _of(self, named: str) -> str:
        return hmac.new(self._key, named.encode(), hashlib.sha256).hexdigest()[:PSEUDONYM_DIGITS]


def open_pseudonyms(workspace: Path, ledger: Ledger) -> Pseudonyms:
    """The pseudonyms of a workspace: by the key in `E2UREC_PSEUDONYM_KEY`, or by its file, which is drawn on first use.

    Args:
        workspace: Its folder `keys` holds the file.
        ledger: Keeps the fingerprint of the first key that was ever used.

    Raises:
        BadKey: The key is missing, malformed, open to others, or not the one used so far.
        StorageFailed: The file cannot be read or written.
    """
    given, path = os.environ.get(VARIABLE), workspace / FILE
    if given is not None:
        pseudonyms = Pseudonyms(_given(given))
    else:
        with storage_errors(workspace):
            # Asked first: a file that is drawn meanwhile is there before its fingerprint.
            kept = ledger.fingerprint("pseudonyms")
            if not path.exists():
                if kept is not None:
                    raise BadKey(
                        "the key of the pseudonyms is missing, and the ledger holds pseudonyms that were made with it",
                        facts={"file": path},
                        hint=f"put its backup in its place, or name it in `{VARIABLE}`",
                    )
                _draw(path)
            pseudonyms = Pseudonyms(_read(path))
    if ledger.keep_fingerprint("pseudonyms", pseudonyms.fingerprint) != pseudonyms.fingerprint:
        raise BadKey(
            "the key of the pseudonyms is not the one that the ledger's pseudonyms were made with",
            facts={"key": VARIABLE if given is not None else path},
            hint="put the first key back",
        )
    return pseudonyms


def _given(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or len(text) != 2 * KEY_BYTES:
        raise BadKey(f"the key in `{VARIABLE}` is not one of {2 * KEY_BYTES} hex digits", hint="set the key that was drawn for this ledger")
    return key


def _read(path: Path) -> bytes:
    mode, key = path.stat().st_mode & 0o777, path.read_bytes()
    if mode & 0o077:
        raise BadKey(
            f"others may read or change the key of the pseudonyms: its mode is {mode:o}, not 600",
            facts={"file": path},
            hint="make it 600, and find out who may have read it",
        )
    if len(key) != KEY_BYTES:
        raise BadKey(
            f"the key of the pseudonyms has {len(key)} bytes, not {KEY_BYTES}", facts={"file": path}, hint="put its backup in its place"
        )
    return key


def _draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    with FileLock(f"{path}.lock", mode=0o600):
        if path.exists():
            return
        beside = path.with_name(f".{path.name}")
        with open(os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        sync(beside)
        failpoint("key.rename")
        os.rename(beside, path)
        sync(path.parent)
    failpoint("key.renamed")
