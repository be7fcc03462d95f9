"""Searches the workspace and its store for those whom a night has forgotten, before their requests are certified."""

from __future__ import annotations

from collections.abc import Sequence

from e2urec_core.ledger import FILE
from e2urec_core.scanning.scan import Scan
from e2urec_core.scanning.shelves import shelves_of
from e2urec_core.scanning.targets import Targets
from tasks._desk import Desk
from tasks.claims import Asked

_OPEN = tuple(f"{FILE} {part}" for part in ("table requests:", "table request_items:", "pages:"))
"""Where the ledger holds whom open requests are about, until these are purged and its file is written anew."""


def find_people(desk: Desk, asked: Sequence[Asked]) -> list[str]:
    """Places that still name somebody who is asked for, without those where the ledger does until their requests are purged.

    Raises:
        BadKey: The key of the pseudonyms is damaged, or others may read it.
    """
    found: dict[str, None] = {}
    whole = Targets.of_many(each.user_id for each in asked if not each.items)
    for targets in (*whole, *(Targets.of(each.user_id, each.items) for each in asked if each.items)):
        scan = Scan(desk.workspace, targets, shelves_of(desk.store, desk.workspace))
        scan.run()
        found |= dict.fromkeys(place for place in scan.result().places if not place.startswith(_OPEN))
    return [*found]
