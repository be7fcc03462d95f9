"""Writes the chain: `receipts/NNNNNN-<id>.json`, each file naming the digest of the one before.

Whoever writes holds a kernel lock, and a file appears whole or not at all. The end of the chain is told to a witness outside the folder
after each file, so that a chain that was cut is found before anything is added to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from e2urec_core.disk import storage_errors, sync, write_whole
from e2urec_core.errors import BadKey, BadReceipt
from e2urec_core.failpoints import failpoint
from e2urec_core.ledger import utc_now
from e2urec_core.receipts.envelope import Envelope, Signer
from e2urec_core.receipts.folder import EMPTY, KEY_ENDING, KEYS, Head, digest_of_link, links_of, read_link
from e2urec_core.receipts.receipt import Facts, Receipt, Rotation
from e2urec_core.receipts.trust import chain_keys, next_key
from e2urec_core.receipts.verify import about, verified_link

FOLDER = "receipts"
WAIT_SECONDS = 30
Make = Callable[[int, str, str, datetime], Receipt | Rotation]
"""Makes a document of its number, the digest of the link before, the program and the time."""


class Witness(Protocol):
    """Keeps the end of the chain outside its folder, as the ledger does (`LedgerWitness`)."""

    def head(self) -> Head:
        """The newest link it was told of; `EMPTY` before the first."""

    def written(self, document_id: str, head: Head) -> None:
        """Keep `head`, the end of the chain now; what is kept already, or older, changes nothing."""


def write_receipt(workspace: Path, facts: Facts, signer: Signer, witness: Witness, *, clock: Callable[[], datetime] = utc_now) -> Path:
    """Write the receipt of a request at the end of the chain, or find the one that it was given before.

    It may be repeated after a kill. The first receipt of a request stays, whatever the facts say the second time.

    Args:
        workspace: Its folder `receipts` holds the chain.
        facts: What was done.
        signer: From `open_signer`.
        witness: Told of the new end; call this inside no transaction of the ledger.
        clock: Gives the time of issue, with its zone.

    Returns:
        The receipt's file.

    Raises:
        BadReceipt: The chain was cut or altered; nothing is added to it.
        BadKey: Another key has taken over from `signer`.
        StorageFailed: The folder cannot be written, or was locked for thirty seconds.
    """
    identity = receipt_id(facts.request)

    def make(number: int, previous: str, program: str, issued_at: datetime) -> Receipt:
        place = {"id": identity, "number": number, "previous": previous, "program": program, "issued_at": issued_at}
        return Receipt.model_validate({**dict(facts), **place, "key": signer.public.id})

    with locked(workspace) as folder:
        links = links_of(folder)
        there = next((path for path in links.values() if path.stem.endswith(identity)), None)
        if there is None:
            return append(folder, links, make, [signer], witness, clock)
        _end(links, signer, witness)
        with about(there):
            verified_link(read_link(there), chain_keys(links, [signer.public]))
        return there


def receipt_id(request: str) -> str:
    """Id of the receipt of a request, which is part of its file's name."""
    return f"receipt-{hashlib.sha256(request.encode()).hexdigest()[:16]}"


@contextmanager
def locked(workspace: Path) -> Iterator[Path]:
    """The folder of the chain, which nobody else changes meanwhile; not to be taken twice.

    Raises:
        StorageFailed: It cannot be written, or was locked for thirty seconds.
    """
    folder = workspace / FOLDER
    with storage_errors(workspace):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / ".lock", timeout=WAIT_SECONDS, mode=0o600):
            for left in (*folder.glob(".*.json.*"), *(folder / KEYS).glob(f".*{KEY_ENDING}.*")):
                left.unlink()
            yield folder


def append(
    folder: Path, links: Mapping[int, Path], make: Make, signers: list[Signer], witness: Witness, clock: Callable[[], datetime]
) -> Path:
    """Add a document to the chain of `links`; `folder` is `locked`, and the first of `signers` has signed so far. See `write_receipt`."""
    end = _end(links, signers[0], witness)
    document = make(end.number + 1, end.digest, f"e2urec {version('e2urec')}", clock().astimezone(UTC))
    sealed = Envelope.sealed(document.payload_type, document.to_payload(), *signers).to_bytes()
    path = folder / document.file_name
    failpoint("receipt.write")
    write_whole(path, sealed.decode())
    sync(folder)
    failpoint("receipt.written")
    witness.written(document.id, Head(number=document.number, digest=digest_of_link(sealed)))
    failpoint("receipt.witnessed")
    return path


def _end(links: Mapping[int, Path], signer: Signer, witness: Witness) -> Head:
    """The end of the chain, verified, and told to the witness if a kill came in between."""
    known = witness.head()
    if list(links) != list(range(1, len(links) + 1)) or len(links) < known.number:
        missing = next(number for number in range(1, known.number + len(links) + 1) if number not in links)
        raise BadReceipt(f"link {missing} is missing; nothing was added to the chain", hint="put it back")
    if known.number:
        with about(links[known.number]):
            if digest_of_link(read_link(links[known.number])) != known.digest:
                raise BadReceipt("is not the one that was seen before", hint="put it back")
    if not links:
        return EMPTY
    with about(links[len(links)]):
        data = read_link(links[len(links)])
        document, key = verified_link(data, chain_keys(links, [signer.public]))
    if next_key(document, key) != signer.public:
        raise BadKey(
            f"the chain of receipts goes on with the key {next_key(document, key).id}, not with {signer.public.id}",
            hint="open the signer again: the key was changed meanwhile",
        )
    head = Head(number=document.number, digest=digest_of_link(data))
    if head.number > known.number:
        witness.written(document.id, head)
    return head
