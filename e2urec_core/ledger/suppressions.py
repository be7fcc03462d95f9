"""The suppression list: keyed marks of whom and what was forgotten, so that an old export does not bring them back.

Entries are added and their moments moved on, never removed. Neither the table nor the history holds a name; the key lies beside the
ledger, in a file of its own, and the ledger keeps its fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, insert, select, update

from e2urec_core.data.suppressed import Marks, Suppressed
from e2urec_core.errors import DamagedLedger
from e2urec_core.ledger import ledger_place, open_ledger
from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.schema import suppressions
from e2urec_core.secret_key import SecretKey

FILE, VARIABLE = Path("keys", "suppression.key"), "E2UREC_SUPPRESSION_KEY"
# Stands in the place of an item's mark where a whole user is meant.
WHOLE_USER = ""
_EVENT = "suppression kept"
_KEY = SecretKey("the key of the suppression list", VARIABLE)


class Suppressions:
    """The suppression list of one ledger."""

    def __init__(self, ledger: Ledger, marks: Marks) -> None:
        """Keep entries in `ledger`, under `marks`."""
        self._ledger, self._marks = ledger, marks

    def add(self, users: Mapping[str, datetime], pairs: Mapping[tuple[str, str], datetime]) -> int:
        """Keep out rows up to a moment from now on, all or none; of an entry that exists the later moment stays.

        Args:
            users: Users by the data's own names, with the moments, which have a zone.
            pairs: Users and items of single interactions, likewise.

        Returns:
            How many entries are new or have moved; the same again changes nothing.
        """
        wanted = {(self._marks.of_user(user), WHOLE_USER): _seconds(until) for user, until in users.items()}
        for (user, item), until in pairs.items():
            wanted[self._marks.of_user(user), self._marks.of_pair(user, item)] = _seconds(until)
        with self._ledger.writing() as connection:
            held = {(row.user_mark, row.item_mark): row.until_s for row in connection.execute(select(suppressions))}
            # In the order of the marks, which says nothing of the order in which people were named.
            later = {key: wanted[key] for key in sorted(wanted) if wanted[key] > held.get(key, -1)}
            rows = [{"user_mark": user, "item_mark": item, "until_s": until} for (user, item), until in later.items()]
            for row in rows:
                if (row["user_mark"], row["item_mark"]) in held:
                    same = (suppressions.c.user_mark == row["user_mark"]) & (suppressions.c.item_mark == row["item_mark"])
                    connection.execute(update(suppressions).where(same).values(until_s=row["until_s"]))
                else:
                    connection.execute(insert(suppressions).values(**row))
            told = [(_EVENT, str(row["user_mark"]), {"item_mark": row["item_mark"], "until_s": row["until_s"]}) for row in rows]
            self._ledger.append_all(connection, told, self._ledger.now())
        return len(later)

    def entries(self) -> Suppressed:
        """The whole list, as the gate reads it."""
        users: dict[str, int] = {}
        pairs: dict[str, dict[str, int]] = {}
        with self._ledger.reading() as connection:
            for row in connection.execute(select(suppressions)):
                if row.item_mark == WHOLE_USER:
                    users[row.user_mark] = row.until_s
                else:
                    pairs.setdefault(row.user_mark, {})[row.item_mark] = row.until_s
        return Suppressed(users, pairs, self._marks)


def open_suppressions(workspace: Path, ledger: Ledger) -> Suppressions:
    """The suppression list of a workspace, by the key in `E2UREC_SUPPRESSION_KEY`, or by its file, which is drawn on first use.

    Args:
        workspace: Its folder `keys` holds the file.
        ledger: Keeps the list, and the fingerprint of the first key that was ever used.

    Raises:
        BadKey: The key is missing, malformed, open to others, or not the one used so far.
        StorageFailed: The file cannot be read or written.
    """
    return Suppressions(ledger, Marks(_KEY.open(workspace, FILE, ledger, made="suppression marks")))


def suppressed_in(workspace: Path) -> Suppressed:
    """The suppression list of a workspace as the gate reads it; empty where there is no ledger. Neither ledger nor key is made here.

    Raises:
        BadKey: There are entries, and their key is not at hand.
        DamagedLedger: The workspace has the key of a list, and no ledger; or the ledger is not what was written.
        StorageFailed: The ledger or the key cannot be read.
    """
    place = ledger_place(workspace)
    if isinstance(place, Path) and not place.exists():
        if (workspace / FILE).exists():
            raise DamagedLedger(
                "the workspace has the key of a suppression list, and its ledger is gone",
                facts={"ledger": place, "key": workspace / FILE},
                hint="put the ledger's newest backup in its place, or everybody who was forgotten comes back",
            )
        return Suppressed()
    ledger = open_ledger(place)
    with ledger.reading() as connection:
        if connection.execute(select(suppressions).limit(1)).first() is None:
            return Suppressed()
    return open_suppressions(workspace, ledger).entries()


def told_suppressions(events: Iterable[Row[Any]]) -> list[dict[str, Any]]:
    """The rows of the table as the history says.

    Args:
        events: The history, oldest first; events about anything else are passed over.
    """
    told = {}
    for event in events:
        if event.event == _EVENT:
            facts = json.loads(event.facts)
            told[event.subject, facts["item_mark"]] = {"user_mark": event.subject, **facts}
    return [*told.values()]


def _seconds(moment: datetime) -> int:
    assert moment.tzinfo is not None, "a moment has its zone"
    return int((moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() // 1)
