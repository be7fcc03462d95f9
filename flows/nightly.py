"""The nightly flow: what was asked to be forgotten is forgotten, released, erased and certified; and what was left undone goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from prefect import flow

from e2urec_core.errors import Fenced, UserError
from e2urec_core.ledger.request_records import RequestRecord
from e2urec_core.ledger.requests import Requests
from flows.night_erasing import close_unknown, erase, finish
from flows.night_forgetting import Night, forget_them, train_anew
from flows.night_report import write_night
from flows.night_shadow import measure_shadow
from flows.nights import LADDER, POLLUTION_LADDER, Nightly
from flows.releasing import open_desk
from flows.rooms import open_room
from tasks._journal import place_of
from tasks._notices import run_failed
from tasks._progress import say
from tasks._shown import truthful
from tasks.drift import is_due


@flow(
    name="nightly",
    flow_run_name="nightly {night.dataset.kind} {night.backbone.kind}",
    persist_result=False,
    validate_parameters=True,
    on_failure=[run_failed],
    on_crashed=[run_failed],
)
@truthful
def nightly(night: Nightly, workspace: str = "", only_finish: bool = False) -> str:
    """Carry deletion requests out: claim, unlearn, gates, promote, erase, certify. Returns the run's name.

    What an earlier night has left unfinished is finished first, and then nothing new is claimed; whoever calls looks whether something
    is pending and calls again.

    Args:
        night: The settings.
        workspace: The workspace's folder.
        only_finish: Whether to erase and certify what is promoted, and nothing else.
    """
    with open_room(night, ("nightly", night.dataset.kind, night.backbone.kind), workspace, night) as room:
        desk, run = open_desk(room), room.journal.record.run
        desk.releases.verify()
        desk.repair()
        requests = Requests(desk.ledger, night.requests)
        claim = requests.takeover(run)
        work = Night(night, room, desk, requests, claim.epoch)
        work.before = work.champion().bundle
        room.guard = lambda: requests.refuse_fenced(work.epoch)
        left = _begun(work, claim.unfinished)
        try:
            # Before anything is trained: data that still have whom the champion has forgotten would teach them again.
            _finish(work)
            if not only_finish:
                _carry_out(work, left or _claimed(work), carried_on=bool(left))
            _measure(work)
        except UserError as error:
            # A night that failed has a report too, unless it was taken over: then there is nothing that it may still write.
            if not isinstance(error, Fenced):
                with suppress(UserError):
                    write_night(work, failed=True)
            raise
        write_night(work)
        return run


def _begun(work: Night, unfinished: Sequence[RequestRecord]) -> list[RequestRecord]:
    """Requests that no champion has carried out yet, of those that a night before had claimed."""
    left = _in(unfinished, "claimed", "built", "gated")
    reached = [each for each in left if each.state == "gated" and each.release and work.desk.releases.was_champion(each.release)]
    if reached:
        # Killed between the promotion and the note of it.
        work.requests.advance([each.id for each in reached], "promoted", epoch=work.epoch)
    return [each for each in left if each not in reached]


def _claimed(work: Night) -> list[RequestRecord]:
    users = work.snapshot().num_users(work.room.store)
    claim = work.requests.claim(work.room.journal.record.run, num_users=users, limit=work.run.night.most_requests)
    work.epoch = claim.epoch
    return list(claim.requests)


def _carry_out(work: Night, asked: Sequence[RequestRecord], *, carried_on: bool) -> None:
    if asked:
        say(f"{len(asked):,} requests {'of a night that did not end are carried on' if carried_on else 'were claimed'}")
        close_unknown(work, forget_them(work, asked))
        _finish(work)
    elif is_due(work.desk, work.champion(), work.snapshot(), work.run.night):
        train_anew(work)


def _finish(work: Night) -> None:
    """Erase and certify everything that is promoted."""
    requests = work.requests
    promoted = _in(requests.requests("promoted"), "promoted")
    champion = work.champion()
    gone = work.desk.releases.forgotten_by(champion.bundle)
    # Who had no training row was never forgotten by a release, as none knew them.
    had = {each.id: each.release is not None and each.subject in work.desk.releases.forgotten_by(each.release) for each in promoted}
    taken_back = [each for each in promoted if had[each.id] and each.subject not in gone]
    if taken_back:
        requests.take_back([each.id for each in taken_back], epoch=work.epoch)
        say(f"{len(taken_back):,} requests are queued again: the champion that had forgotten them was taken back")
    if promoted := [each for each in promoted if each not in taken_back]:
        erase(work, promoted)
    if purged := requests.requests("purged"):
        finish(work, purged)


def _measure(work: Night) -> None:
    """Every so many nights after a training, train shadows."""
    every, champion = work.run.night.drift.shadow_every, work.champion()
    nights = work.drift(work.snapshot()).nights if every else 0
    if every and nights and nights % every == 0 and champion.bundle != work.before:
        measure_shadow(work)


def _in(records: Iterable[RequestRecord], *states: str) -> list[RequestRecord]:
    return [record for record in records if record.state in states]


def _scheduled_name() -> str:
    return f"scheduled-{datetime.now(UTC):%Y%m%d-%H%M%S}"


@flow(name="scheduled night", flow_run_name=_scheduled_name, persist_result=False, on_failure=[run_failed], on_crashed=[run_failed])
@truthful
def scheduled(
    workspace: str = "",
    ladder: str = LADDER,
    preset: str | None = None,
    settings: dict[str, str] | None = None,
    pollution_ladder: str = POLLUTION_LADDER,
) -> list[str]:
    """What a schedule runs: `e2urec nightly` as a deployment. Returns the names of the runs.

    Args:
        workspace: The workspace's folder.
        ladder: Methods to try, with commas between them.
        preset: Named settings that the methods start from.
        settings: Further settings by name, such as `night.retention-hours`.
        pollution_ladder: As `ladder`, for nights of polluted data alone.
    """
    from flows.night_running import run_nights

    nights = run_nights(place_of(workspace), ladder, preset, settings or {}, pollution_ladder=pollution_ladder)
    if nights.failed is not None:
        raise nights.failed
    return nights.runs
