"""Deletion requests from receipt to receipt: who has asked, how far each request has come, and which run may move it.

A request moves along the table `MOVES`, a transaction a step, and each step adds its event. Requests are never removed; whom they are
about is, as soon as it is not needed. Every call may be repeated after a kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select

from e2urec_core.errors import BadInput, KeyReused
from e2urec_core.ledger.carrying import Carrying
from e2urec_core.ledger.history import iso, verified
from e2urec_core.ledger.records import Event, Head
from e2urec_core.ledger.replay import compare_with_history
from e2urec_core.ledger.request_book import Book, Values, content_of, joined, key_digest, record, refusal
from e2urec_core.ledger.request_records import CLOSED, Identity, NewRequest, RequestRecord, Source, State
from e2urec_core.ledger.schema import events, requests

# How far another machine's clock may be ahead.
SKEW = timedelta(minutes=5)
_NAMED = 10


class Requests(Carrying):
    """The deletion requests of one ledger: what people do with them; what runs do is in `Carrying`."""

    def add(self, new: NewRequest, source: Source, key: str | None = None) -> RequestRecord:
        """Receive one request; see `add_all`."""
        return self.add_all([new], source, None if key is None else [key])[0]

    def add_all(self, wanted: Sequence[NewRequest], source: Source, keys: Sequence[str] | None = None) -> list[RequestRecord]:
        """Receive requests, all or none, and give what each has become; what was vouched for is queued at once.

        The same user and scope (and items) as in a request that waits is that request, extended to the later time; so is one that a
        run has claimed, if its data covers the time asked for. Anything later than that is a request of its own, for the next run.

        Args:
            wanted: What is asked for.
            source: Where it came in. `command` and `import` are vouched for by whoever runs them, `http` by the rule; `restore` repeats
                what was carried out before.
            keys: The caller's own name of each: one that was seen before gives the first answer. Only a digest of it is kept.

        Raises:
            BadInput: A request is dated after now.
            KeyReused: A name was given to a request of other content.
        """
        assert keys is None or len(keys) == len(wanted)
        trusted = source != "http" or self.rule.trust_http
        with self._changing() as book:
            _refuse_future(wanted, book.at)
            rows, reused = [], []
            for number, new in enumerate(wanted, 1):
                key = keys[number - 1] if keys else None
                known = book.key(key_digest(source, key)) if key else None
                if key and known:
                    row = book.find(known[0])
                    # Of a request that is closed nothing is left to compare with.
                    if known[1] not in (None, content_of(new, key)):
                        reused.append(number)
                else:
                    row = self._received(book, new, source, trusted=trusted)
                    if key:
                        book.keep_key(key_digest(source, key), content_of(new, key), row)
                rows.append(row)
            if reused:
                raise KeyReused(
                    f"{len(reused):,} of {len(wanted):,} requests come under names that were given to other requests before",
                    facts={"which, from 1": _listed(reused)},
                    hint="give a new request a new name, and an old one the content that it had",
                )
            return [record(row) for row in rows]

    def _received(self, book: Book, new: NewRequest, source: Source, *, trusted: bool) -> Values:
        until = iso(new.requested_at) if new.requested_at else book.at
        row = joined(book.alike(new), until, trusted=trusted)
        if row is None:
            row = book.add(new, source, covers_until=until, due_days=self.rule.due_days)
        elif row["covers_until"] < until:
            book.note(row, "request extended", covers_until=until)
        if trusted and row["state"] == "received":
            _queue(book, row)
        return row

    def verify_person(self, request: str) -> RequestRecord:
        """Note that it is the person who asks: the request is queued. One that was verified before stays as it is."""
        with self._changing() as book:
            row = book.find(request)
            if row["state"] in (*CLOSED, "legal_hold"):
                raise refusal(row, "verified")
            if row["state"] == "received":
                _queue(book, row)
            return record(row)

    def cancel(self, request: str) -> RequestRecord:
        """Withdraw a request that no run has claimed; whom it was about is erased.

        Raises:
            RequestRefused: A run has claimed it, or had carried it out before a rollback.
        """
        return self._close(request, "cancelled")

    def reject(self, request: str) -> RequestRecord:
        """Refuse a request that no run has claimed; whom it was about is erased.

        Raises:
            RequestRefused: See `cancel`.
        """
        return self._close(request, "rejected")

    def hold(self, request: str) -> RequestRecord:
        """Keep a request that no run has claimed from being carried out, because the law wants its data kept.

        Raises:
            RequestRefused: See `cancel`.
        """
        with self._changing() as book:
            row = book.find(request)
            if row["state"] != "legal_hold":
                book.refuse_carried_out(row, "held")
                book.move(row, "legal_hold", held_from=row["state"])
            return record(row)

    def release(self, request: str) -> RequestRecord:
        """End a legal hold: the request is what it was before. One that is not held stays as it is."""
        with self._changing() as book:
            row = book.find(request)
            if row["state"] == "legal_hold":
                book.move(row, row["held_from"], held_from=None)
            return record(row)

    def approve(self, request: str) -> RequestRecord:
        """Note that a person has looked at it: a request that waits for one is queued, and may be one of many in a night."""
        with self._changing() as book:
            row = book.find(request)
            if row["state"] not in ("queued", "needs_human"):
                raise refusal(row, "queued")
            if row["state"] == "needs_human":
                book.move(row, "queued", approved=True, attempts=0)
            elif not row["approved"]:
                book.note(row, "request approved", approved=True)
            return record(row)

    def expire(self) -> list[RequestRecord]:
        """Reject those that nobody has verified within the days of the rule."""
        with self._changing() as book:
            oldest = iso(datetime.fromisoformat(book.at) - timedelta(days=self.rule.verify_days))
            late = [row for row in book.in_states(["received"]) if row["received_at"] < oldest]
            for row in late:
                book.move(row, "rejected")
            return [record(row) for row in late]

    def requests(self, state: State | None = None) -> list[RequestRecord]:
        """Every request, or those in one state, in the order of arrival."""
        asked = select(requests).order_by(requests.c.number)
        with self._ledger.reading() as connection:
            rows = connection.execute(asked if state is None else asked.where(requests.c.state == state))
            return [record(dict(row._mapping)) for row in rows]

    def request(self, request: str) -> RequestRecord:
        """One request.

        Raises:
            UnknownRequest: There is none of this name.
        """
        with self._ledger.reading() as connection:
            return record(Book(connection, "").find(request))

    def identity(self, request: str) -> Identity:
        """Whom a request is about, as far as the ledger still holds it."""
        with self._ledger.reading() as connection:
            book = Book(connection, "")
            row = book.find(request)
            return Identity(user_id=row["user_id"], items=book.items(row), note=row["note"], nonce=row["nonce"])

    def history(self, request: str) -> list[Event]:
        """What has happened to a request, oldest first."""
        with self._ledger.reading() as connection:
            subject = Book(connection, "").find(request)["subject"]
            asked = select(events).where(events.c.subject == subject).order_by(events.c.seq)
            return [Event(**row._mapping) for row in connection.execute(asked)]

    def check(self) -> None:
        """Refuse where the ledger cannot be read.

        Raises:
            StorageFailed: It cannot be reached or read.
        """
        self._ledger.head()

    def verify(self, known: Head | None = None) -> Head:
        """Verify the history, and that requests and releases are what it says; see `Releases.verify`."""
        with self._ledger.reading() as connection:
            head = verified(connection, known)
            compare_with_history(connection)
            return head

    def _close(self, request: str, to: State) -> RequestRecord:
        with self._changing() as book:
            row = book.find(request)
            if row["state"] != to:
                book.refuse_carried_out(row, to)
                book.move(row, to)
            return record(row)


def _queue(book: Book, row: Values) -> None:
    book.move(row, "verified")
    book.move(row, "queued")


def _refuse_future(wanted: Sequence[NewRequest], at: str) -> None:
    newest = datetime.fromisoformat(at) + SKEW
    late = [number for number, new in enumerate(wanted, 1) if new.requested_at and new.requested_at > newest]
    if late:
        raise BadInput(
            f"{len(late):,} of {len(wanted):,} requests are dated after now, {at[:19]} UTC",
            facts={"which, from 1": _listed(late)},
            hint="write the time with its zone, such as 2026-01-31T12:00:00Z",
        )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_NAMED])) + (f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else "")
