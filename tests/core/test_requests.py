"""Deletion requests: what is the same request, which way each goes, what a run may do, and what the ledger still knows at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ledgers import champion, digest, promoted, releases_at, requests_at
from sqlalchemy import text

from e2urec_core.errors import BadInput, DamagedLedger, Fenced, KeyReused, ReleaseRefused, RequestRefused, UnknownRequest
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.releases import Releases
from e2urec_core.ledger.request_records import CLOSED, IN_FLIGHT, MOVES, UNCLAIMED, NewRequest, RequestRecord, RequestRule, commitment_of
from e2urec_core.ledger.requests import Requests

EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
MANY = 10_000


@pytest.fixture
def requests(place: Path | str) -> Requests:
    champion(releases_at(place), 1)
    return requests_at(place)


def ask(user: str, *items: str, at: datetime | None = EARLY, note: str = "") -> NewRequest:
    return NewRequest(user_id=user, items=items, requested_at=at, note=note)


def test_every_state_is_unclaimed_in_flight_or_closed_and_moves_lead_to_states() -> None:
    assert sorted([*UNCLAIMED, *IN_FLIGHT, *CLOSED]) == sorted(MOVES)
    assert {to for onward in MOVES.values() for to in onward} <= set(MOVES)
    assert [state for state, onward in MOVES.items() if not onward] == ["certified", "no_data", "cancelled", "rejected"]


def test_a_request_that_is_vouched_for_is_queued_at_once_and_due_in_thirty_days(requests: Requests) -> None:
    made = requests.add(ask("7", note="by letter"), "command")
    assert (made.state, made.scope, made.number, made.attempts) == ("queued", "user", 1, 0)
    assert made.due_at - made.received_at == timedelta(days=30)
    assert made.covers_until == made.requested_at == EARLY
    assert requests.request(made.id) == made
    assert [event.event for event in requests.history(made.id)] == ["request received", "request verified", "request queued"]
    person = requests.identity(made.id)
    assert (person.user_id, person.items, person.note) == ("7", (), "by letter")
    assert made.commitment == commitment_of(str(person.nonce), "7")


def test_a_request_without_a_time_covers_all_until_it_came_in(requests: Requests) -> None:
    made = requests.add(ask("7", at=None), "command")
    assert made.covers_until == made.requested_at == made.received_at


def test_names_and_subjects_are_random_and_say_nothing_of_the_user(tmp_path: Path) -> None:
    first, second = (requests_at(tmp_path / name / "requests.db").add(ask("7"), "command") for name in "ab")
    assert {first.id, first.subject, first.commitment}.isdisjoint({second.id, second.subject, second.commitment})


def test_the_same_user_while_it_waits_is_the_same_request_and_a_later_time_extends_it(requests: Requests) -> None:
    first = requests.add(ask("7"), "command")
    assert requests.add(ask(" 7 "), "import") == first
    extended = requests.add(ask("7", at=LATE), "command")
    assert (extended.id, extended.covers_until, extended.due_at) == (first.id, LATE, first.due_at)
    assert requests.add(ask("7"), "command") == extended
    assert [event.event for event in requests.history(first.id)][3:] == ["request extended"]


def test_other_users_scopes_and_items_are_other_requests(requests: Requests) -> None:
    wanted = [ask("7"), ask("8"), ask("7", "a"), ask("7", "b"), ask("7", "a", "b")]
    made = requests.add_all(wanted, "command")
    assert len({each.id for each in made}) == 5
    assert requests.add(ask("7", "b", "a", "b"), "command") == made[4]
    assert [each.number for each in requests.requests()] == [1, 2, 3, 4, 5]


def test_what_a_run_has_claimed_is_frozen_and_anything_later_waits_for_the_next(requests: Requests) -> None:
    first = requests.add(ask("7"), "command")
    requests.claim("night", num_users=MANY)
    assert requests.add(ask("7"), "command").id == first.id
    second = requests.add(ask("7", at=LATE), "command")
    assert (second.id != first.id, second.state, second.covers_until) == (True, "queued", LATE)
    assert requests.request(first.id).covers_until == EARLY


def test_a_name_that_was_seen_before_gives_the_first_answer_whatever_has_happened_since(requests: Requests) -> None:
    first = requests.add(ask("7"), "http", "key")
    assert requests.add(ask("7"), "http", "key") == first
    with pytest.raises(KeyReused, match="1 of 1 requests"):
        requests.add(ask("7", at=LATE), "http", "key")
    assert requests.add(ask("7"), "import", "key").id == first.id
    cancelled = requests.cancel(first.id)
    assert requests.add(ask("7"), "http", "key") == cancelled
    # Nothing is left to compare another content with.
    assert requests.add(ask("8"), "http", "key") == cancelled
    assert requests.add(ask("7"), "http", "other").id != first.id


def test_many_are_added_all_or_none(requests: Requests) -> None:
    requests.add(ask("7"), "import", "a")
    before = requests.verify(), requests.requests()
    with pytest.raises(KeyReused, match="1 of 3 requests") as refused:
        requests.add_all([ask("1"), ask("2"), ask("3")], "import", ["x", "a", "y"])
    assert refused.value.facts == {"which, from 1": "2"}
    with pytest.raises(BadInput, match="1 of 2 requests are dated after now"):
        requests.add_all([ask("1"), ask("2", at=datetime.now(UTC) + timedelta(hours=1))], "import")
    assert (requests.verify(), requests.requests()) == before
    assert len(requests.add_all([ask(f"{number}") for number in range(40)], "import", [f"{number}" for number in range(40)])) == 40
    assert requests.add_all([], "import") == []


def test_what_comes_by_http_waits_until_somebody_verifies_it(requests: Requests) -> None:
    made = requests.add(ask("7"), "http")
    assert made.state == "received"
    assert requests.claim("night", num_users=MANY).requests == ()
    verified = requests.verify_person(made.id)
    assert (verified.state, requests.verify_person(made.id)) == ("queued", verified)
    assert [each.id for each in requests.claim("night", num_users=MANY).requests] == [made.id]


def test_http_is_trusted_where_the_rule_says_so(place: Path | str) -> None:
    assert requests_at(place, trust_http=True).add(ask("7"), "http").state == "queued"


def test_what_nobody_has_verified_does_not_extend_what_somebody_has(requests: Requests) -> None:
    verified = requests.add(ask("7"), "command")
    assert requests.add(ask("7"), "http") == verified
    other = requests.add(ask("7", at=LATE), "http")
    assert (other.state, other.id != verified.id) == ("received", True)
    assert requests.request(verified.id) == verified
    # An operator vouches for the person, and so for what the person has asked before.
    vouched = requests.add(ask("7", at=LATE), "command")
    assert (vouched.id, vouched.state) == (other.id, "queued")


def test_a_legal_hold_is_not_got_round_by_asking_again(requests: Requests) -> None:
    made = requests.add(ask("7"), "command")
    requests.hold(made.id)
    requests.takeover("night")
    for step in (requests.fail_back, lambda wanted, epoch: requests.advance(wanted, "needs_human", epoch=epoch)):
        with pytest.raises(RequestRefused, match="is legal_hold; from there it goes back by"):
            step([made.id], epoch=1)
    for source in ("http", "command"):
        assert requests.add(ask("7", at=LATE), source).id == made.id
    assert requests.claim("night", num_users=MANY).requests == ()
    released = requests.release(made.id)
    assert (released.state, released.covers_until, released.held_from) == ("queued", LATE, None)


def test_unverified_requests_expire_and_lose_the_person(place: Path | str) -> None:
    now = [datetime(2026, 3, 1, tzinfo=UTC)]
    requests = Requests(open_ledger(place, clock=lambda: now[0]), RequestRule(verify_days=7))
    old = requests.add(ask("7"), "http")
    now[0] += timedelta(days=6)
    young = requests.add(ask("8"), "http")
    assert requests.expire() == []
    now[0] += timedelta(days=2)
    assert [(each.id, each.state) for each in requests.expire()] == [(old.id, "rejected")]
    assert requests.identity(old.id).user_id is None
    assert requests.request(young.id).state == "received"


@pytest.mark.parametrize("close", ["cancel", "reject"])
def test_a_request_is_withdrawn_before_it_is_claimed_and_not_after(requests: Requests, close: str) -> None:
    first, second = requests.add_all([ask("7"), ask("8", "a", note="x")], "command")
    closed = getattr(requests, close)(second.id)
    assert getattr(requests, close)(second.id) == closed
    person = requests.identity(second.id)
    assert (person.user_id, person.items, person.note, person.nonce) == (None, (), None, None)
    requests.claim("night", num_users=MANY)
    with pytest.raises(RequestRefused, match=f"request {first.id} is claimed; from there it goes to built, no_data, queued, needs_human"):
        getattr(requests, close)(first.id)
    assert requests.request(first.id).state == "claimed"
    assert requests.add(ask("8", "a"), "command").id != second.id


def test_a_hold_keeps_a_request_from_being_claimed_or_withdrawn(requests: Requests) -> None:
    made = requests.add(ask("7"), "http")
    assert requests.hold(made.id) == requests.hold(made.id)
    for step in (requests.cancel, requests.reject, requests.verify_person, requests.approve):
        with pytest.raises(RequestRefused):
            step(made.id)
    assert requests.release(made.id).state == "received"


def test_a_run_claims_those_due_first_up_to_a_limit(requests: Requests) -> None:
    made = requests.add_all([ask(f"{number}") for number in range(5)], "command")
    claim = requests.claim("night", num_users=MANY, limit=2)
    assert [each.id for each in claim.requests] == [each.id for each in made[:2]]
    assert {(each.state, each.epoch, each.run) for each in claim.requests} == {("claimed", 1, "night")}
    assert [each.state for each in requests.requests()] == ["claimed"] * 2 + ["queued"] * 3
    later = requests.claim("next", num_users=MANY)
    assert ([each.id for each in later.requests], later.epoch) == ([each.id for each in made[2:]], 2)
    assert [each.id for each in later.unfinished] == [each.id for each in made[:2]]


def test_more_users_than_the_share_wait_for_a_person(requests: Requests) -> None:
    made = requests.add_all([ask("1"), ask("2"), ask("1", "a"), ask("3"), ask("4")], "command")
    requests.approve(made[4].id)
    # 0.01 * 250 users, rounded down: 2.
    claim = requests.claim("night", num_users=250)
    assert [each.id for each in claim.requests] == [made[place].id for place in (0, 1, 2, 4)]
    assert requests.request(made[3].id).state == "needs_human"
    approved = requests.approve(made[3].id)
    assert (approved.state, approved.approved) == ("queued", True)
    assert [each.id for each in requests.claim("next", num_users=1).requests] == [made[3].id]


def test_one_user_is_forgotten_however_few_there_are(requests: Requests) -> None:
    requests.add_all([ask("1"), ask("2")], "command")
    assert len(requests.claim("night", num_users=2).requests) == 1


def test_a_request_goes_all_the_way_and_nothing_of_the_person_stays(requests: Requests) -> None:
    made = requests.add(ask("7", "a", "b", note="x"), "command", "key")
    nonce = requests.identity(made.id).nonce
    claim = requests.claim("night", num_users=MANY)
    promoted(requests, made.id, epoch=claim.epoch)
    (purged,) = requests.erase_identity([made.id], epoch=claim.epoch)
    person = requests.identity(made.id)
    assert (purged.state, person.user_id, person.items, person.note, person.nonce) == ("purged", None, (), None, nonce)
    (done,) = requests.certify({made.id: digest(9)}, epoch=claim.epoch)
    assert (done.state, done.receipt, done.release, done.model) == ("certified", digest(9), digest(1), digest(1001))
    assert requests.identity(made.id).nonce is None
    assert done.commitment == commitment_of(str(nonce), "7", ["b", "a"])
    moves = [json.loads(event.facts) for event in requests.history(made.id)]
    walked = ["received", "verified", "queued", "claimed", "built", "gated", "promoted", "purged", "certified"]
    assert [fact["to"] for fact in moves] == walked
    assert [fact["from"] for fact in moves] == [None, *walked[:-1]]
    assert requests.add(ask("7", "a", "b"), "command").id != made.id
    requests.verify()


def test_steps_may_be_repeated_but_not_skipped_or_taken_back(requests: Requests) -> None:
    made = requests.add(ask("7"), "command")
    epoch = requests.claim("night", num_users=MANY).epoch
    for skipped in ("gated", "promoted"):
        with pytest.raises(RequestRefused):
            requests.advance([made.id], skipped, epoch=epoch, release=digest(1))
    built = requests.advance([made.id], "built", epoch=epoch, model=digest(5))
    head = requests.verify()
    assert requests.advance([made.id], "built", epoch=epoch, model=digest(5)) == built
    with pytest.raises(RequestRefused, match="is built"):
        requests.advance([made.id], "built", epoch=epoch, model=digest(6))
    for step in (lambda: requests.erase_identity([made.id], epoch=epoch), lambda: requests.certify({made.id: digest(1)}, epoch=epoch)):
        with pytest.raises(RequestRefused):
            step()
    assert requests.verify() == head


def test_nothing_is_promoted_but_by_a_release_that_was_champion(requests: Requests) -> None:
    made = requests.add(ask("7"), "command")
    epoch = requests.claim("night", num_users=MANY).epoch
    requests.advance([made.id], "built", epoch=epoch)
    requests.advance([made.id], "gated", epoch=epoch)
    with pytest.raises(RequestRefused, match="names no release"):
        requests.advance([made.id], "promoted", epoch=epoch)
    with pytest.raises(RequestRefused, match="release 000000000000, which was never champion,"):
        requests.advance([made.id], "promoted", epoch=epoch, release=digest(2))
    assert requests.advance([made.id], "promoted", epoch=epoch, release=digest(1))[0].release == digest(1)


def test_several_move_together_or_not_at_all(requests: Requests) -> None:
    first, second = requests.add_all([ask("7"), ask("8")], "command")
    epoch = requests.claim("night", num_users=MANY, limit=1).epoch
    with pytest.raises(RequestRefused, match=f"request {second.id} is queued"):
        requests.advance([first.id, second.id], "built", epoch=epoch)
    assert requests.request(first.id).state == "claimed"


def test_a_certified_request_has_one_receipt(requests: Requests) -> None:
    made = requests.add(ask("7"), "command")
    epoch = requests.claim("night", num_users=MANY).epoch
    promoted(requests, made.id, epoch=epoch)
    requests.erase_identity([made.id], epoch=epoch)
    done = requests.certify({made.id: digest(9)}, epoch=epoch)
    head = requests.verify()
    assert requests.certify({made.id: digest(9)}, epoch=epoch) == done
    with pytest.raises(RequestRefused, match="from there it goes to nowhere"):
        requests.certify({made.id: digest(8)}, epoch=epoch)
    assert requests.verify() == head


def test_somebody_whom_the_data_does_not_know_is_closed_with_a_receipt(requests: Requests) -> None:
    made = requests.add(ask("7"), "command")
    epoch = requests.claim("night", num_users=MANY).epoch
    (closed,) = requests.close_without_data({made.id: digest(9)}, epoch=epoch)
    assert (closed.state, closed.receipt, requests.identity(made.id).user_id) == ("no_data", digest(9), None)
    assert requests.close_without_data({made.id: digest(9)}, epoch=epoch) == [closed]


def test_failed_nights_queue_a_request_again_until_a_person_must_look(requests: Requests) -> None:
    made = requests.add(ask("7"), "command")
    for night in (1, 2, 3):
        epoch = requests.claim(f"night {night}", num_users=MANY).epoch
        requests.advance([made.id], "built", epoch=epoch, model=digest(5))
        (back,) = requests.fail_back([made.id], epoch=epoch)
        assert requests.fail_back([made.id], epoch=epoch) == [back]
        assert (back.attempts, back.model, back.state) == (night, None, "queued" if night < 3 else "needs_human")
    assert requests.claim("night 4", num_users=MANY).requests == ()
    assert requests.approve(made.id).attempts == 0
    assert len(requests.claim("night 5", num_users=MANY).requests) == 1


def test_a_request_that_nobody_has_verified_is_held_and_released_without_a_trace_of_damage(requests: Requests) -> None:
    made = requests.add(ask("7"), "http")
    requests.hold(made.id)
    assert requests.release(made.id).state == "received"
    requests.verify()


def test_what_was_promoted_has_no_failed_night(requests: Requests) -> None:
    made = requests.add(ask("7"), "command")
    epoch = requests.claim("night", num_users=MANY).epoch
    promoted(requests, made.id, epoch=epoch)
    with pytest.raises(RequestRefused, match="is promoted: its night has not failed"):
        requests.fail_back([made.id], epoch=epoch)


def forgotten_by_a_champion(requests: Requests, *users: str) -> tuple[list[RequestRecord], int]:
    """Requests that release 2, the champion after release 1, has forgotten; and the epoch of their claim."""
    made = requests.add_all([ask(user) for user in users], "command")
    epoch = requests.claim("night", num_users=MANY).epoch
    names, releases = [each.id for each in made], Releases(requests._ledger)
    champion(releases, 2, forgotten=[int(each.subject, 16) for each in made])
    requests.advance(names, "built", epoch=epoch, model=digest(1002))
    requests.advance(names, "gated", epoch=epoch, release=digest(2))
    return requests.advance(names, "promoted", epoch=epoch), epoch


def roll_back(requests: Requests, to: int = 1) -> None:
    releases = Releases(requests._ledger)
    releases.promote(to, seen_epoch=releases.line().epoch, kind="rollback", run="operator")


def test_a_rollback_before_the_purge_lets_requests_be_taken_back_and_carried_out_again(requests: Requests) -> None:
    (first, second), epoch = forgotten_by_a_champion(requests, "7", "8")
    with pytest.raises(RequestRefused, match="is not taken back: the champion has forgotten whom it is about"):
        requests.take_back([first.id], epoch=epoch)
    releases = Releases(requests._ledger)
    assert releases.still_known(1) == sorted([first.subject, second.subject])
    assert releases.still_known(1, "rollback") == []
    roll_back(requests)
    for taken in (requests.take_back([first.id, second.id], epoch=epoch), requests.take_back([second.id, first.id], epoch=epoch)[::-1]):
        assert [(each.state, each.attempts, each.model, each.release, each.epoch) for each in taken] == [
            ("queued", 0, None, None, epoch)
        ] * 2
    assert requests.identity(first.id).user_id == "7"
    assert [event.event for event in requests.history(first.id)][-2:] == ["request promoted", "request queued"]
    requests.verify()
    again = requests.claim("next night", num_users=MANY)
    assert {each.subject for each in again.requests} == {first.subject, second.subject}
    # A candidate that does not forget them is refused, as ever.
    with pytest.raises(ReleaseRefused, match="still knows 2 of those who were forgotten"):
        champion(releases, 3)
    champion(releases, 4, forgotten=[int(each.subject, 16) for each in again.requests])
    names = [first.id, second.id]
    requests.advance(names, "built", epoch=again.epoch, model=digest(1004))
    requests.advance(names, "gated", epoch=again.epoch, release=digest(4))
    requests.advance(names, "promoted", epoch=again.epoch)
    assert {each.state for each in requests.erase_identity(names, epoch=again.epoch)} == {"purged"}
    requests.verify()


def test_one_whose_data_is_purged_bars_the_way_back_for_all(requests: Requests) -> None:
    (first, second), epoch = forgotten_by_a_champion(requests, "7", "8")
    requests.erase_identity([first.id], epoch=epoch)
    assert Releases(requests._ledger).still_known(1, "rollback") == [first.subject]
    with pytest.raises(ReleaseRefused, match=f"still knows 1 of those who were forgotten: {first.subject}"):
        roll_back(requests)
    with pytest.raises(RequestRefused, match="is purged; only what is promoted, and not purged yet, is taken back"):
        requests.take_back([first.id], epoch=epoch)
    assert requests.request(second.id).state == "promoted"


def test_somebody_without_a_request_bars_the_way_back(requests: Requests) -> None:
    champion(Releases(requests._ledger), 2, forgotten=[5])
    with pytest.raises(ReleaseRefused, match="still knows 1 of those who were forgotten"):
        roll_back(requests)


def test_nothing_is_purged_that_the_champion_knows_again(requests: Requests) -> None:
    (made,), epoch = forgotten_by_a_champion(requests, "7")
    roll_back(requests)
    with pytest.raises(RequestRefused, match="the champion was rolled back to one that still knows whom it is about"):
        requests.erase_identity([made.id], epoch=epoch)
    assert requests.identity(made.id).user_id == "7"
    # Forward again, it may be.
    roll_back(requests, to=2)
    assert requests.erase_identity([made.id], epoch=epoch)[0].state == "purged"


def test_the_release_that_was_replaced_by_a_rollback_may_be_promoted_again(requests: Requests) -> None:
    (made,), epoch = forgotten_by_a_champion(requests, "7")
    roll_back(requests)
    requests.take_back([made.id], epoch=epoch)
    releases = Releases(requests._ledger)
    line = releases.promote(2, seen_epoch=releases.line().epoch, kind="promote", run="operator")
    assert (line.champion, requests.request(made.id).state) == (digest(2), "queued")


def test_what_has_failed_is_tried_by_halves_and_apart_from_what_is_new(requests: Requests) -> None:
    made = [each.id for each in requests.add_all([ask(str(number)) for number in range(6)], "command")]

    def claimed() -> list[str]:
        claim = requests.claim("night", num_users=MANY)
        names = [each.id for each in claim.requests]
        requests.fail_back([name for name in names if name == made[4]] and names, epoch=claim.epoch)
        return names

    # The fifth is what no method can carry out; whoever is claimed beside it fails, too.
    assert claimed() == made
    fresh = requests.add(ask("fresh"), "command").id
    assert claimed() == [fresh]
    assert claimed() == made[:3]
    assert claimed() == made[3:5]
    assert claimed() == made[5:]
    assert claimed() == made[3:4]
    assert claimed() == made[4:5]
    assert {requests.request(name).state for name in (*made[:4], made[5], fresh)} == {"claimed"}
    assert requests.request(made[4]).state == "needs_human"


def test_what_was_carried_out_once_can_no_longer_be_stopped(requests: Requests) -> None:
    (made,), epoch = forgotten_by_a_champion(requests, "7")
    roll_back(requests)
    requests.take_back([made.id], epoch=epoch)
    for stop in (requests.cancel, requests.reject, requests.hold):
        with pytest.raises(RequestRefused, match="was carried out before the champion was rolled back or a back-up restored"):
            stop(made.id)
    # Nor does a person have to look at it again, however many others ask and however often nights fail.
    others = requests.add_all([ask(str(number)) for number in range(20, 24)], "command")
    for _ in range(5):
        claim = requests.claim("night", num_users=1)
        assert made.id in [each.id for each in claim.requests]
        requests.fail_back([each.id for each in claim.requests], epoch=claim.epoch)
        assert requests.request(made.id).state == "queued"
    assert {requests.request(each.id).state for each in others} == {"needs_human"}


def test_a_run_that_was_taken_over_takes_nothing_back(requests: Requests) -> None:
    (made,), epoch = forgotten_by_a_champion(requests, "7")
    roll_back(requests)
    requests.takeover("other")
    with pytest.raises(Fenced):
        requests.take_back([made.id], epoch=epoch)
    assert requests.request(made.id).state == "promoted"


def test_requests_are_taken_back_all_or_none(requests: Requests) -> None:
    (made,), epoch = forgotten_by_a_champion(requests, "7")
    waiting = requests.add(ask("9"), "command")
    roll_back(requests)
    with pytest.raises(RequestRefused, match="is queued; only what is promoted"):
        requests.take_back([made.id, waiting.id], epoch=epoch)
    assert requests.request(made.id).state == "promoted"


def test_every_step_of_a_run_that_was_taken_over_is_refused(requests: Requests) -> None:
    made = requests.add(ask("7"), "command")
    old = requests.claim("first", num_users=MANY).epoch
    requests.advance([made.id], "built", epoch=old)
    taken = requests.takeover("second")
    assert (taken.epoch, taken.requests, [each.state for each in taken.unfinished]) == (old + 1, (), ["built"])
    head = requests.verify()
    steps: list[Callable[[], object]] = [
        lambda: requests.advance([made.id], "built", epoch=old),
        lambda: requests.advance([made.id], "gated", epoch=old),
        lambda: requests.fail_back([made.id], epoch=old),
        lambda: requests.take_back([made.id], epoch=old),
        lambda: requests.erase_identity([made.id], epoch=old),
        lambda: requests.certify({made.id: digest(1)}, epoch=old),
        lambda: requests.close_without_data({made.id: digest(1)}, epoch=old),
    ]
    for step in steps:
        with pytest.raises(Fenced, match=f"the epoch is {old + 1}, not {old}"):
            step()
    assert requests.verify() == head
    assert requests.advance([made.id], "gated", epoch=taken.epoch)[0].run == "second"


def test_an_unknown_or_malformed_name_is_refused_in_the_same_words(requests: Requests) -> None:
    said = set()
    for name in ("r-0123456789abcdef", "r-1", "", "\0", "r-0123456789abcdef\n", "' OR 1=1"):
        with pytest.raises(UnknownRequest) as refused:
            requests.cancel(name)
        said.add(str(refused.value))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", ""),
        ("user_id", "  "),
        ("user_id", "canary\n"[:-1] + "\x00"),
        ("user_id", "canary\udc80"),
        ("user_id", "canary" * 50),
        ("user_id", 7),
        ("items", ["canary", ""]),
        ("note", "canary" * 100),
        ("reason", "canary"),
        ("requested_at", "2026-01-01T00:00:00"),
        ("requested_at", "canary"),
        ("canary", "canary"),
    ],
)
def test_a_malformed_field_is_named_and_what_stands_in_it_is_not(field: str, value: object) -> None:
    with pytest.raises(BadInput) as refused:
        NewRequest.read({"user_id": "canary", field: value})
    assert "canary" not in str(refused.value)
    assert ("the whole" if field == "canary" else field) in refused.value.facts
    assert refused.value.__suppress_context__


def test_what_is_printed_of_a_request_does_not_name_the_person(requests: Requests) -> None:
    new = ask("canary", "canary-item", note="canary-note")
    made = requests.add(new, "command")
    assert "canary" not in repr(new) + repr(made) + repr(requests.identity(made.id)) + str(made)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE requests SET state = 'certified' WHERE number = 2", "`requests`"),
        ("UPDATE requests SET covers_until = received_at WHERE number = 1", "`requests`"),
        ("UPDATE requests SET attempts = 0 WHERE number = 1", "`requests`"),
        ("UPDATE runs_lock SET epoch = 0", "`runs_lock`"),
        ("UPDATE requests SET user_id = '8' WHERE number = 1", "is not about whom it was about"),
        ("UPDATE requests SET user_id = NULL WHERE number = 1", "is not about whom it was about"),
        ("UPDATE requests SET user_id = '9' WHERE number = 3", "is not about whom it was about"),
        ("UPDATE request_items SET item_id = 'b'", "is not about whom it was about"),
        ("DELETE FROM request_items", "is not about whom it was about"),
    ],
)
def test_a_request_that_was_edited_is_found(place: Path | str, change: str, said: str) -> None:
    requests = requests_at(place)
    requests.add_all([ask("7"), ask("8", "a")], "command")
    requests.fail_back([requests.requests()[0].id], epoch=requests.claim("night", num_users=MANY, limit=1).epoch)
    requests.cancel(requests.add(ask("9"), "command").id)
    requests.verify()
    with requests._ledger.writing() as connection:
        connection.execute(text(change))
    with pytest.raises(DamagedLedger, match=said):
        requests.verify()
