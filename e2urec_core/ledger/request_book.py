"""The rows of deletion requests inside one transaction: each change of a row and the event that tells it, never one without the other.

An event holds no user, item, note or nonce. Those stand in the columns of `PERSONAL` and in two small tables, and are taken out again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from e2urec_core.artifacts import canonical_json
from e2urec_core.errors import Fenced, RequestRefused, UnknownRequest
from e2urec_core.ledger.history import iso
from e2urec_core.ledger.owed import asked_again
from e2urec_core.ledger.request_records import CLOSED, IN_FLIGHT, MOVES, UNCLAIMED, NewRequest, RequestRecord, Source, State, commitment_of
from e2urec_core.ledger.schema import MODEL, NIGHT, events, forgotten, line, promotions, request_items, request_keys, requests, runs_lock

PERSONAL = ("user_id", "note", "nonce")
"""Columns that events never tell."""

Values = dict[str, Any]


class Book:
    """Reads and changes requests in one transaction; `told` gathers the events and `erased` tells of people, for its owner."""

    def __init__(self, connection: Connection, at: str) -> None:
        """Work in the transaction `connection`, all of whose changes happen at the time `at`."""
        self.connection, self.at, self.erased = connection, at, False
        self.told: list[tuple[str, str, Mapping[str, Any]]] = []

    def find(self, request: str) -> Values:
        """The row of a request.

        Raises:
            UnknownRequest: There is none.
        """
        asked = select(requests).where(requests.c.id == request)
        # PostgreSQL takes no NUL, and what no request is called is not looked for.
        row = self.connection.execute(asked).one_or_none() if re.fullmatch(r"r-[0-9a-f]{16}", request) else None
        if row is None:
            raise UnknownRequest("the ledger does not hold this request", hint="`e2urec requests list` shows those that it holds")
        return dict(row._mapping)

    def in_states(self, states: Iterable[State]) -> list[Values]:
        """The rows in these states, those that are due first at the front."""
        asked = select(requests).where(requests.c.state.in_([*states])).order_by(requests.c.due_at, requests.c.number)
        return [dict(row._mapping) for row in self.connection.execute(asked)]

    def items(self, row: Values) -> tuple[str, ...]:
        """The items of a request, sorted."""
        asked = select(request_items.c.item_id).where(request_items.c.request == row["id"])
        return tuple(sorted(self.connection.execute(asked).scalars()))

    def alike(self, new: NewRequest) -> list[Values]:
        """The rows that ask for the same as `new` and still hold whom they are about, the newest first."""
        asked = select(requests).where(requests.c.user_id == new.user_id, requests.c.scope == new.scope)
        rows = [dict(row._mapping) for row in self.connection.execute(asked.order_by(requests.c.number.desc()))]
        return [row for row in rows if not new.items or self.items(row) == new.items]

    def add(self, new: NewRequest, source: Source, *, covers_until: str, due_days: int) -> Values:
        """A new row in the state `received`."""
        number = self.connection.execute(select(func.coalesce(func.max(requests.c.number), 0) + 1)).scalar_one()
        nonce = secrets.token_hex(32)
        row: Values = {
            "id": f"r-{secrets.token_hex(8)}",
            "number": number,
            "scope": new.scope,
            "reason": new.reason,
            "source": source,
            "commitment": commitment_of(nonce, new.user_id, new.items),
            "requested_at": iso(new.requested_at) if new.requested_at else self.at,
            "covers_until": covers_until,
            "due_at": iso(datetime.fromisoformat(self.at) + timedelta(days=due_days)),
            "approved": False,
            "attempts": 0,
        }
        subject = secrets.token_hex(10)
        self.told.append(("request received", subject, {"from": None, "to": "received", **row}))
        row |= dict.fromkeys(("held_from", "epoch", "run", "model", "release", "receipt"))
        row |= {"subject": subject, "received_at": self.at, "state": "received", "changed_at": self.at}
        row |= {"user_id": new.user_id, "note": new.note or None, "nonce": nonce}
        self.connection.execute(insert(requests).values(**row))
        if new.items:
            self.connection.execute(insert(request_items), [{"request": row["id"], "item_id": item} for item in new.items])
        return row

    def move(self, row: Values, to: State, **changes: Any) -> None:
        """Move `row` on, and change it as told; a request that is closed or purged loses whom it is about.

        Raises:
            RequestRefused: No such move leads from where it stands.
        """
        if to not in MOVES[row["state"]]:
            raise refusal(row, to)
        self._change(row, f"request {to.replace('_', ' ')}", to, changes)
        if to == "purged" or to in CLOSED:
            self._erase(row, nonce=to in CLOSED)

    def carry(self, row: Values, to: State, *, epoch: int, run: str, **changes: Any) -> None:
        """Move `row`, which a run has claimed, on in the name of the run that holds `epoch`.

        Raises:
            RequestRefused: No such move leads from where it stands, or no run has claimed it.
        """
        if row["state"] not in IN_FLIGHT:
            raise refusal(row, to)
        self.move(row, to, epoch=epoch, run=run, **changes)

    def note(self, row: Values, event: str, **changes: Any) -> None:
        """Change `row` as told, in the state that it is in."""
        self._change(row, event, row["state"], changes)

    def key(self, digest: str) -> tuple[str, str | None] | None:
        """The request that was first given the name with this digest, and what it then asked for; see `content_of`."""
        asked = select(request_keys.c.request, request_keys.c.content).where(request_keys.c.key == digest)
        row = self.connection.execute(asked).one_or_none()
        return None if row is None else (row.request, row.content)

    def keep_key(self, digest: str, content: str, row: Values) -> None:
        """Note that `row` was given the name with this digest."""
        self.connection.execute(insert(request_keys).values(key=digest, request=row["id"], content=content))

    def take_lock(self, run: str) -> int:
        """Begin a new epoch, whose holder is `run`."""
        epoch = int(self.connection.execute(select(runs_lock.c.epoch).where(runs_lock.c.name == NIGHT)).scalar_one()) + 1
        self.told.append(("requests taken", run, {"name": NIGHT, "epoch": epoch}))
        self.connection.execute(update(runs_lock).where(runs_lock.c.name == NIGHT).values(epoch=epoch, holder=run, taken_at=self.at))
        return epoch

    def holder(self, epoch: int) -> str:
        """The run whose epoch this is.

        Raises:
            Fenced: A later one has begun.
        """
        lock = self.connection.execute(select(runs_lock.c.epoch, runs_lock.c.holder).where(runs_lock.c.name == NIGHT)).one()
        if lock.epoch != epoch:
            raise Fenced(
                f"another run has taken the requests over: the epoch is {lock.epoch}, not {epoch}",
                hint="let that run finish; this one has nothing to do any more",
            )
        return str(lock.holder)

    def refuse_unreached(self, row: Values, release: str | None) -> None:
        """Refuse to call a request promoted whose release was never champion.

        Raises:
            RequestRefused: It was not.
        """
        reached = select(promotions.c.epoch).where(promotions.c.release == release).limit(1)
        if release is None or self.connection.execute(reached).first() is None:
            named = "no release" if release is None else f"release {release[:12]}, which was never champion,"
            raise RequestRefused(f"request {row['id']} names {named} as what forgets it", hint="promote the release first")

    def was_promoted(self, row: Values) -> bool:
        """Whether a request was ever promoted, or repeats one that was, so that no champion can follow without it."""
        # Who had asked anew before the restore is not asked for twice: that request stands for the undone one.
        if row["source"] == "restore" or row["subject"] in asked_again(self.connection):
            return True
        asked = select(events.c.seq).where(events.c.subject == row["subject"], events.c.event == "request promoted").limit(1)
        return self.connection.execute(asked).first() is not None

    def refuse_carried_out(self, row: Values, to: str) -> None:
        """Refuse to stop a request that was carried out before its champion was rolled back: no champion could follow without it.

        Raises:
            RequestRefused: It was.
        """
        if row["state"] in UNCLAIMED and self.was_promoted(row):
            raise RequestRefused(
                f"request {row['id']} was carried out before the champion was rolled back or a back-up restored: it cannot be {to}",
                hint="the next night carries it out again",
            )

    def champion_forgets(self, row: Values) -> bool:
        """Whether the champion has forgotten whom a request is about."""
        champion = self.connection.execute(select(line.c.champion).where(line.c.name == MODEL)).scalar_one()
        return self._forgets(champion, row)

    def refuse_known_again(self, row: Values) -> None:
        """Refuse to purge what a request's release has forgotten, and the champion, after a rollback, has not.

        Raises:
            RequestRefused: The champion knows it again.
        """
        if self._forgets(row["release"], row) and not self.champion_forgets(row):
            raise RequestRefused(
                f"request {row['id']} is promoted, and the champion was rolled back to one that still knows whom it is about",
                hint="take it back (`Requests.take_back`), so that the next run carries it out again",
            )

    def _forgets(self, bundle: str | None, row: Values) -> bool:
        asked = select(forgotten.c.subject).where(forgotten.c.release == bundle, forgotten.c.subject == row["subject"])
        return self.connection.execute(asked).first() is not None

    def _change(self, row: Values, event: str, to: State, changes: Mapping[str, Any]) -> None:
        self.told.append((event, row["subject"], {"from": row["state"], "to": to, **changes}))
        columns = {name: value for name, value in changes.items() if name in requests.c}
        columns |= {"state": to, "changed_at": self.at}
        self.connection.execute(update(requests).where(requests.c.id == row["id"]).values(**columns))
        row |= columns

    def _erase(self, row: Values, *, nonce: bool) -> None:
        gone: Values = dict.fromkeys(PERSONAL if nonce else ("user_id", "note"))
        self.connection.execute(update(requests).where(requests.c.id == row["id"]).values(**gone))
        self.connection.execute(delete(request_items).where(request_items.c.request == row["id"]))
        self.connection.execute(update(request_keys).where(request_keys.c.request == row["id"]).values(content=None))
        row |= gone
        self.erased = True


def refusal(row: Values, to: State) -> RequestRefused:
    """What is said of a move that may not be made."""
    if row["state"] == "legal_hold":
        onward = "back by `e2urec requests release` alone"
    else:
        onward = f"to {', '.join(MOVES[row['state']]) or 'nowhere'}"
    return RequestRefused(
        f"request {row['id']} is {row['state']}; from there it goes {onward}, not to {to}",
        hint=f"`e2urec requests show {row['id']}` tells how it came there",
    )


def joined(rows: list[Values], covers_until: str, *, trusted: bool) -> Values | None:
    """The request among `rows` that a new one like them is the same as; a claimed one only where its data covers the new one's time.

    What nobody has verified does not extend what somebody has, except what the law holds: a hold is not got round by asking again.
    """
    waiting = [row for row in rows if row["state"] in (UNCLAIMED if trusted else ("received", "legal_hold"))]
    covering = [row for row in rows if row["state"] in UNCLAIMED + IN_FLIGHT and row["covers_until"] >= covers_until]
    return next(iter(waiting + covering), None)


def key_digest(source: Source, key: str) -> str:
    """What is kept of a name that a source has given to a request: SHA-256, 64 hex digits."""
    return hashlib.sha256(f"{source}:{key}".encode()).hexdigest()


def content_of(new: NewRequest, key: str) -> str:
    """What is kept of a request's content, to see later whether the same name comes with another: HMAC-SHA256 keyed by the name."""
    return hmac.new(key.encode(), canonical_json(new.canonical()).encode(), hashlib.sha256).hexdigest()


def record(row: Values) -> RequestRecord:
    """The row without the person."""
    return RequestRecord.model_validate({name: row[name] for name in RequestRecord.model_fields})
