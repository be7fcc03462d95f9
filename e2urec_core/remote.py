"""A folder of an object store, file by file; calls that fail in a way that may pass are made again with growing delays.

An object is there whole or not at all, and what was written is what is read and listed from then on: S3, Google's and Azure's stores
promise both.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from e2urec_core.data.object_stores import CHECK, CREDENTIALS, opened, why
from e2urec_core.errors import BadInput, BadSetting, StorageFailed
from e2urec_core.patience import FIRST_DELAY_S, LONGEST_DELAY_S, patience_in

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

T = TypeVar("T")
PATIENCE = "E2UREC_STORE_PATIENCE_S"
AT_ONCE = 16
"""Small objects that are read side by side."""
PIECE_BYTES = 2**23
FINAL = ("the store refuses the credentials", "there is no such bucket")


@dataclass(frozen=True)
class Listed:
    """One object.

    Args:
        name: Below the folder's address.
        size: Bytes.
        changed_s: When it was written, seconds since 1970, by the store's clock.
    """

    name: str
    size: int
    changed_s: float


class Remote:
    """What lies below one address; several processes, of several machines, may use it at once."""

    def __init__(self, address: str, patience: float | None = None) -> None:
        """Speak of what lies below `address`; nothing is asked yet.

        Args:
            address: Such as `s3://bucket/folder`.
            patience: Seconds for which calls are repeated; None: what `E2UREC_STORE_PATIENCE_S` says, else a minute.

        Raises:
            BadSetting: It is no address of an object store, or holds a password; or the variable holds no number.
        """
        if CREDENTIALS.match(address) or not re.match(r"^\w+://[^/?#]+", address):
            fault = "it holds a password" if CREDENTIALS.match(address) else "it names no bucket"
            raise BadSetting(
                f"the address of the store is refused: {fault}",
                hint="name it like `s3://bucket/folder`; credentials come from the environment",
            )
        self.address = address.rstrip("/")
        self._patience = patience_in(PATIENCE) if patience is None else patience

    def list(self, below: str = "") -> list[Listed]:
        """Everything below a folder, sorted by name."""
        from pyarrow import fs

        system, root = self._place
        start = f"{root}/{below}".rstrip("/")
        found = self._patiently(lambda: system.get_file_info(fs.FileSelector(start, recursive=True, allow_not_found=True)))
        files = (each for each in found if each.type == fs.FileType.File)
        return sorted((Listed(each.path[len(root) + 1 :], each.size, each.mtime_ns / 1e9) for each in files), key=lambda each: each.name)

    def holds(self, name: str) -> bool:
        """Whether there is such an object."""
        from pyarrow import fs

        system, root = self._place
        return bool(self._patiently(lambda: system.get_file_info(f"{root}/{name}")).type == fs.FileType.File)

    def read(self, name: str, most: int | None = None) -> bytes:
        """The bytes of an object, or the first `most` of them.

        Raises:
            FileNotFoundError: There is no such object.
        """
        system, root = self._place

        def call() -> bytes:
            with system.open_input_file(f"{root}/{name}") as stream:
                return bytes(stream.read(most))

        return self._patiently(call)

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of several small objects by name, without those that are gone."""

        def content(name: str) -> tuple[str, bytes | None]:
            try:
                return name, self.read(name)
            except FileNotFoundError:
                return name, None

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return {name: found for name, found in pool.map(content, names) if found is not None}

    def fetch(self, name: str, path: Path) -> None:
        """Download an object to `path`, whose folder is made.

        Raises:
            FileNotFoundError: There is no such object.
        """
        system, root = self._place
        path.parent.mkdir(parents=True, exist_ok=True)

        def call() -> None:
            with system.open_input_stream(f"{root}/{name}") as stream, path.open("wb") as file:
                shutil.copyfileobj(stream, file, PIECE_BYTES)

        self._patiently(call)

    def write(self, name: str, content: bytes) -> None:
        """Write a small object, whole."""
        system, root = self._place

        def call() -> None:
            with system.open_output_stream(f"{root}/{name}") as stream:
                stream.write(content)

        self._patiently(call)

    def send(self, path: Path, name: str) -> None:
        """Upload a file."""
        system, root = self._place

        def call() -> None:
            with path.open("rb") as file, system.open_output_stream(f"{root}/{name}") as stream:
                shutil.copyfileobj(file, stream, PIECE_BYTES)

        self._patiently(call)

    def remove(self, below: str) -> None:
        """Remove an object, or all below a folder, in every version that the store keeps; what is gone is no fault.

        Raises:
            BadSetting: Versions that the store may keep cannot be removed from here; see `cannot_remove`.
        """
        self._remover(below)

    @cached_property
    def _remover(self) -> Callable[[str], None]:
        from e2urec_core.object_versions import remover_for

        return remover_for(self)

    def patiently(self, call: Callable[[], T], may_pass: Callable[[BaseException], bool], says: Callable[[BaseException], str]) -> T:
        """What `call` returns; it is made again while it fails in a way that may pass.

        Raises:
            StorageFailed: It failed to the end.
        """
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

        waits = wait_exponential_jitter(initial=FIRST_DELAY_S, max=LONGEST_DELAY_S, jitter=FIRST_DELAY_S)
        again = Retrying(stop=stop_after_delay(self._patience), wait=waits, retry=retry_if_exception(may_pass), reraise=True)
        try:
            return again(call)
        except Exception as error:
            said = says(error)
            if not said:
                raise
            raise StorageFailed(
                f"the store cannot be used: {said}",
                facts={"store": self.address},
                hint=f"{CHECK}; then give the same command again: it goes on from what is finished",
            ) from None

    def _patiently(self, call: Callable[[], T]) -> T:
        return self.patiently(call, lambda error: bool(_said(error)) and _said(error) not in FINAL, _said)

    @cached_property
    def _place(self) -> tuple[FileSystem, str]:
        try:
            system, inner = self._patiently(lambda: opened(self.address))
        except BadInput as error:
            raise BadSetting(f"the address of the store is refused: {error.fact}", hint=error.hint) from None
        return system, inner.rstrip("/")


def _said(error: BaseException) -> str:
    """What a call of the store has failed of; nothing for a fault of this machine, or for an object that is not there."""
    from pyarrow.lib import ArrowException

    told = why(str(error))
    # Errors of this machine's own files carry their number.
    of_the_store = isinstance(error, ArrowException) or (isinstance(error, OSError) and error.errno is None)
    return (told or "the store does not answer") if of_the_store else ""
