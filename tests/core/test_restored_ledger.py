"""A ledger whose champion is put back to that of a back-up: nobody counts as forgotten before they are forgotten again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from e2urec_core.errors import ReleaseRefused, RequestRefused
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.owed import Owed
from e2urec_core.ledger.releases import Releases
from e2urec_core.ledger.request_records import NewRequest
from e2urec_core.ledger.requests import Requests
from e2urec_core.ledger.restoring import bring_back
from tests.ledgers import champion, digest, registered, release, requests_at, subject

TAKEN = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    """A ledger whose second champion has forgotten one person, whom the first still knows."""
    requests = requests_at(tmp_path / "requests.db", approval_share=1)
    releases = Releases(open_ledger(tmp_path / "requests.db"))
    champion(releases, 1)
    champion(releases, 2, forgotten=[7])
    return requests


@pytest.fixture
def releases(requests: Requests, tmp_path: Path) -> Releases:
    return Releases(open_ledger(tmp_path / "requests.db"))


def restore(releases: Releases, requests: Requests, *names: str, held: tuple[str, ...] = (digest(1),)) -> None:
    bring_back(
        requests._ledger, digest(1), backup=digest(99), taken_at=TAKEN, again={name: ["r-0"] for name in names}, held=held, run="restore"
    )


def asked_again(requests: Requests, user: str = "anna") -> str:
    return requests.add(NewRequest(user_id=user), "restore").id


def test_a_rollback_still_leads_to_nobody_who_knows_the_forgotten(releases: Releases) -> None:
    with pytest.raises(ReleaseRefused, match="still knows 1"):
        releases.promote(1, seen_epoch=releases.line().epoch, kind="rollback", run="test")


def test_the_champion_of_the_backup_is_champion_again_and_the_ledger_verifies(releases: Releases, requests: Requests) -> None:
    again = asked_again(requests)
    restore(releases, requests, again)
    assert (releases.line().champion, releases.line().previous) == (digest(1), digest(2))
    assert Owed(requests._ledger).waiting() == [again]
    assert Owed(requests._ledger).subjects() == {subject(7)}
    assert releases.still_known(1) == [subject(7)]
    releases.verify()


def test_who_had_asked_anew_before_stands_for_the_undone_deletion_and_cannot_be_stopped(releases: Releases, requests: Requests) -> None:
    open_one = requests.add(NewRequest(user_id="anna"), "command").id
    assert asked_again(requests) == open_one
    restore(releases, requests, open_one)
    # Cancelled, it could never be carried out, and no release could ever follow.
    with pytest.raises(RequestRefused, match="a back-up restored"):
        requests.cancel(open_one)


def test_the_same_restore_again_changes_nothing(releases: Releases, requests: Requests) -> None:
    again = asked_again(requests)
    restore(releases, requests, again)
    before = releases.verify()
    restore(releases, requests, again)
    assert releases.verify() == before


def test_a_restore_leads_only_to_what_was_champion(releases: Releases, requests: Requests) -> None:
    registered(releases, 3, against=2)
    with pytest.raises(ReleaseRefused, match="was never champion"):
        bring_back(requests._ledger, digest(3), backup=digest(99), taken_at=TAKEN, again={}, held=[], run="restore")


def test_what_is_lost_is_what_was_made_since_and_is_not_in_the_backup(releases: Releases, requests: Requests) -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    noted = bring_back(requests._ledger, digest(1), backup=digest(99), taken_at=long_ago, again={}, held=[digest(1)], run="restore")
    assert noted.lost == (digest(2),)


def test_no_release_follows_that_has_not_forgotten_them_again(releases: Releases, requests: Requests) -> None:
    again = asked_again(requests)
    restore(releases, requests, again)
    new = requests.request(again).subject
    releases.add(release(3, against=1), {})
    releases.registered(digest(3), 3)
    with pytest.raises(ReleaseRefused, match="still knows 1"):
        releases.promote(3, seen_epoch=releases.line().epoch, kind="promote", run="test")
    # One that has forgotten the new request has forgotten the old one with it, though nobody knows which is whose.
    releases.add(release(4, against=1), {new: digest(5)})
    releases.registered(digest(4), 4)
    releases.promote(4, seen_epoch=releases.line().epoch, kind="promote", run="test")
    assert releases.still_known(4) == []
    releases.verify()


def test_one_of_two_is_not_enough(releases: Releases, requests: Requests) -> None:
    both = [asked_again(requests), asked_again(requests, "bert")]
    restore(releases, requests, *both)
    releases.add(release(3, against=1), {requests.request(both[0]).subject: digest(5)})
    releases.registered(digest(3), 3)
    with pytest.raises(ReleaseRefused, match="still knows 1"):
        releases.promote(3, seen_epoch=releases.line().epoch, kind="promote", run="test")


def test_where_nobody_is_known_again_nothing_is_owed(releases: Releases, requests: Requests) -> None:
    restore(releases, requests)
    registered(releases, 3, against=1)
    releases.promote(3, seen_epoch=releases.line().epoch, kind="promote", run="test")
    assert Owed(requests._ledger).waiting() == []


def test_what_a_restore_asks_for_can_neither_be_stopped_nor_left_out_of_a_night(releases: Releases, requests: Requests) -> None:
    again = asked_again(requests)
    restore(releases, requests, again)
    for stop in (requests.cancel, requests.reject, requests.hold):
        with pytest.raises(RequestRefused, match="a back-up restored"):
            stop(again)
    claim = requests.claim("night", num_users=10)
    requests.fail_back([again], epoch=claim.epoch)
    fresh = requests.add(NewRequest(user_id="carl"), "command").id
    # What has failed is else claimed apart from what is new.
    assert {each.id for each in requests.claim("next", num_users=10).requests} == {again, fresh}
