"""How a run carries deletion requests out: it claims them, moves them state by state, and closes them with a receipt.

A claim gives a run an epoch, and every change names it: a run that slept while another took over is refused (`Fenced`), whatever it
does. A run that was killed leaves its requests as they stand; the next one takes them over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from e2urec_core.errors import RequestRefused
from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.request_book import Book, Values, record
from e2urec_core.ledger.request_records import IN_FLIGHT, Claim, RequestRecord, RequestRule, State

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Carrying:
    """What runs do with the requests of one ledger."""

    def __init__(self, ledger: Ledger, rule: RequestRule | None = None) -> None:
        """Keep requests in `ledger`, and treat them by `rule`; without one, as its fields say."""
        self._ledger, self.rule = ledger, rule or RequestRule()

    def claim(self, run: str, *, num_users: int, limit: int | None = None) -> Claim:
        """Give a run what is queued, those due first, under a new epoch; what comes in from now on waits for the next run.

        Of more users than the rule's share of all, only requests that a person has approved are claimed; the others then wait for one.
        What has failed before is claimed apart from what has not, and by halves, so that one that no method can carry out does not hold
        up the others for long. What was carried out before a rollback is in every claim: without it no champion can follow.

        Args:
            run: Name of the run.
            num_users: How many users the data has.
            limit: Most requests to claim; those beyond stay queued.
        """
        with self._changing() as book:
            epoch, unfinished = book.take_lock(run), book.in_states(IN_FLIGHT)
            allowed = max(1, math.floor(self.rule.approval_share * num_users))
            claimed: list[Values] = []
            users: set[str] = set()
            for row in _together(book):
                if len(claimed) == limit:
                    break
                if not row["approved"]:
                    if row["user_id"] not in users and len(users) == allowed:
                        book.move(row, "needs_human", epoch=epoch, run=run)
                        continue
                    users.add(row["user_id"])
                book.move(row, "claimed", epoch=epoch, run=run)
                claimed.append(row)
            return Claim(epoch=epoch, requests=tuple(map(record, claimed)), unfinished=tuple(map(record, unfinished)))

    def takeover(self, run: str) -> Claim:
        """Give a run what earlier runs have left unfinished, as it stands, under a new epoch; nothing new is claimed."""
        with self._changing() as book:
            epoch = book.take_lock(run)
            return Claim(epoch=epoch, requests=(), unfinished=tuple(map(record, book.in_states(IN_FLIGHT))))

    def refuse_fenced(self, epoch: int, connection: Connection | None = None) -> None:
        """Refuse where another run has claimed or taken over since; inside of a transaction of the ledger, until it ends.

        Raises:
            Fenced: The epoch has passed.
        """
        if connection is not None:
            Book(connection, "").holder(epoch)
            return
        with self._ledger.reading() as own:
            Book(own, "").holder(epoch)

    def advance(
        self,
        wanted: Sequence[str],
        to: Literal["built", "gated", "promoted", "needs_human"],
        *,
        epoch: int,
        model: str | None = None,
        release: str | None = None,
    ) -> list[RequestRecord]:
        """Move claimed requests one state on, all or none; those that are there already, with the same digests, stay as they are.

        Args:
            wanted: Their names.
            to: `promoted` needs a release that is or was champion.
            epoch: That of the claim.
            model: Digest of the recommender that forgets them, once it is known.
            release: Bundle of the release that forgets them, once it is known.

        Raises:
            Fenced: The epoch has passed.
            RequestRefused: It is not the next state.
        """
        given = {name: value for name, value in (("model", model), ("release", release)) if value is not None}
        with self._changing() as book:
            run, rows = book.holder(epoch), [book.find(request) for request in wanted]
            for row in rows:
                if row["state"] == to and given.items() <= row.items():
                    continue
                if to == "promoted":
                    book.refuse_unreached(row, given.get("release", row["release"]))
                book.carry(row, to, epoch=epoch, run=run, **given)
            return [record(row) for row in rows]

    def fail_back(self, wanted: Sequence[str], *, epoch: int) -> list[RequestRecord]:
        """Queue requests again whose night has failed, all or none; after the rule's number of nights they wait for a person.

        Raises:
            Fenced: The epoch has passed.
            RequestRefused: A request is not in a run's hands any more, or was promoted.
        """
        with self._changing() as book:
            run, rows = book.holder(epoch), [book.find(request) for request in wanted]
            for row in rows:
                if row["state"] in ("queued", "needs_human") and row["epoch"] == epoch:
                    continue
                if row["state"] == "promoted":
                    raise RequestRefused(
                        f"request {row['id']} is promoted: its night has not failed",
                        hint="purge it; or roll the champion back, and take it back (`Requests.take_back`)",
                    )
                failed = row["attempts"] + 1
                # Without one that was carried out before a rollback, no champion can follow.
                waits = failed < self.rule.max_attempts or book.was_promoted(row)
                to: State = "queued" if waits else "needs_human"
                book.carry(row, to, epoch=epoch, run=run, attempts=failed, model=None, release=None)
            return [record(row) for row in rows]

    def take_back(self, wanted: Sequence[str], *, epoch: int) -> list[RequestRecord]:
        """Queue promoted requests again whose release was rolled back, all or none; it counts as no failed night, and asks nobody again.

        Raises:
            Fenced: The epoch has passed.
            RequestRefused: One of them is not promoted, or the champion has forgotten whom it is about.
        """
        with self._changing() as book:
            run, rows = book.holder(epoch), [book.find(request) for request in wanted]
            for row in rows:
                if row["state"] == "queued" and row["epoch"] == epoch:
                    continue
                if row["state"] != "promoted":
                    raise RequestRefused(
                        f"request {row['id']} is {row['state']}; only what is promoted, and not purged yet, is taken back",
                        hint=f"`e2urec requests show {row['id']}` tells how it came there",
                    )
                if book.champion_forgets(row):
                    raise RequestRefused(
                        f"request {row['id']} is not taken back: the champion has forgotten whom it is about",
                        hint="purge it, or roll the champion back first (`e2urec models rollback`)",
                    )
                book.carry(row, "queued", epoch=epoch, run=run, model=None, release=None, approved=True)
            return [record(row) for row in rows]

    def erase_identity(self, wanted: Sequence[str], *, epoch: int) -> list[RequestRecord]:
        """Note that all data of promoted requests is purged, and forget whom they were about; their nonces stay until they are certified.

        Raises:
            Fenced: The epoch has passed.
            RequestRefused: One of them is not promoted; or a rollback has brought back a champion that knows whom it is about.
        """
        return self._finish(dict.fromkeys(wanted), "purged", epoch)

    def certify(self, receipts: Mapping[str, str], *, epoch: int) -> list[RequestRecord]:
        """Close purged requests, all or none, with the digests of their receipts; their nonces are dropped.

        Args:
            receipts: By the requests' names.
            epoch: That of the claim.

        Raises:
            Fenced: The epoch has passed.
            RequestRefused: One of them is not purged, or has another receipt.
        """
        return self._finish(receipts, "certified", epoch)

    def close_without_data(self, receipts: Mapping[str, str], *, epoch: int) -> list[RequestRecord]:
        """Close claimed requests of people whom the data does not know, all or none; whom they were about is erased.

        Args:
            receipts: Digests of their receipts, by the requests' names.
            epoch: That of the claim.

        Raises:
            Fenced: The epoch has passed.
            RequestRefused: One of them is not claimed, or has another receipt.
        """
        return self._finish(receipts, "no_data", epoch)

    @contextmanager
    def _changing(self) -> Iterator[Book]:
        with self._ledger.writing() as connection:
            book = Book(connection, self._ledger.now())
            yield book
            self._ledger.append_all(connection, book.told, book.at)
            if book.erased:
                self._ledger.mark_erased(connection)
        if book.erased:
            self._ledger.scrub()

    def _finish(self, receipts: Mapping[str, str | None], to: State, epoch: int) -> list[RequestRecord]:
        with self._changing() as book:
            run, rows = book.holder(epoch), [book.find(request) for request in receipts]
            for row in rows:
                noted = {} if (receipt := receipts[row["id"]]) is None else {"receipt": receipt}
                if not (row["state"] == to and noted.items() <= row.items()):
                    if to == "purged":
                        book.refuse_known_again(row)
                    book.carry(row, to, epoch=epoch, run=run, **noted)
            return [record(row) for row in rows]


def _together(book: Book) -> list[Values]:
    """The queued requests that one night takes."""
    queued = book.in_states(["queued"])
    fewest = min((row["attempts"] for row in queued), default=0)
    first = [row["id"] for row in queued if row["attempts"] == fewest]
    chosen = {*first[: math.ceil(len(first) / 2)]} if fewest else {*first}
    return [row for row in queued if row["id"] in chosen or book.was_promoted(row)]
