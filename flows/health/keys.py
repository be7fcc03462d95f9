"""The secret keys: whether each is there, may be read by its owner alone, and is the one the ledger knows; none is drawn or shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from e2urec_core.errors import UserError
from e2urec_core.secret_key import SecretKey, fingerprint_of
from flows.health.finding import Check, Finding, fault, ok, warning
from flows.health.servers import WITHIN_S
from flows.health.subject import Subject

TOPIC, FOLDER = "keys", "keys"


class Kept(NamedTuple):
    """Where one key is kept, and how the ledger knows it."""

    key: SecretKey
    file: Path
    made: str
    first_fingerprint: Callable[[Path, bytes], str]


def folder(subject: Subject) -> Finding:
    """The folder of the keys: nobody but its owner may look into it."""
    place = subject.workspace / FOLDER
    if not place.exists():
        return ok(f"{FOLDER}/ is not there: no key was drawn here")
    mode = place.stat().st_mode & 0o777
    if mode & 0o077:
        return warning(f"others may look into {FOLDER}/: its mode is {mode:o}, not 700", f"chmod 700 {place}")
    return ok(f"{FOLDER}/ has the mode {mode:o}")


def key(subject: Subject, kept: Callable[[], Kept]) -> Finding:
    """One key: where it is, its mode, its length, and its fingerprint against the ledger's."""
    asked = kept()
    path = subject.workspace / asked.file
    try:
        found = subject.ledger()
        known = found.fingerprints.get(asked.made) if found else None
        unknown = "" if found is None or found.newest_at else "; the ledger tells no fingerprint"
    except Exception:
        known, unknown = None, "; the ledger cannot be read, so its fingerprint is not compared"
    variable = f"`{asked.key.variable}`"
    try:
        given = asked.key.given()
        if given is None and not path.exists():
            if known is None:
                return ok(f"neither {variable} nor {asked.file} is there; it is drawn when it is first needed")
            return fault(
                f"the ledger knows a key, and neither {variable} nor {asked.file} is there",
                "put its backup in its place; without it, whoever was forgotten is not known any more",
            )
        secret = given if given is not None else asked.key.read(path)
        where = variable if given is not None else f"{asked.file}, mode {path.stat().st_mode & 0o777:o}"
        if known is not None and asked.first_fingerprint(subject.workspace, secret) != known:
            return fault(f"the key in {where} is not the one the ledger knows", "put the first key back")
    except UserError as error:
        return fault(error.fact, error.hint)
    except OSError as error:
        return fault(f"{asked.file} cannot be read: {error.strerror}", "give it to the user that nights run as")
    if given is None and path.stat().st_uid != os.geteuid():
        return warning(f"{asked.file} belongs to another user of this machine", "give it to the user that nights run as")
    told = "; its fingerprint is the ledger's" if known is not None else unknown
    return ok(f"{'given in ' if given is not None else ''}{where}{told}")


def _pseudonyms() -> Kept:
    from e2urec_core.pseudonyms import FILE, VARIABLE

    return Kept(SecretKey("the key of the pseudonyms", VARIABLE), FILE, "pseudonyms", _fingerprint)


def _suppressions() -> Kept:
    from e2urec_core.ledger.suppressions import FILE, VARIABLE

    return Kept(SecretKey("the key of the suppression list", VARIABLE), FILE, "suppression marks", _fingerprint)


def _receipts() -> Kept:
    from e2urec_core.receipts.keys import FILE, FINGERPRINT, VARIABLE

    return Kept(SecretKey("the key of the receipts", VARIABLE), FILE, FINGERPRINT, _first_of_receipts)


CHECKS = (
    Check(TOPIC, "folder", folder),
    Check(TOPIC, "pseudonyms", partial(key, kept=_pseudonyms), WITHIN_S),
    Check(TOPIC, "suppression", partial(key, kept=_suppressions), WITHIN_S),
    Check(TOPIC, "receipts", partial(key, kept=_receipts), WITHIN_S),
)


def _fingerprint(_: Path, secret: bytes) -> str:
    return fingerprint_of(secret)


def _first_of_receipts(workspace: Path, secret: bytes) -> str:
    """The fingerprint of the key from which statements of rotation lead to this one."""
    from e2urec_core.receipts.chain import FOLDER as RECEIPTS
    from e2urec_core.receipts.envelope import Signer
    from e2urec_core.receipts.folder import links_of
    from e2urec_core.receipts.trust import chain_keys

    public = Signer(secret).public
    return chain_keys(links_of(workspace / RECEIPTS), [public]).oldest(public).fingerprint
