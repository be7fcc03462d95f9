"""Puts a back-up in place as a new workspace, and sees to it that whoever was forgotten since is forgotten again.

The newest ledger is the truth: with `since`, the restored workspace takes ledger, receipts and keys from there, and from the back-up the
store, the models and the runs. Everything is prepared beside the workspace's place and moved there at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.backup import copying
from e2urec_core.backup.manifest import FILE, FILES, Manifest, verified_backup
from e2urec_core.errors import BadInput, BadSetting, NotRestorable
from e2urec_core.failpoints import failpoint
from e2urec_core.ledger import FILE as LEDGER
from e2urec_core.ledger import ledger_place, open_ledger
from e2urec_core.receipts.chain import FOLDER as RECEIPTS
from e2urec_core.receipts.folder import links_of, read_link

if TYPE_CHECKING:
    from e2urec_core.ledger.history import Ledger
    from e2urec_core.ledger.owed import Restored
    from e2urec_core.ledger.records import ReleaseRecord
    from e2urec_core.ledger.requests import Requests
    from e2urec_core.store import Store
    from tasks.restore import KnownAgain

RUN = "restore"


@dataclass(frozen=True)
class Restoration:
    """What has come of a restore.

    Args:
        manifest: Of the back-up.
        version: Of the champion that it has brought back; None where there is none.
        again: Names of the requests by which people are forgotten again.
        lost: How many releases the history tells of and the back-up does not hold.
        missing_keys: Names of keys that must be put back by hand.
    """

    manifest: Manifest
    version: int | None = None
    again: tuple[str, ...] = ()
    lost: int = 0
    missing_keys: tuple[str, ...] = ()


def restore(folder: Path, workspace: Path, *, since: Path | None, nothing_since: bool) -> Restoration:
    """Make a back-up the workspace `workspace`, all or nothing.

    Args:
        folder: Of the back-up.
        workspace: A new folder, or an empty one.
        since: The workspace of which it was taken, or a later back-up of that: tells of deletions since.
        nothing_since: Whether somebody vouches that nobody was forgotten since.

    Raises:
        BadSetting: Neither is told, or both.
        DamagedBackup: The back-up, or the later one, is not what was copied; nothing was written.
        NotRestorable: What is told of the deletions since does not go on from the back-up.
        DamagedLedger: The later ledger's tables are not what its history says, or it does not contain the back-up's.
        BadKey: A key is missing without which nobody who was forgotten is found.
        BadInput: The workspace's folder is not empty.
    """
    if (since is None) != nothing_since:
        raise BadSetting(
            "a back-up knows nobody who was forgotten after it was taken: it must be told, or vouched for that there is nobody",
            hint="`--deletions-since WORKSPACE_OR_LATER_BACKUP`; or `--no-deletions-since` if no request was closed since",
        )
    if workspace.is_relative_to(folder):
        raise BadInput("a workspace cannot lie in a back-up", facts={"folder": workspace}, hint="name one outside of it with `--workspace`")
    manifest = verified_backup(folder)
    if not manifest.whole:
        raise NotRestorable(
            "this back-up tells of deletions alone", hint="restore a whole one, and name this one behind `--deletions-since`"
        )
    if manifest.server_ledger and since is None:
        raise NotRestorable(
            "the ledger of this back-up lies in a database server and may be newer",
            hint="name where its keys and receipts are: `--deletions-since`",
        )
    with ExitStack() as held, copying.beside(workspace) as part:
        source = None if since is None else held.enter_context(_source(since.expanduser().absolute()))
        copying.copy_all([folder / FILES / name for name in manifest.files], folder / FILES, part)
        failpoint("restore.copied")
        noted = None if source is None else _deletions_since(part, source, manifest)
        version, waiting = _left(part)
        _move(part, Path(manifest.workspace), workspace)
        there = copying.key_names(part)
        for lock in part.rglob("*.lock"):
            lock.unlink()
        failpoint("restore.prepared")
    missing = tuple(key for key in manifest.keys_left_out if key not in there)
    return Restoration(manifest, version, waiting, len(noted.lost) if noted else 0, missing)


@contextmanager
def _source(since: Path) -> Iterator[Path]:
    """The folder, laid out as a workspace, that tells of the deletions since; no night works in it meanwhile."""
    from flows.night_running import alone

    backed_up = (since / FILE).exists()
    if backed_up:
        verified_backup(since)
        since /= FILES
    if isinstance(ledger_place(since), Path) and not (since / LEDGER).exists():
        raise NotRestorable(
            "there is no ledger in the folder that is to tell of deletions since", facts={"folder": since}, hint="name another one"
        )
    with nullcontext() if backed_up else alone(since, take_over=False):
        yield since


def _left(part: Path) -> tuple[int | None, tuple[str, ...]]:
    """Version of the champion, and names of the requests that stand for undone deletions."""
    from e2urec_core.ledger.owed import Owed
    from e2urec_core.ledger.releases import Releases

    place = ledger_place(part)
    if isinstance(place, Path) and not place.exists():
        return None, ()
    ledger = open_ledger(place)
    champion = Releases(ledger).line().champion
    return Releases(ledger).release(champion).registry_version if champion else None, tuple(Owed(ledger).waiting())


def _deletions_since(part: Path, source: Path, manifest: Manifest) -> Restored | None:
    """Take over ledger, receipts and keys from `source`, and open requests for whoever is known again; None without a champion."""
    from e2urec_core.ledger.releases import Releases
    from e2urec_core.ledger.requests import Requests
    from e2urec_core.ledger.restoring import bring_back
    from e2urec_core.store import Store
    from tasks._desk import model_name
    from tasks._moved_tracking import FILE as TRACKING
    from tasks._moved_tracking import keep_number
    from tasks._snapshot import Snapshot

    _refuse_other_receipts(part, source)
    _take_over(part, source)
    ledger = open_ledger(ledger_place(part))
    requests, releases = Requests(ledger), Releases(ledger)
    requests.verify(manifest.ledger)
    if manifest.champion is None or manifest.data is None:
        if releases.line().champion is not None:
            raise NotRestorable(
                "the back-up does not say which champion it holds, on which data, and the later ledger has one",
                hint="restore another one, or train anew",
            )
        return None
    release, snapshot = releases.release(manifest.champion), Snapshot.model_validate(manifest.data)
    _refuse_lost_version(part, release)
    # From here on, a ledger on a server is written: the same again goes on.
    epoch, store = requests.takeover(RUN).epoch, Store(part / "store")
    again = _asked_again(requests, _known_again(part, store, ledger))
    snapshot.write(ledger, epoch)
    held = {path.name for path in (part / "store" / "objects" / "Bundle").glob("*")}
    noted = bring_back(
        ledger,
        release.bundle,
        backup=manifest.digest,
        taken_at=manifest.taken_at,
        again=again,
        held=sorted(held),
        run=RUN,
    )
    if (part / TRACKING).exists():
        keep_number(part / TRACKING, model_name(), max(each.registry_version or 0 for each in releases.releases()))
    releases.verify()
    return noted


def _refuse_lost_version(part: Path, release: ReleaseRecord) -> None:
    """Refuse where a tracking server of its own has no copy of the champion any more.

    Raises:
        NotRestorable: It has none.
    """
    from tasks._desk import model_name
    from tasks._moved_tracking import FILE as TRACKING
    from tasks._registry import Registry
    from tasks._tracking import Tracker

    if (part / TRACKING).exists() or release.registry_version is None:
        return
    if not Registry(Tracker(part), model_name()).holds(release.registry_version):
        raise NotRestorable(
            f"the tracking server no longer holds version {release.registry_version}, the champion of the back-up",
            hint="put the server's own back-up of the same time in place first",
        )


def _refuse_other_receipts(part: Path, source: Path) -> None:
    """Refuse a later chain of receipts that does not begin with the back-up's.

    Raises:
        NotRestorable: It does not.
    """
    before, after = links_of(part / RECEIPTS), links_of(source / RECEIPTS)
    other = [number for number, path in before.items() if number not in after or read_link(after[number]) != read_link(path)]
    if other:
        raise NotRestorable(
            f"receipt {other[0]} of the back-up is not among the later ones, or is another there",
            facts={"receipts of the back-up": len(before), "later ones": len(after)},
            hint="name a folder that goes on from this back-up",
        )


def _take_over(part: Path, source: Path) -> None:
    for name in copying.DELETIONS:
        if name != copying.KEYS and (part / name).exists():
            shutil.rmtree(part / name) if (part / name).is_dir() else (part / name).unlink()
    files = copying.places(source, only=copying.DELETIONS, with_keys=True)
    for path in files:
        (part / path.relative_to(source)).unlink(missing_ok=True)
    copying.copy_all(files, source, part)


def _known_again(part: Path, store: Store, ledger: Ledger) -> list[KnownAgain]:
    from e2urec_core.ledger.subjects import Subjects
    from e2urec_core.ledger.suppressions import suppressed_in
    from e2urec_core.pseudonyms import open_pseudonyms
    from tasks.restore import known_again

    marked = Subjects(ledger, names := open_pseudonyms(part, ledger)).owners()
    return known_again(store, suppressed_in(part), marked, names)


def _asked_again(requests: Requests, known: Sequence[KnownAgain]) -> dict[str, list[str]]:
    """Open a request for everybody, approved, as it was carried out before; one that is open already stays the one.

    Returns:
        Of each its name, and the closed requests that it may repeat: those of its scope that asked for the same time.
    """
    from e2urec_core.ledger.request_records import NewRequest

    closed = [each for each in requests.requests() if each.state in ("purged", "certified", "no_data")]
    repeated = [
        [one for one in closed if (one.scope == "user") == (not each.items) and int(one.covers_until.timestamp()) == each.until_s]
        for each in known
    ]
    wanted = [
        # The ledger has erased who asked for what; only where every request that it may have been was of pollution, this one is.
        NewRequest(
            user_id=each.user_id,
            items=each.items,
            requested_at=each.until,
            reason="pollution" if {one.reason for one in found} == {"pollution"} else "privacy",
        )
        for each, found in zip(known, repeated, strict=True)
    ]
    opened = requests.add_all(wanted, "restore")
    for each in opened:
        if each.state == "queued":
            requests.approve(each.id)
    return {each.id: [one.id for one in found] for each, found in zip(opened, repeated, strict=True)}


def _move(part: Path, before: Path, after: Path) -> None:
    from tasks._moved_tracking import FILE as TRACKING
    from tasks._moved_tracking import move_tracking

    if (part / TRACKING).exists():
        move_tracking(part / TRACKING, before, after)
