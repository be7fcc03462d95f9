"""Deletion requests under kills, pauses and races, and what the database's bytes still know; rows 1, 7, 15, 16, 21, 22 and 79 of FAULTS."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ledgers import champion, child, digest, ended, promoted, releases_at, requests_at

from e2urec_core.errors import Fenced
from e2urec_core.failpoints import VARIABLE
from e2urec_core.ledger.request_records import NewRequest
from tests.by_default import few

PROCESSES, EACH = 4, 8
DAY = datetime(2026, 1, 1, tzinfo=UTC)
USERS = ("canary-one", "canary-two")
# Three of eleven transactions erase people, and the scrub after each ends with one of its own.
TRANSACTIONS, SCRUBS = 14, 3


def story(place: Path | str) -> None:
    """From two requests to a receipt for one and a withdrawal of the other; it may be begun again wherever it was ended."""
    releases, requests = releases_at(place), requests_at(place)
    if releases.line().epoch == 0:
        champion(releases, 1)
    new = [NewRequest(user_id=user, requested_at=DAY, note="canary-note") for user in USERS]
    first, second = requests.add_all(new, "import", ["1", "2"])
    requests.cancel(second.id)
    if first.state == "certified":
        return
    taken = requests.claim("night", num_users=2)
    (mine,) = (*taken.requests, *taken.unfinished)
    assert mine.id == first.id
    steps: list[tuple[str, Callable[[], object]]] = [
        ("built", lambda: requests.advance([mine.id], "built", epoch=taken.epoch, model=digest(2))),
        ("gated", lambda: requests.advance([mine.id], "gated", epoch=taken.epoch, release=digest(1))),
        ("promoted", lambda: requests.advance([mine.id], "promoted", epoch=taken.epoch)),
        ("purged", lambda: requests.erase_identity([mine.id], epoch=taken.epoch)),
        ("certified", lambda: requests.certify({mine.id: digest(9)}, epoch=taken.epoch)),
    ]
    states = ["claimed", *(state for state, _ in steps)]
    for _, step in steps[states.index(mine.state) :]:
        step()


def assert_legal(place: Path | str) -> None:
    requests = requests_at(place)
    requests.verify()
    made = requests.requests()
    assert len(made) in (0, 2)
    for each in made:
        told = [json.loads(event.facts)["to"] for event in requests.history(each.id)]
        assert told[:3] == ["received", "verified", "queued"]
        assert told.count("certified") <= 1


def assert_finished(place: Path | str) -> None:
    story(place)
    assert [each.state for each in requests_at(place).requests()] == ["certified", "cancelled"]
    if isinstance(place, Path):
        assert b"canary" not in raw_bytes(place)


def raw_bytes(place: Path) -> bytes:
    return b"".join(path.name.encode() + path.read_bytes() for path in place.parent.iterdir())


FAILPOINTS = ("ledger.commit", "ledger.committed", "ledger.scrub", "ledger.scrubbed")


@pytest.mark.parametrize("name", few({"ledger.committed", "ledger.scrub"}, FAILPOINTS))
def test_a_story_killed_at_any_failpoint_can_be_told_to_its_end(quick_path: Path, name: str) -> None:
    for nth in itertools.count(1):
        place = quick_path / f"{nth}" / "requests.db"
        status = ended(child(lambda place=place: story(place), **{VARIABLE: f"{name}:{nth}:kill"}))
        assert_legal(place)
        assert_finished(place)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert nth - 1 == (SCRUBS if "scrub" in name else TRANSACTIONS)


def test_a_server_killed_at_every_third_commit_loses_nothing(postgres: Callable[[], str]) -> None:
    for nth in itertools.count(1, 3):
        place = postgres()
        status = ended(child(lambda place=place: story(place), **{VARIABLE: f"ledger.committed:{nth}:kill"}))
        assert_legal(place)
        assert_finished(place)
        if status == 0:
            break
    assert nth > 3


@pytest.mark.parametrize("then", ["erases one more", "opens the ledger"])
def test_no_byte_of_anybody_is_left_once_somebody_scrubs(quick_path: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    place = quick_path / "requests.db"
    requests, draws, left = requests_at(place), random.Random(0), []
    with monkeypatch.context() as as_if_killed:
        as_if_killed.setattr(requests._ledger, "scrub", lambda: None)
        # Pages are split and joined, and rows of all lengths moved between them.
        for number in range(8):
            new = [asked(f"canary{draws.randrange(10**9):09}", draws) for _ in range(80)]
            left += [each.id for each in requests.add_all(new, "import", [f"canary{number}-{row}" for row in range(80)])]
            draws.shuffle(left)
            for _ in range(20):
                requests.cancel(left.pop())
        while left:
            requests.cancel(left.pop())
    assert b"canary" in raw_bytes(place), "nothing is left to scrub"
    if then == "erases one more":
        requests.cancel(requests.add(NewRequest(user_id="7"), "command").id)
    else:
        requests_at(place)
    assert b"canary" not in raw_bytes(place)
    requests.verify()


def asked(user: str, draws: random.Random) -> NewRequest:
    items = tuple(f"canary-item{item}" for item in range(draws.randrange(5)))
    return NewRequest(user_id=user, items=items, note="canary" * draws.randrange(80), requested_at=DAY)


def test_an_old_run_that_wakes_after_a_takeover_changes_nothing(places: Callable[[], Path | str], tmp_path: Path) -> None:
    place, told = places(), tmp_path / "told"
    champion(releases_at(place), 1)
    requests = requests_at(place)
    made = requests.add(NewRequest(user_id="7", requested_at=DAY), "command")
    epoch = requests.claim("old", num_users=9).epoch

    def go_on() -> None:
        mine, refused = requests_at(place), 0
        steps: list[Callable[[], object]] = [
            lambda: mine.advance([made.id], "built", epoch=epoch),
            lambda: mine.fail_back([made.id], epoch=epoch),
            lambda: mine.erase_identity([made.id], epoch=epoch),
            lambda: mine.certify({made.id: digest(3)}, epoch=epoch),
        ]
        for step in steps:
            try:
                step()
            except Fenced:
                refused += 1
        told.write_text(f"{refused}")

    process = child(go_on, **{VARIABLE: "ledger.begin:1:stop"})
    assert os.WIFSTOPPED(os.waitpid(process, os.WUNTRACED)[1])
    promoted(requests, made.id, epoch=requests.takeover("new").epoch)
    before = requests.verify()
    os.kill(process, signal.SIGCONT)
    assert ended(process) == 0
    assert told.read_text() == "4"
    assert requests.verify() == before


def test_four_processes_that_add_the_same_users_make_one_request_of_each(place: Path | str, tmp_path: Path) -> None:
    requests = requests_at(place)
    gate, opened = os.pipe()
    files = [tmp_path / f"process-{number}" for number in range(PROCESSES)]

    def add(file: Path) -> None:
        os.read(gate, 1)
        mine = requests_at(place)
        file.write_text(json.dumps([mine.add(NewRequest(user_id=f"{user}", requested_at=DAY), "command").id for user in range(EACH)]))

    processes = [child(lambda file=file: add(file)) for file in files]
    os.write(opened, b"." * PROCESSES)
    assert [ended(process) for process in processes] == [0] * PROCESSES
    os.close(gate)
    os.close(opened)
    named = [json.loads(file.read_text()) for file in files]
    assert named == [named[0]] * PROCESSES
    assert sorted(named[0]) == sorted(each.id for each in requests.requests())
    assert len(requests.requests()) == EACH
    requests.verify()


def test_four_runs_that_claim_at_once_share_nothing_and_only_the_last_may_go_on(place: Path | str, tmp_path: Path) -> None:
    requests = requests_at(place)
    made = requests.add_all([NewRequest(user_id=f"{user}", requested_at=DAY) for user in range(EACH)], "command")
    gate, opened = os.pipe()
    files = [tmp_path / f"process-{number}" for number in range(PROCESSES)]

    def claim(file: Path) -> None:
        os.read(gate, 1)
        got = requests_at(place).claim(file.name, num_users=10**4, limit=3)
        file.write_text(json.dumps([got.epoch, [each.id for each in got.requests]]))

    processes = [child(lambda file=file: claim(file)) for file in files]
    os.write(opened, b"." * PROCESSES)
    assert [ended(process) for process in processes] == [0] * PROCESSES
    os.close(gate)
    os.close(opened)
    got = [json.loads(file.read_text()) for file in files]
    assert sorted(epoch for epoch, _ in got) == [1, 2, 3, 4]
    assert sorted(name for _, names in got for name in names) == sorted(each.id for each in made)
    for epoch in (1, 2, 3):
        with pytest.raises(Fenced):
            requests.advance([made[0].id], "built", epoch=epoch)
    assert requests.advance([each.id for each in made], "built", epoch=4)[0].state == "built"


def test_events_name_nobody(tmp_path: Path) -> None:
    place = tmp_path / "requests.db"
    story(place)
    told = "".join(event.model_dump_json() for event in requests_at(place)._ledger.events())
    assert "canary" not in told
    assert "request certified" in told
