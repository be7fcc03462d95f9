"""Which keys are trusted: those that were given, and those that statements of rotation lead to from there, in either direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from e2urec_core.errors import BadReceipt
from e2urec_core.receipts.envelope import Envelope, PublicKey
from e2urec_core.receipts.folder import COMPARE, read_link
from e2urec_core.receipts.receipt import Receipt, Rotation


class Keys:
    """The keys that are trusted, and in which order one followed the other."""

    def __init__(self, trusted: Iterable[PublicKey], rotations: Iterable[Rotation] = ()) -> None:
        """Trust `trusted`, and whatever `rotations`, each signed by both its keys, connect with them.

        Raises:
            BadReceipt: Two rotations retire the same key, or name the same successor.
        """
        self._known = {key.id: key for key in trusted}
        self._rotations: list[Rotation] = []
        waiting = list(rotations)
        while found := [each for each in waiting if any(self._known.get(key.id) == key for key in keys_of(each))]:
            waiting = [each for each in waiting if each not in found]
            self._known |= {key.id: key for each in found for key in keys_of(each)}
            self._rotations += found
        self._rotations.sort(key=lambda rotation: rotation.number)
        for ends in ([each.retired for each in self._rotations], [each.successor for each in self._rotations]):
            if len(set(ends)) != len(ends):
                raise BadReceipt("two statements of rotation hand over from or to the same key", hint=COMPARE)

    def get(self, key_id: str) -> PublicKey | None:
        """The trusted key of this id."""
        return self._known.get(key_id)

    def may_sign(self, number: int, key: PublicKey) -> bool:
        """Whether `key` was in use for link `number`: not retired before it, nor a successor that had yet to begin."""
        for rotation in self._rotations:
            retired, successor = keys_of(rotation)
            if (rotation.number < number and key == retired) or (rotation.number >= number and key == successor):
                return False
        return True

    def newest(self, key: PublicKey) -> PublicKey:
        """The key that signs now in the chain in which `key` has signed."""
        for rotation in self._rotations:
            retired, successor = keys_of(rotation)
            key = successor if key == retired else key
        return key

    def oldest(self, key: PublicKey) -> PublicKey:
        """The key that signed first in the chain in which `key` has signed."""
        for rotation in reversed(self._rotations):
            retired, successor = keys_of(rotation)
            key = retired if key == successor else key
        return key


def chain_keys(links: Mapping[int, Path], trusted: Iterable[PublicKey]) -> Keys:
    """The keys of the chain of files `links` that are connected with `trusted`.

    A statement that is not signed by the keys it names leads nowhere here; it is told of when its link is verified.

    Raises:
        BadReceipt: Two statements contradict each other.
    """
    rotations = []
    for path in links.values():
        if "-key-" in path.name:
            try:
                envelope = Envelope.from_bytes(read_link(path))
                rotation = Rotation.from_payload(envelope.payload)
            except BadReceipt:
                continue
            if envelope.kind == Rotation.payload_type and envelope.is_signed_by(*keys_of(rotation)):
                rotations.append(rotation)
    return Keys(trusted, rotations)


def keys_of(rotation: Rotation) -> tuple[PublicKey, PublicKey]:
    """The key that retires and the one that succeeds it."""
    return PublicKey(bytes.fromhex(rotation.retired)), PublicKey(bytes.fromhex(rotation.successor))


def next_key(document: Receipt | Rotation, key: PublicKey) -> PublicKey:
    """The key that signs the link after `document`, which `key` has signed."""
    return keys_of(document)[1] if isinstance(document, Rotation) else key
