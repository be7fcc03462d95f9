"""Puts the champion of a restored back-up back into the line, with what that undoes, in one transaction.

A rollback leads to no release that knows people whose requests are closed. A restore must: the other releases are lost. So it is told as
what it is, and the ledger keeps that requests for all of them must be carried out before another release can follow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import insert, select, update

from e2urec_core.artifacts import canonical_json
from e2urec_core.errors import ReleaseRefused
from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.owed import EVENT, Restored
from e2urec_core.ledger.records import Line
from e2urec_core.ledger.releases import Releases
from e2urec_core.ledger.schema import MODEL, line, promotions, requests


def bring_back(
    ledger: Ledger, bundle: str, *, backup: str, taken_at: datetime, again: Mapping[str, Sequence[str]], held: Sequence[str], run: str
) -> Restored:
    """Make the back-up's champion the champion, and note whose deletions that undoes; the same again changes nothing.

    Args:
        ledger: The newest there is.
        bundle: Of the release that was champion when the back-up was taken.
        backup: Digest of the back-up's manifest.
        taken_at: When it was taken, with its zone.
        again: Names of the new requests for people whom the back-up's data know again, each with the closed ones that it may repeat.
        held: Bundles that the back-up holds.
        run: Name that the ledger notes as whose doing it was.

    Raises:
        ReleaseRefused: The release was never champion.
    """
    releases = Releases(ledger)
    before = releases.line()
    if not releases.was_champion(bundle):
        raise ReleaseRefused(f"release {bundle[:12]} was never champion, so no restore leads to it", hint="restore a later back-up")
    known = releases.still_known(bundle, "rollback")
    lost = [each.bundle for each in releases.releases() if each.bundle not in held and each.made_at > taken_at]
    with ledger.writing() as connection:
        told = connection.execute(select(requests.c.id, requests.c.subject)).all()
        noted = Restored(
            backup=backup,
            taken_at=taken_at,
            owed=tuple(known),
            again=tuple(sorted(row.subject for row in told if row.id in again)),
            answers={request: tuple(sorted(closed)) for request, closed in sorted(again.items())},
            lost=tuple(sorted(lost)),
        )
        if before.champion != bundle:
            after = Line(epoch=before.epoch + 1, champion=bundle, previous=before.champion)
            swap = update(line).where(line.c.name == MODEL, line.c.epoch == before.epoch)
            assert connection.execute(swap.values(**after.canonical())).rowcount == 1, "nothing else works on what is restored"
            facts = {"epoch": after.epoch, "from_release": before.champion, "kind": "restore", "run": run}
            at = ledger.append(connection, "champion changed", bundle, facts)
            connection.execute(insert(promotions).values(**facts, release=bundle, at=at))
        newest = ledger.newest(EVENT, connection)
        plain = noted.canonical()
        if newest is None or json.loads(newest.facts) != json.loads(canonical_json(plain)):
            ledger.append(connection, EVENT, backup, plain)
    return noted
