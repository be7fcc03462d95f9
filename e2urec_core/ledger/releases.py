"""Releases and the line of champions: who may become champion, decided and written in one transaction.

Rows are added and filled in, never removed. A champion has passed its gates, was judged against the champion it replaces, and has
forgotten everybody whom a champion has ever forgotten. The way back leads also to one that knows people whose requests were carried out
and whose data is not purged yet: their requests are then taken back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from e2urec_core.artifacts import canonical_json
from e2urec_core.errors import ChampionChanged, ReleaseRefused, UnknownRelease
from e2urec_core.ledger.history import Ledger, verified
from e2urec_core.ledger.owed import settled
from e2urec_core.ledger.records import DIGEST, Head, Line, Promotion, Release, ReleaseRecord
from e2urec_core.ledger.replay import compare_with_history
from e2urec_core.ledger.schema import MODEL, forgotten, line, promotions, releases, requests

_SUBJECT = r"^[0-9a-f]{20}$"
_NAMED = 5


class Releases:
    """The releases of one ledger, and their line of champions."""

    def __init__(self, ledger: Ledger) -> None:
        """Keep releases in `ledger`."""
        self._ledger = ledger

    def add(self, release: Release, has_forgotten: Mapping[str, str]) -> ReleaseRecord:
        """Note a release; the same one again changes nothing.

        Args:
            release: As it was built and judged.
            has_forgotten: Everybody whom its model has forgotten, those that its base had forgotten included: pseudonym to the digest
                of the request.

        Raises:
            UnknownRelease: Its base is not in the ledger.
        """
        assert all(re.fullmatch(_SUBJECT, subject) for subject in has_forgotten), "a subject is not 20 hex digits"
        assert all(re.fullmatch(DIGEST, request) for request in has_forgotten.values()), "a request is not a digest"
        with self._ledger.writing() as connection:
            known = connection.execute(select(releases).where(releases.c.bundle == release.bundle)).one_or_none()
            if known is not None:
                same = _content(known) == release and _forgotten_by(connection, release.bundle) == dict(has_forgotten)
                assert same, "a bundle's digest stands for one release"
                return _record(known)
            if release.base is not None:
                _find(connection, release.base)
            number = connection.execute(select(func.coalesce(func.max(releases.c.number), 0) + 1)).scalar_one()
            plain = release.canonical()
            at = self._ledger.append(connection, "release added", release.bundle, plain | {"forgotten": dict(has_forgotten)})
            row = plain | {"verdict": canonical_json(plain["verdict"]), "number": number, "made_at": at}
            connection.execute(insert(releases).values(**row))
            if has_forgotten:
                rows = [{"release": release.bundle, "subject": subject, "request": has_forgotten[subject]} for subject in has_forgotten]
                connection.execute(insert(forgotten), rows)
            return _record(_find(connection, release.bundle))

    def registered(self, bundle: str, version: int) -> ReleaseRecord:
        """Note that the release of `bundle` is `version` of the registered model; the same again changes nothing.

        Raises:
            UnknownRelease: No release has this bundle.
            ReleaseRefused: It is registered as another version, or another release is this version.
        """
        with self._ledger.writing() as connection:
            row = _find(connection, bundle)
            if row.registry_version is None:
                taken = connection.execute(select(releases.c.bundle).where(releases.c.registry_version == version)).scalar_one_or_none()
                if taken is not None:
                    raise ReleaseRefused(
                        f"version {version} is another release's: {taken[:12]}, not {bundle[:12]}",
                        hint="look into the model registry: somebody has registered or deleted versions beside the ledger",
                    )
                change = update(releases).where(releases.c.bundle == bundle)
                at = self._ledger.append(connection, "release registered", bundle, {"version": version})
                connection.execute(change.values(registry_version=version, registered_at=at))
            elif row.registry_version != version:
                raise ReleaseRefused(
                    f"release {bundle[:12]} is registered as version {row.registry_version}, not {version}",
                    hint=f"use version {row.registry_version}; the other is a copy",
                )
            return _record(_find(connection, bundle))

    def line(self) -> Line:
        """Who is champion now."""
        with self._ledger.reading() as connection:
            return _line(connection)

    def promote(self, release: int | str, *, seen_epoch: int, kind: Promotion, run: str) -> Line:
        """Make a release champion, if the champion is still the one that was seen; for the champion itself, nothing changes.

        Args:
            release: Its version, or its bundle.
            seen_epoch: Epoch of the line on which this was decided.
            kind: `promote`, or `rollback` to what was champion before.
            run: Name of the run that asks for it.

        Raises:
            UnknownRelease: The ledger does not hold it.
            ChampionChanged: Somebody was quicker.
            ReleaseRefused: It is not registered; failed its gates or was judged against another champion (`promote`); was never
                champion (`rollback`); or still knows somebody whom a champion has forgotten, which at a `rollback` goes for those alone
                whose request is not in the state `promoted`.
        """
        with self._ledger.writing() as connection:
            row, before = _find(connection, release), _line(connection)
            if before.champion == row.bundle:
                return before
            swap = update(line).where(line.c.name == MODEL, line.c.epoch == seen_epoch)
            after = Line(epoch=seen_epoch + 1, champion=row.bundle, previous=before.champion)
            if connection.execute(swap.values(**after.canonical())).rowcount == 0:
                raise _changed(connection, seen_epoch, before)
            _refuse_unfit(connection, row, before, kind)
            noted: dict[str, Any] = {"epoch": after.epoch, "from_release": before.champion, "kind": kind, "run": run}
            at = self._ledger.append(connection, "champion changed", row.bundle, noted)
            connection.execute(insert(promotions).values(**noted, release=row.bundle, at=at))
            return after

    def check(self, release: int | str, kind: Promotion) -> None:
        """Refuse what `promote` would refuse as things are now, without doing anything.

        Raises:
            UnknownRelease: The ledger does not hold it.
            ReleaseRefused: See `promote`.
        """
        with self._ledger.reading() as connection:
            row, before = _find(connection, release), _line(connection)
            if before.champion != row.bundle:
                _refuse_unfit(connection, row, before, kind)

    def was_champion(self, bundle: str) -> bool:
        """Whether a release is or ever was champion."""
        with self._ledger.reading() as connection:
            return _reached(connection, bundle)

    def release(self, release: int | str) -> ReleaseRecord:
        """The release of a version or bundle.

        Raises:
            UnknownRelease: The ledger does not hold it.
        """
        with self._ledger.reading() as connection:
            return _record(_find(connection, release))

    def find(self, bundle: str) -> ReleaseRecord | None:
        """The release of a bundle, if the ledger holds it."""
        with self._ledger.reading() as connection:
            row = connection.execute(select(releases).where(releases.c.bundle == bundle)).one_or_none()
            return None if row is None else _record(row)

    def releases(self) -> list[ReleaseRecord]:
        """All releases, newest first."""
        with self._ledger.reading() as connection:
            return [_record(row) for row in connection.execute(select(releases).order_by(releases.c.number.desc()))]

    def forgotten_by(self, release: int | str) -> dict[str, str]:
        """Whom a release has forgotten: pseudonym to the digest of the request.

        Raises:
            UnknownRelease: The ledger does not hold it.
        """
        with self._ledger.reading() as connection:
            return _forgotten_by(connection, _find(connection, release).bundle)

    def completed(self) -> dict[str, int]:
        """Everybody whom a release that was ever champion had forgotten: pseudonym to the version of the first such champion."""
        with self._ledger.reading() as connection:
            return _completed(connection)

    def still_known(self, release: int | str, kind: Promotion = "promote") -> list[str]:
        """Pseudonyms of those in `completed` whom a release has not forgotten, sorted.

        Args:
            release: Its version, or its bundle.
            kind: `promote` for all; `rollback` for those who bar the way back to it: all but whoever's request is `promoted`.

        Raises:
            UnknownRelease: The ledger does not hold it.
        """
        with self._ledger.reading() as connection:
            return sorted(_still_known(connection, _find(connection, release).bundle, kind))

    def verify(self, known: Head | None = None) -> Head:
        """Verify the history, and that every release, promotion and the line are what it says.

        Args:
            known: A head that was seen before; the chain must pass through it.

        Raises:
            DamagedLedger: Something was edited; names the first event or row.
        """
        with self._ledger.reading() as connection:
            head = verified(connection, known)
            compare_with_history(connection)
            return head


def _refuse_unfit(connection: Connection, row: Row[Any], before: Line, kind: Promotion) -> None:
    if row.registry_version is None:
        raise ReleaseRefused(f"release {row.bundle[:12]} is not registered", hint="register it first")
    who = f"version {row.registry_version}"
    if kind == "promote" and not row.passed:
        raise ReleaseRefused(f"{who} has failed its gates", hint="read its verdict; what has failed is not promoted")
    if kind == "promote" and row.judged_against != (before.champion or ""):
        raise ReleaseRefused(
            f"{who} was judged against {_named(connection, row.judged_against)}, the champion is {_named(connection, before.champion)}",
            hint="judge it against the champion and make a release of it again",
        )
    if kind == "rollback" and not _reached(connection, row.bundle):
        raise ReleaseRefused(f"{who} was never champion, so there is no way back to it", hint="promote it, if it has passed its gates")
    known = _still_known(connection, row.bundle, kind)
    if known:
        named = sorted(known)[:_NAMED]
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        raise ReleaseRefused(
            f"{who} still knows {len(known)} of those who were forgotten: {', '.join(named)}{more}",
            facts={subject: f"version {known[subject]} has forgotten it" for subject in named},
            hint="make them forgotten from it, and release what comes out",
        )


def _reached(connection: Connection, bundle: str) -> bool:
    return connection.execute(select(promotions.c.epoch).where(promotions.c.release == bundle).limit(1)).first() is not None


def _changed(connection: Connection, seen_epoch: int, now: Line) -> ChampionChanged:
    seen = connection.execute(select(promotions.c.release).where(promotions.c.epoch == seen_epoch)).scalar_one_or_none()
    return ChampionChanged(
        f"the champion changed from {_named(connection, seen)} to {_named(connection, now.champion)} meanwhile",
        facts={"epoch that was seen": seen_epoch, "epoch now": now.epoch},
        hint="judge the release against the new champion",
    )


def _named(connection: Connection, bundle: str | None) -> str:
    if not bundle:
        return "none"
    version = connection.execute(select(releases.c.registry_version).where(releases.c.bundle == bundle)).scalar_one_or_none()
    return f"release {bundle[:12]}" if version is None else f"version {version}"


def _find(connection: Connection, release: int | str) -> Row[Any]:
    column = releases.c.registry_version if isinstance(release, int) else releases.c.bundle
    row = connection.execute(select(releases).where(column == release)).one_or_none()
    if row is None:
        named = f"version {release}" if isinstance(release, int) else f"release {release[:12]}"
        raise UnknownRelease(f"the ledger does not hold {named}", hint="name one of those that it holds")
    return row


def _line(connection: Connection) -> Line:
    row = connection.execute(select(line.c.epoch, line.c.champion, line.c.previous).where(line.c.name == MODEL)).one()
    return Line(**row._mapping)


def _completed(connection: Connection) -> dict[str, int]:
    joined = promotions.join(releases, releases.c.bundle == promotions.c.release).join(forgotten, forgotten.c.release == releases.c.bundle)
    # The newest first, so that the oldest is what stays.
    rows = connection.execute(
        select(forgotten.c.subject, releases.c.registry_version).select_from(joined).order_by(promotions.c.epoch.desc())
    )
    return {row.subject: row.registry_version for row in rows}


def _still_known(connection: Connection, bundle: str, kind: Promotion) -> dict[str, int]:
    gone = {*_forgotten_by(connection, bundle)}
    if kind == "rollback":
        gone |= {*connection.execute(select(requests.c.subject).where(requests.c.state == "promoted")).scalars()}
    gone |= settled(connection, gone)
    return {subject: version for subject, version in _completed(connection).items() if subject not in gone}


def _forgotten_by(connection: Connection, bundle: str) -> dict[str, str]:
    rows = connection.execute(select(forgotten.c.subject, forgotten.c.request).where(forgotten.c.release == bundle))
    return {row.subject: row.request for row in rows}


def _content(row: Row[Any]) -> Release:
    return Release.model_validate({name: row._mapping[name] for name in Release.model_fields} | {"verdict": json.loads(row.verdict)})


def _record(row: Row[Any]) -> ReleaseRecord:
    return ReleaseRecord.model_validate(
        {name: row._mapping[name] for name in ReleaseRecord.model_fields} | {"verdict": json.loads(row.verdict)}
    )
