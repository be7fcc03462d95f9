"""Secret keys of a workspace: 32 random bytes, drawn once into a file that its owner alone may read, or given in a variable."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from e2urec_core.disk import storage_errors, sync
from e2urec_core.errors import BadKey
from e2urec_core.failpoints import failpoint

if TYPE_CHECKING:
    from e2urec_core.ledger.history import Ledger

KEY_BYTES = 32


def fingerprint_of(key: bytes) -> str:
    """SHA-256 by which a key is recognised, 64 hex digits; the key cannot be told from it."""
    return hashlib.sha256(b"check" + key).hexdigest()


@dataclass(frozen=True)
class SecretKey:
    """What one key is called and where it is given; the key itself is never held.

    Args:
        name: As it stands in sentences, such as `the key of the pseudonyms`.
        variable: Environment variable that may hold it, as hex digits.
    """

    name: str
    variable: str

    def given(self) -> bytes | None:
        """The key in the variable, or None where that is not set.

        Raises:
            BadKey: The variable holds something else.
        """
        text = os.environ.get(self.variable)
        if text is None:
            return None
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES or len(text) != 2 * KEY_BYTES:
            raise BadKey(
                f"the key in `{self.variable}` is not one of {2 * KEY_BYTES} hex digits",
                hint="set the key that was drawn for this ledger",
            )
        return key

    def open(self, workspace: Path, file: Path, ledger: Ledger, *, made: str) -> bytes:
        """The key that a workspace has used from the first day on: the one in the variable, or in its file, drawn on first use.

        Args:
            workspace: Its folder.
            file: Where the key lies in it.
            ledger: Keeps the fingerprint of the first key that was ever used.
            made: What is made with the key, a plural for sentences; the fingerprint is kept under this word.

        Raises:
            BadKey: The key is missing, malformed, open to others, or not the one used so far.
            StorageFailed: The file cannot be read or written.
        """
        key, path = self.given(), workspace / file
        given = key is not None
        if key is None:
            with storage_errors(workspace):
                # Asked first: a file that is drawn meanwhile is there before its fingerprint.
                kept = ledger.fingerprint(made)
                if not path.exists():
                    if kept is not None:
                        raise BadKey(
                            f"{self.name} is missing, and the ledger holds {made} that were made with it",
                            facts={"file": path},
                            hint=f"put its backup in its place, or name it in `{self.variable}`",
                        )
                    self.draw(path)
                key = self.read(path)
        if ledger.keep_fingerprint(made, fingerprint_of(key)) != fingerprint_of(key):
            raise BadKey(
                f"{self.name} is not the one that the ledger's {made} were made with",
                facts={"key": self.variable if given else path},
                hint="put the first key back",
            )
        return key

    def read(self, path: Path) -> bytes:
        """The key in the file `path`.

        Raises:
            BadKey: Others than its owner may touch it, or it is no key.
            OSError: It cannot be read.
        """
        mode, key = path.stat().st_mode & 0o777, path.read_bytes()
        if mode & 0o077:
            raise BadKey(
                f"others may read or change {self.name}: its mode is {mode:o}, not 600",
                facts={"file": path},
                hint="make it 600, and find out who may have read it",
            )
        if len(key) != KEY_BYTES:
            raise BadKey(f"{self.name} has {len(key)} bytes, not {KEY_BYTES}", facts={"file": path}, hint="put its backup in its place")
        return key

    def draw(self, path: Path) -> None:
        """Draw a key into the file `path`, all or nothing; one that is there stays.

        Raises:
            OSError: It cannot be written.
        """
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
