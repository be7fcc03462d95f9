"""Runs nights until nothing more can be done: alone in the workspace, from the champion's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.errors import NightFailed, NoChampion, WorkspaceBusy
from e2urec_core.ledger.request_records import IN_FLIGHT
from flows.nights import POLLUTION_LADDER
from tasks._progress import say

if TYPE_CHECKING:
    from e2urec_core.ledger.requests import Requests
    from flows.nights import Nightly
    from tasks._desk import Desk
    from tasks._snapshot import Snapshot

LOCK = "nightly.lock"


@dataclass
class Nights:
    """What a command has done.

    Args:
        runs: Names of the runs that ended well.
        expired: Requests that were rejected because nobody had verified them in time.
        failed: Why the first of the nights failed, in which no method passed the gates.
    """

    runs: list[str] = field(default_factory=list)
    expired: int = 0
    failed: NightFailed | None = None


def run_nights(
    place: Path,
    ladder: str,
    preset: str | None,
    flags: Mapping[str, str],
    *,
    pollution_ladder: str = POLLUTION_LADDER,
    take_over: bool = False,
    only_finish: bool = False,
) -> Nights:
    """Finish what is unfinished, then carry out what is pending, each request once.

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
    """
    from e2urec_core.ledger.requests import Requests
    from tasks._desk import Desk

    with alone(place, take_over=take_over):
        desk, nights = Desk.of(place, "nightly"), Nights()
        requests = Requests(desk.ledger)
        requests.verify()
        _tell_of_receipts(desk)
        _tell_of_restored(desk)
        settings = settings_of(desk, ladder, preset, flags, pollution_ladder)
        nights.expired = 0 if only_finish else len(requests.expire())
        wanted, failed = {"promoted", "purged"} if only_finish else {"queued", *IN_FLIGHT}, set[str]()
        due = not only_finish and _trains_anyway(desk, settings)
        while due or any(each.state in wanted and each.id not in failed for each in requests.requests()):
            # Prefect is not imported where nothing is pending.
            from flows.nightly import nightly

            before = _states(requests)
            try:
                nights.runs.append(nightly(settings, str(place), only_finish=only_finish))
            except NightFailed as error:
                # Others may pass where these have not; what has failed is not asked of this command again.
                nights.failed = nights.failed or error
                failed |= {each for each, (_, attempts) in _states(requests).items() if each in before and attempts > before[each][1]}
            if _states(requests) == before:
                break
            # What is promoted now waits until earlier versions are no longer retained.
            due, wanted = False, wanted - {"promoted"}
        if settings.night.keep_days:
            from flows.collecting import tidy

            tidy(desk, settings.night.keep_days)
    return nights


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


def _tell_of_restored(desk: Desk) -> None:
    from e2urec_core.ledger.owed import Owed

    if waiting := Owed(desk.ledger).waiting():
        say(f"the champion comes from a back-up: {len(waiting):,} restored deletions are carried out again before anything else follows it")


def _trains_anyway(desk: Desk, settings: Nightly) -> bool:
    """Whether the recommender is to be trained anew though nobody asks for anything."""
    from tasks.drift import is_due

    champion, snapshot = desk.champion(), _snapshot(desk)
    assert champion is not None, "the settings were taken from one"
    assert snapshot is not None, "so were the data"
    return is_due(desk, champion, snapshot, settings.night)


def _states(requests: Requests) -> dict[str, tuple[str, int]]:
    return {each.id: (each.state, each.attempts) for each in requests.requests()}


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
