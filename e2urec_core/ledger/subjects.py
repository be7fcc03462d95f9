"""Random names of those whom releases have forgotten, and the keyed marks by which they are found again.

The history of releases can never be shortened, so it names everybody by a random number. Which number is whose stands in one table,
under marks that say nothing without the workspace's key, and goes when that person's data are purged.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection

from sqlalchemy import delete, insert, or_, select

from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.schema import subject_marks
from e2urec_core.pseudonyms import PSEUDONYM_DIGITS, Pseudonyms

Pair = tuple[str, str]


class Subjects:
    """Whom the releases of one ledger have forgotten without a request of the ledger's own, whose subjects are random already."""

    def __init__(self, ledger: Ledger, names: Pseudonyms) -> None:
        """Keep marks in `ledger`, made by `names`."""
        self._ledger, self._names = ledger, names

    def of(self, users: Collection[str], pairs: Collection[Pair]) -> list[str]:
        """Subjects of users and of single interactions, 20 hex digits each, sorted; drawn for those who have none.

        Args:
            users: By the data's own names.
            pairs: Users and items, likewise.
        """
        owners = {self._names.of_user(user): self._names.of_user(user) for user in users}
        owners |= {self._names.of_interaction(user, item): self._names.of_user(user) for user, item in pairs}
        with self._ledger.writing() as connection:
            held = {row.mark: row.subject for row in connection.execute(select(subject_marks)) if row.mark in owners}
            # In the order of the marks, which says nothing of the order in which people were named.
            drawn = {mark: secrets.token_hex(PSEUDONYM_DIGITS // 2) for mark in sorted(owners.keys() - held.keys())}
            if drawn:
                rows = [{"mark": mark, "user_mark": owners[mark], "subject": subject} for mark, subject in drawn.items()]
                connection.execute(insert(subject_marks), rows)
        return sorted((held | drawn).values())

    def by_mark(self) -> dict[str, str]:
        """All subjects that can still be told, by the pseudonym of the user or of the interaction."""
        with self._ledger.reading() as connection:
            return {row.mark: row.subject for row in connection.execute(select(subject_marks))}

    def owners(self) -> dict[str, str]:
        """The pseudonym of the user, by that of the user or of the interaction, of all subjects that can still be told."""
        with self._ledger.reading() as connection:
            return {row.mark: row.user_mark for row in connection.execute(select(subject_marks))}

    def erase(self, users: Collection[str], pairs: Collection[Pair]) -> int:
        """Forget whose subjects those of users and of all their interactions are, and those of single interactions; returns how many."""
        whole = [self._names.of_user(user) for user in users]
        single = [self._names.of_interaction(*pair) for pair in pairs]
        gone = 0
        with self._ledger.writing() as connection:
            for mark in (*whole, *single):
                same = or_(subject_marks.c.mark == mark, subject_marks.c.user_mark == mark)
                gone += connection.execute(delete(subject_marks).where(same)).rowcount
            if gone:
                self._ledger.mark_erased(connection)
        if gone:
            self._ledger.scrub()
        return gone
