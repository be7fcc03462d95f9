"""Verifies receipts from their files and a public key alone: no network, no ledger, no workspace.

A file is verified with its neighbours where these lie beside it, a folder as a whole chain. A key is trusted if it was given, or if
statements of rotation lead from one that was given to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2urec_core.errors import BadReceipt
from e2urec_core.receipts.envelope import Envelope, PublicKey
from e2urec_core.receipts.folder import COMPARE, EMPTY, Head, digest_of_link, links_of, number_of, read_link
from e2urec_core.receipts.receipt import Receipt, Rotation
from e2urec_core.receipts.trust import Keys, chain_keys, keys_of, next_key


@dataclass(frozen=True)
class Verified:
    """What was verified.

    Args:
        document: The file's; of a folder, the last.
        digest: SHA-256 of its file.
        key: The key that has signed it; of a rotation, the one that retires.
        links: How many links of the chain were looked at, itself included.
    """

    document: Receipt | Rotation
    digest: str
    key: PublicKey
    links: int


def verify(place: Path, trusted: Iterable[PublicKey], *, head: Head = EMPTY) -> Verified:
    """Verify a file, with its neighbours where they lie beside it, or a folder, from the first link to the last.

    Args:
        place: A receipt's file under any name, or a folder of receipts.
        trusted: Public keys that are known to be the issuer's; any key of the chain will do.
        head: A link that was seen before; a folder's chain must pass through it.

    Raises:
        BadReceipt: Something was altered, removed, moved or signed by somebody else; names the first bad link.
    """
    links = links_of(place if place.is_dir() else place.parent)
    keys = chain_keys(links, trusted)
    if place.is_dir():
        return _verified_chain(links, keys, head, place)
    return _verified_file(place, links, keys)


def verified_link(data: bytes, keys: Keys) -> tuple[Receipt | Rotation, PublicKey]:
    """The document in a file's bytes and the key that signed it, once its signatures and its schema are verified.

    Raises:
        BadReceipt: Its layout, a signature, the key or a field is not what it should be.
    """
    envelope = Envelope.from_bytes(data)
    known: list[PublicKey] = []
    for key_id, _ in envelope.signatures:
        key = keys.get(key_id)
        if key is None:
            raise BadReceipt(f"is signed by the key {key_id}, which is not trusted", hint="name the published key of its issuer")
        known.append(key)
    if not envelope.is_signed_by(*known):
        raise BadReceipt("is not what was signed", hint=COMPARE)
    document = _kind_of(envelope).from_payload(envelope.payload)
    named = keys_of(document) if isinstance(document, Rotation) else (keys.get(document.key),)
    if tuple(known) != named:
        raise BadReceipt("is signed by other keys than it names", hint=COMPARE)
    if not keys.may_sign(document.number, known[0]):
        raise BadReceipt(f"is signed by the key {known[0].id}, which was not in use there", hint=COMPARE)
    return document, known[0]


def unverified(path: Path) -> Receipt | Rotation:
    """The document in a file, as it stands there; anybody may have written it.

    Raises:
        BadReceipt: The file cannot be read, or holds no document.
    """
    with about(path):
        envelope = Envelope.from_bytes(read_link(path))
        return _kind_of(envelope).from_payload(envelope.payload)


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Say of a fault inside in which file it is."""
    try:
        yield
    except BadReceipt as fault:
        raise _faulty(path, fault.fact, fault.hint) from None


def _verified_file(path: Path, links: Mapping[int, Path], keys: Keys) -> Verified:
    with about(path):
        data = read_link(path)
        document, key = verified_link(data, keys)
    if number_of(path) is None:
        return Verified(document, digest_of_link(data), key, links=1)
    _check_name(document, path)
    looked_at = 1
    if before := links.get(document.number - 1):
        looked_at += 1
        with about(before):
            digest = digest_of_link(read_link(before))
        _check_follows(document, path, digest)
    if after := links.get(document.number + 1):
        looked_at += 1
        with about(after):
            following, _ = verified_link(read_link(after), keys)
        _check_follows(following, after, digest_of_link(data))
    return Verified(document, digest_of_link(data), key, links=looked_at)


def _verified_chain(links: Mapping[int, Path], keys: Keys, head: Head, folder: Path) -> Verified:
    last, seen = None, EMPTY
    for number, path in links.items():
        if number != seen.number + 1:
            raise _missing(seen.number + 1)
        with about(path):
            data = read_link(path)
            document, key = verified_link(data, keys)
        _check_name(document, path)
        _check_follows(document, path, seen.digest)
        if last is not None and key != next_key(last.document, last.key):
            raise _faulty(path, f"is signed by the key {key.id}, which was not in use there")
        seen = Head(number=number, digest=digest_of_link(data))
        if number == head.number and seen != head:
            raise _faulty(path, "is not the one that was seen before")
        last = Verified(document, seen.digest, key, links=number)
    if seen.number < head.number:
        raise _missing(seen.number + 1, f": the chain ends at {seen.number}, and {head.number} was seen before")
    if last is None:
        raise BadReceipt("there are no receipts", facts={"folder": folder}, hint="name a folder that holds some")
    return last


def _kind_of(envelope: Envelope) -> type[Receipt | Rotation]:
    kinds: Mapping[str, type[Receipt | Rotation]] = {kind.payload_type: kind for kind in (Receipt, Rotation)}
    if envelope.kind not in kinds:
        raise BadReceipt(f"is of the unknown type `{envelope.kind}`", hint="read it with a newer version of this program")
    return kinds[envelope.kind]


def _check_name(document: Receipt | Rotation, path: Path) -> None:
    if document.file_name != path.name:
        raise _faulty(path, f"holds what belongs into {document.file_name}")


def _check_follows(document: Receipt | Rotation, path: Path, digest: str) -> None:
    if document.previous != digest:
        raise _faulty(path, "does not follow the one before it")


def _faulty(path: Path, said: str, hint: str = COMPARE) -> BadReceipt:
    number = number_of(path)
    return BadReceipt(f"{'the file' if number is None else f'link {number}'} {said}", facts={"file": path}, hint=hint)


def _missing(number: int, said: str = "") -> BadReceipt:
    return BadReceipt(f"link {number} is missing{said}", hint=COMPARE)
