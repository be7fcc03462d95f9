"""Secret keys of a workspace: 32 random bytes, drawn once into a file that its owner alone may read, or given in a variable."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from e2urec_core.errors import BadKey
from e2urec_core.failpoints import failpoint
from e2urec_core.store import sync

KEY_BYTES = 32


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
