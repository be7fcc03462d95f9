"""Names for people that say nothing without the key: what the ledger, logs and receipts write in place of identifiers.

A plain hash of a number can be undone by trying all numbers. The key is drawn once for a workspace and never leaves it; the ledger
keeps the key's fingerprint, so that another key is noticed before it names anybody.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import canonical_json
from e2urec_core.disk import storage_errors
from e2urec_core.secret_key import KEY_BYTES, SecretKey, fingerprint_of

if TYPE_CHECKING:
    from e2urec_core.ledger.history import Ledger

FILE, VARIABLE = Path("keys", "pseudonyms.key"), "E2UREC_PSEUDONYM_KEY"
PSEUDONYM_DIGITS = 20
_KEY = SecretKey("the key of the pseudonyms", VARIABLE)


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
        return fingerprint_of(self._key)

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
    return Pseudonyms(_KEY.open(workspace, FILE, ledger, made="pseudonyms"))


def existing_pseudonyms(workspace: Path) -> Pseudonyms | None:
    """The pseudonyms by a key that is there, or None: looking draws no key, and asks no ledger.

    Raises:
        BadKey: The key is malformed or open to others.
        StorageFailed: The file cannot be read.
    """
    given, path = _KEY.given(), workspace / FILE
    if given is not None:
        return Pseudonyms(given)
    with storage_errors(workspace):
        return Pseudonyms(_KEY.read(path)) if path.exists() else None
