"""The key that signs: drawn on first use, given in a variable, or handed over to the next.

The ledger keeps the fingerprint of the first key; every later one is led to from there by statements of rotation in the chain, signed by
both the key that goes and the one that comes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.disk import sync, write_whole
from e2urec_core.errors import BadKey
from e2urec_core.failpoints import failpoint
from e2urec_core.ledger import utc_now
from e2urec_core.receipts.chain import Witness, append, locked
from e2urec_core.receipts.envelope import PublicKey, Signer
from e2urec_core.receipts.folder import KEY_ENDING, KEYS, links_of, public_keys_beside
from e2urec_core.receipts.receipt import Rotation
from e2urec_core.receipts.trust import chain_keys
from e2urec_core.secret_key import SecretKey

if TYPE_CHECKING:
    from e2urec_core.ledger.history import Ledger

FILE, NEXT_FILE = Path("keys", "receipts.key"), Path("keys", "receipts.key.next")
VARIABLE, NEXT_VARIABLE = "E2UREC_RECEIPT_KEY", "E2UREC_RECEIPT_NEXT_KEY"
FINGERPRINT = "receipts"
_KEY, _NEXT = SecretKey("the key of the receipts", VARIABLE), SecretKey("the next key of the receipts", NEXT_VARIABLE)


def open_signer(workspace: Path, ledger: Ledger) -> Signer:
    """The signer of a workspace: by the seed in `E2UREC_RECEIPT_KEY`, or by its file, which is drawn on first use.

    Its public key is put into `receipts/keys/<key id>.pub`. A rotation that was killed before its end is ended.

    Args:
        workspace: Its folder `keys` holds the file.
        ledger: Keeps the fingerprint of the first key that was ever used.

    Raises:
        BadKey: The key is missing, malformed, open to others, retired, or not the one used so far.
        StorageFailed: A file cannot be read or written.
    """
    with locked(workspace) as folder:
        given, path = _KEY.given(), workspace / FILE
        if given is None and not path.exists():
            if ledger.fingerprint(FINGERPRINT) is not None:
                raise BadKey(
                    "the key of the receipts is missing, and the ledger knows that receipts may have been signed with it",
                    facts={"file": path},
                    hint=f"put its backup in its place, or name it in `{VARIABLE}`",
                )
            _KEY.draw(path)
        signer = Signer(_KEY.read(path) if given is None else given)
        keys = chain_keys(links_of(folder), [signer.public])
        newest = keys.newest(signer.public)
        if newest != signer.public:
            waiting = workspace / NEXT_FILE
            if given is not None or not waiting.exists() or Signer(_NEXT.read(waiting)).public != newest:
                raise BadKey(
                    f"the key {signer.public.id} of the receipts was retired; {newest.id} signs now",
                    facts={"key": path if given is None else VARIABLE},
                    hint="put the newest key in its place",
                )
            signer = _take_over(workspace)
        first = keys.oldest(signer.public).fingerprint
        if ledger.keep_fingerprint(FINGERPRINT, first) != first:
            raise BadKey(
                "the key of the receipts is not the one that receipts were signed with so far, nor led to from there",
                facts={"key": path if given is None else VARIABLE},
                hint="put that key back, and every statement of rotation of the folder `receipts`",
            )
        _export(folder, signer.public)
        return signer


def keys_of_ledger(folder: Path, ledger: Ledger | None) -> list[PublicKey]:
    """The public keys beside receipts that are the first key by the ledger, from which later ones follow; without a ledger, all of them.

    Args:
        folder: Of the receipts.
        ledger: Keeps the first key's fingerprint.
    """
    return [key for key in public_keys_beside(folder) if ledger is None or key.fingerprint == ledger.fingerprint(FINGERPRINT)]


def rotate_key(workspace: Path, signer: Signer, witness: Witness, *, clock: Callable[[], datetime] = utc_now) -> Path:
    """Hand over from `signer` to a new key, drawn or given in `E2UREC_RECEIPT_NEXT_KEY`; the statement is a link of the chain.

    A key from `E2UREC_RECEIPT_KEY` is not replaced there: put the next one into that variable afterwards.

    Args:
        workspace: Whose key changes.
        signer: From `open_signer`; it is of no use afterwards.
        witness: See `write_receipt`.
        clock: Gives the time of issue, with its zone.

    Returns:
        The statement's file.

    Raises:
        BadKey: The key is given in a variable and the next one is not; or the next one has signed before.
        BadReceipt: The chain was cut or altered; nothing is added to it.
        StorageFailed: A file cannot be written.
    """
    drawn = _KEY.given() is None
    with locked(workspace) as folder:
        if drawn:
            _NEXT.draw(workspace / NEXT_FILE)
        seed = _NEXT.read(workspace / NEXT_FILE) if drawn else _NEXT.given()
        if seed is None:
            raise BadKey(f"the key is given in `{VARIABLE}`, and the next one is not given", hint=f"set `{NEXT_VARIABLE}` to 64 hex digits")
        successor = Signer(seed)
        links = links_of(folder)
        if chain_keys(links, [signer.public]).get(successor.public.id) is not None:
            raise BadKey(f"the next key {successor.public.id} has signed receipts before", hint="take a key that was never used")

        def make(number: int, previous: str, program: str, issued_at: datetime) -> Rotation:
            return Rotation(
                id=f"key-{successor.public.id}",
                number=number,
                previous=previous,
                program=program,
                issued_at=issued_at,
                retired=signer.public.raw.hex(),
                successor=successor.public.raw.hex(),
            )

        _export(folder, successor.public)
        path = append(folder, links, make, [signer, successor], witness, clock)
        if drawn:
            _take_over(workspace)
        return path


def _take_over(workspace: Path) -> Signer:
    failpoint("receipt-key.replace")
    os.replace(workspace / NEXT_FILE, workspace / FILE)
    sync((workspace / FILE).parent)
    failpoint("receipt-key.replaced")
    return Signer(_KEY.read(workspace / FILE))


def _export(folder: Path, key: PublicKey) -> None:
    path = folder / KEYS / f"{key.id}{KEY_ENDING}"
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_bytes() != key.text.encode():
        write_whole(path, key.text)
        sync(path.parent)
