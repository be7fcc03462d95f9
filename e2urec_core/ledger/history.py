"""The ledger's history: events that are only ever added, each sealed with the hash of the one before.

Whoever changes a state adds its event in the same transaction. Database triggers refuse changes; what gets around them is found by
`Ledger.verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, Select, insert, select, update

from e2urec_core.artifacts import canonical_json, digest_of
from e2urec_core.errors import DamagedLedger
from e2urec_core.ledger.database import Database
from e2urec_core.ledger.records import Event, Head
from e2urec_core.ledger.schema import GENESIS, events, fingerprints, heads

_HEAD = select(heads.c.seq, heads.c.hash).where(heads.c.name == events.name)
_BACKUP = "find out who has edited the ledger, and put its newest backup in its place"


class Ledger:
    """An open ledger: its transactions and its history; `Releases` and whatever else keeps tables in it are given one."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        """Keep the history of `database`; see `open_ledger`."""
        self._database, self._clock = database, clock
        self.reading, self.mark_erased, self.scrub = database.reading, database.mark_erased, database.scrub

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; transactions that write follow one another, in every database."""
        with self._database.writing() as connection:
            _head(connection, _HEAD.with_for_update())
            yield connection

    def append(self, connection: Connection, event: str, subject: str, facts: Mapping[str, Any]) -> str:
        """Add an event to the transaction in `connection`, and give its time, which is also that of the change it tells.

        Args:
            connection: A transaction of `writing`.
            event: What happened, at most 64 characters.
            subject: To what: a digest, a pseudonym or a name, at most 128 characters; never a user's identifier.
            facts: The particulars, plain JSON.
        """
        at = self.now()
        self.append_all(connection, [(event, subject, facts)], at)
        return at

    def append_all(self, connection: Connection, told: Sequence[tuple[str, str, Mapping[str, Any]]], at: str) -> None:
        """Add several events to the transaction in `connection`, all of one time; each is told as in `append`."""
        head, links = _head(connection), []
        for event, subject, facts in told:
            link = {"seq": head.seq + 1, "at": at, "event": event, "subject": subject, "facts": canonical_json(facts)}
            link["previous"] = head.hash
            head = Head(seq=head.seq + 1, hash=digest_of(link))
            links.append(link | {"hash": head.hash})
        if links:
            connection.execute(insert(events), links)
            connection.execute(update(heads).where(heads.c.name == events.name).values(seq=head.seq, hash=head.hash))

    def now(self) -> str:
        """What the clock says, as it is written beside events: ISO 8601, UTC, microseconds; later times are later texts."""
        return iso(self._clock())

    def events(self) -> list[Event]:
        """The whole history, oldest first; not verified."""
        with self.reading() as connection:
            return [Event(**row._mapping) for row in connection.execute(select(events).order_by(events.c.seq))]

    def newest(self, event: str, connection: Connection) -> Event | None:
        """The newest event of one kind, if there is one."""
        asked = select(events).where(events.c.event == event).order_by(events.c.seq.desc()).limit(1)
        row = connection.execute(asked).one_or_none()
        return None if row is None else Event(**row._mapping)

    def head(self) -> Head:
        """The newest event's place and hash, to be kept elsewhere."""
        with self.reading() as connection:
            return _head(connection)

    def verify(self, known: Head | None = None) -> Head:
        """Walk the whole chain and compare its end with the head.

        Args:
            known: A head that was seen before; the chain must pass through it.

        Raises:
            DamagedLedger: An event was edited, dropped, moved or cut off; names the first.
        """
        with self.reading() as connection:
            return verified(connection, known)

    def keep_fingerprint(self, name: str, digest: str) -> str:
        """The fingerprint kept under `name`: the first `digest` that was ever given, whatever is given now."""
        with self.writing() as connection:
            kept = _fingerprint(connection, name)
            if kept is None:
                connection.execute(insert(fingerprints).values(name=name, digest=digest))
                self.append(connection, "fingerprint kept", name, {"digest": digest})
            return kept or digest

    def fingerprint(self, name: str) -> str | None:
        """The fingerprint kept under `name`, if there is one."""
        with self.reading() as connection:
            return _fingerprint(connection, name)


def iso(moment: datetime) -> str:
    """A time with its zone as the ledger writes it: ISO 8601, UTC, microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def verified(connection: Connection, known: Head | None = None) -> Head:
    """Walk the chain as one transaction sees it; see `Ledger.verify`."""
    last, passed = Head(seq=0, hash=GENESIS), known is None or known.seq == 0
    for row in connection.execute(select(events).order_by(events.c.seq)):
        if row.seq != last.seq + 1:
            raise _broken(last.seq + 1, "is missing")
        if row.previous != last.hash:
            raise _broken(row.seq, "does not follow the one before it")
        if row.hash != _sealed(row):
            raise _broken(row.seq, "is not what was written")
        if known is not None and row.seq == known.seq:
            if row.hash != known.hash:
                raise _broken(row.seq, "is not the one that was seen before")
            passed = True
        last = Head(seq=row.seq, hash=row.hash)
    head = _head(connection)
    if head != last:
        raise _broken(min(last.seq, head.seq) + 1, f"is missing: the last event is {last.seq}, the head says {head.seq}")
    if not passed:
        raise _broken(last.seq + 1, "is missing: it was seen before")
    return last


def _head(connection: Connection, asked: Select[Any] = _HEAD) -> Head:
    row = connection.execute(asked).one_or_none()
    try:
        return Head.model_validate(row._asdict() if row else {})
    except ValidationError:
        raise DamagedLedger("the head of the ledger's history is missing or was altered", hint=_BACKUP) from None


def _fingerprint(connection: Connection, name: str) -> str | None:
    return connection.execute(select(fingerprints.c.digest).where(fingerprints.c.name == name)).scalar_one_or_none()


def _sealed(row: Row[Any]) -> str | None:
    link = dict(row._mapping)
    del link["hash"]
    try:
        return digest_of(link)
    except TypeError:
        # Somebody has put bytes where a text was.
        return None


def _broken(seq: int, said: str) -> DamagedLedger:
    return DamagedLedger(
        f"event {seq} of the ledger's history {said}",
        hint=_BACKUP,
    )
