"""Runs nights until nothing more can be done: alone in the workspace, from the champion's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.errors import NoChampion, WorkspaceBusy
from flows.nights import POLLUTION_LADDER
from tasks._progress import say

if TYPE_CHECKING:
    from e2urec_core.ledger.requests import Requests
    from flows.nights import Nightly
    from tasks._desk import Desk
    from tasks._snapshot import Snapshot

LOCK = "nightly.lock"


def run_nights(
    place: Path,
    ladder: str,
    preset: str | None,
    flags: Mapping[str, str],
    *,
    pollution_ladder: str = POLLUTION_LADDER,
    take_over: bool = False,
    only_finish: bool = False,
) -> tuple[list[str], int]:
    """Finish what is unfinished, then carry out what is pending; returns the names of the runs, and how many requests have expired.

    Args:
        place: The workspace's folder.
        ladder: Methods to try, with commas between them.
        preset: Named settings that the methods start from.
        flags: Settings by name.
        pollution_ladder: As `ladder`, for nights of polluted data alone.
        take_over: Whether to pass by another night that holds the workspace.
        only_finish: Whether to erase and certify what is promoted, and nothing else.

    Raises:
        WorkspaceBusy: Another night holds the workspace.
        DamagedLedger: The ledger's tables are not what its history says.
        NoChampion: There is nothing that could forget yet.
        NightFailed: No method passed the gates.
    """
    from e2urec_core.ledger.requests import Requests
    from tasks._desk import Desk

    with alone(place, take_over=take_over):
        desk, done = Desk.of(place, "nightly"), list[str]()
        requests = Requests(desk.ledger)
        requests.verify()
        _tell_of_receipts(desk)
        settings = settings_of(desk, ladder, preset, flags, pollution_ladder)
        expired = [] if only_finish else requests.expire()
        while _pending(requests, only_finish=only_finish, first=not done) or (
            not done and not only_finish and _trains_anyway(desk, settings)
        ):
            from flows.nightly import nightly

            before = _states(requests)
            done.append(nightly(settings, str(place), only_finish=only_finish))
            if _states(requests) == before:
                break
    return done, len(expired)


def settings_of(desk: Desk, ladder: str, preset: str | None, flags: Mapping[str, str], pollution_ladder: str = POLLUTION_LADDER) -> Nightly:
    """The settings of a night, which begin with those of the champion's training.

    Raises:
        NoChampion: There is none yet.
    """
    from flows.nights import build_nightly

    snapshot = _snapshot(desk)
    if snapshot is None:
        raise NoChampion(
            "there is no champion in this workspace yet, so there is nothing that could forget",
            hint="make the first one: `e2urec train DATASET BACKBONE`, such as `e2urec train sample tiny-t5`",
        )
    return build_nightly(snapshot.settings, ladder, preset, flags, pollution_ladder)


def _snapshot(desk: Desk) -> Snapshot | None:
    from tasks._snapshot import snapshot_of

    champion = desk.champion()
    return None if champion is None else snapshot_of(desk.workspace, desk.store, desk.ledger, champion.bundle, champion.run)


def _tell_of_receipts(desk: Desk) -> None:
    """Say where the chain of receipts is not whole; people's requests are carried out all the same."""
    from e2urec_core.errors import BadKey, BadReceipt
    from e2urec_core.receipts.chain import FOLDER
    from e2urec_core.receipts.keys import keys_of_ledger
    from e2urec_core.receipts.verify import verify
    from e2urec_core.receipts.witness import LedgerWitness

    folder, head = desk.workspace / FOLDER, LedgerWitness(desk.ledger).head()
    if not head.number:
        return
    try:
        verify(folder, keys_of_ledger(folder, desk.ledger), head=head)
    except (BadReceipt, BadKey) as fault:
        say(f"the chain of receipts is not whole: {fault.fact}; `e2urec receipt verify-all` says more")


def _trains_anyway(desk: Desk, settings: Nightly) -> bool:
    """Whether the recommender is to be trained anew though nobody asks for anything."""
    from tasks.drift import is_due

    champion, snapshot = desk.champion(), _snapshot(desk)
    assert champion is not None, "the settings were taken from one"
    assert snapshot is not None, "so were the data"
    return is_due(desk, champion, snapshot, settings.night)


def _states(requests: Requests) -> dict[str, str]:
    return {each.id: each.state for each in requests.requests()}


def _pending(requests: Requests, *, only_finish: bool, first: bool) -> bool:
    from e2urec_core.ledger.request_records import IN_FLIGHT

    wanted = {"promoted", "purged"} if only_finish else {"queued", *IN_FLIGHT}
    # What the night before has left there waits until earlier versions are no longer retained.
    wanted -= set() if first else {"promoted"}
    return any(each.state in wanted for each in requests.requests())


@contextmanager
def alone(place: Path, *, take_over: bool) -> Iterator[None]:
    """Hold the workspace against other nights of this machine; the epoch of the claim holds it against all others.

    Raises:
        WorkspaceBusy: Another night holds it.
    """
    from filelock import FileLock, Timeout

    path = place / LOCK
    if take_over:
        # The other night keeps its lock on a file that nobody else looks at any more; its epoch has passed with our claim.
        path.unlink(missing_ok=True)
    try:
        with FileLock(path, timeout=0, mode=0o600):
            yield
    except Timeout:
        raise WorkspaceBusy(
            "another night is at work in this workspace",
            facts={"lock": path},
            hint="let it finish; if it hangs, end it, or start this one with `--take-over`",
        ) from None
