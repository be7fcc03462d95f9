"""The commands `e2urec receipt`: verify receipts, read one, open one's commitment, hand over to a new key.

`verify`, `show` and `open` need no workspace: whoever has the file, and the public key, can run them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2urec_core.errors import BadKey, BadReceipt, BadSetting
from flows.flags import AsJson, Debug, StoreAt, Workspace, told_or_read
from flows.surroundings import prepare
from tasks._journal import place_of
from tasks._progress import say

if TYPE_CHECKING:
    from e2urec_core.ledger.history import Ledger
    from e2urec_core.receipts.verify import Verified

FILE = Annotated[Path, typer.Argument(metavar="FILE", help="File of a receipt.")]
KEY = Annotated[Path | None, typer.Option("--key", help="Public key of the issuer, a `.pub` file.")]

app = typer.Typer(help="Signed receipts of deletion requests: verify, show, open, change the key.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def receipt(context: typer.Context) -> None:
    """Signed receipts of deletion requests: verify, show, open, change the key."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def verify(file: FILE, key: KEY = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Verify a receipt, and where its neighbours lie beside it, that they are linked; default key: those in `keys` beside it."""
    from e2urec_core.receipts.folder import public_keys_beside, read_public_key
    from e2urec_core.receipts.verify import verify as verify_place

    trusted = public_keys_beside(file) if key is None else [read_public_key(key)]
    if not trusted:
        raise BadKey("there is no public key to verify with", facts={"file": file}, hint="name the issuer's with `--key FILE.pub`")
    _show_verified(verify_place(file, trusted), as_json=as_json)
    if key is None:
        say("the key lay beside the receipt: compare its id with the one that the issuer has published")


@app.command("verify-all")
def verify_all(workspace: Workspace = None, store: StoreAt = None, key: KEY = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Verify a workspace's whole chain of receipts, and that it is the one that the ledger knows."""
    from e2urec_core.receipts.chain import FOLDER
    from e2urec_core.receipts.folder import EMPTY, read_public_key
    from e2urec_core.receipts.keys import keys_of_ledger
    from e2urec_core.receipts.verify import verify as verify_place

    place = place_of(workspace)
    folder, ledger = place / FOLDER, _ledger(place)
    head = EMPTY
    if ledger is not None:
        from e2urec_core.receipts.witness import LedgerWitness

        head = LedgerWitness(ledger).head()
    trusted = keys_of_ledger(folder, ledger) if key is None else [read_public_key(key)]
    if not folder.is_dir() or not trusted:
        raise BadReceipt("there are no receipts, or no key that the ledger knows", facts={"folder": folder}, hint="name one with `--key`")
    _show_verified(verify_place(folder, trusted, head=head), as_json=as_json)
    if ledger is None:
        say("there is no ledger: links that were cut off the end would not be noticed")


@app.command()
def show(file: FILE, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show what a receipt says, without verifying it."""
    from e2urec_core.receipts.verify import unverified

    document = unverified(file)
    if as_json:
        _print(document.canonical())
        return
    for name, value in document.canonical().items():
        print(f"{name.replace('_', ' '):<15} {value if isinstance(value, str) else json.dumps(value)}")
    say("nothing was verified; `e2urec receipt verify` does")


@app.command("open")
def open_commitment(
    file: FILE,
    nonce: Annotated[str, typer.Option("--nonce", help="The number that the subject was given, 64 hex digits.")],
    user: Annotated[str, typer.Option("--user", help="Identifier of the user; `-` reads it from a line of stdin.")],
    item: Annotated[list[str] | None, typer.Option("--item", help="Identifier of an item, for single interactions; once for each.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Prove that a receipt is about a user, without verifying it."""
    if not re.fullmatch("[0-9a-f]{64}", nonce):
        raise BadSetting(f"the nonce has {len(nonce)} characters and is not one of 64 hex digits", hint="take it as it was handed out")
    from e2urec_core.receipts.receipt import Rotation
    from e2urec_core.receipts.verify import unverified

    document = unverified(file)
    if isinstance(document, Rotation):
        raise BadReceipt("the file is a statement of rotation and is about nobody", facts={"file": file}, hint="name a receipt")
    named = told_or_read(user)
    if not document.opens(bytes.fromhex(nonce), named, item or ()):
        raise BadReceipt(
            f"the nonce, the user and the {len(item or ())} items do not open the receipt {document.id}",
            hint="give all three as they were in the request",
        )
    if as_json:
        _print({"id": document.id, "request": document.request, "opened": True})
    else:
        print(f"{document.id} is about this user; request {document.request}, {document.outcome}")
    say("its signature was not verified; `e2urec receipt verify` does")


@app.command("rotate-key")
def rotate_key(workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Hand over to a new key; the statement is signed by both keys and is a link of the chain, so old receipts still verify."""
    place = prepare(workspace)
    from e2urec_core.ledger import ledger_place, open_ledger
    from e2urec_core.receipts.keys import open_signer
    from e2urec_core.receipts.keys import rotate_key as rotate
    from e2urec_core.receipts.witness import LedgerWitness

    ledger = open_ledger(ledger_place(place))
    signer = open_signer(place, ledger)
    statement = rotate(place, signer, LedgerWitness(ledger))
    successor = statement.stem.split("-")[-1]
    if as_json:
        _print({"retired": signer.public.id, "successor": successor, "statement": str(statement)})
        return
    print(f"the key {successor} signs now; {signer.public.id} is retired")
    print(f"hint: publish {statement.parent / 'keys' / f'{successor}.pub'}")


def _ledger(workspace: Path) -> Ledger | None:
    """The workspace's ledger, unless there is none: verifying makes nothing."""
    from e2urec_core.ledger import ledger_place, open_ledger

    place = ledger_place(workspace)
    return None if isinstance(place, Path) and not place.exists() else open_ledger(place)


def _show_verified(verified: Verified, *, as_json: bool) -> None:
    document = verified.document
    told: dict[str, Any] = {"id": document.id, "number": document.number, "issued_at": document.issued_at.isoformat()}
    told |= {name: getattr(document, name) for name in ("request", "outcome", "successor") if hasattr(document, name)}
    told |= {"digest": verified.digest, "key": verified.key.id, "links": verified.links}
    if as_json:
        _print({"verified": True, **told})
        return
    print("verified")
    for name, value in told.items():
        print(f"  {name.replace('_', ' '):<10} {value}")


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))
