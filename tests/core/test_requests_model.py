"""Any history of requests, runs, champions and ways back, compared step by step with plain dicts; I1, I2, I3, I6, I7, I16 of FAULTS."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledgers import champion, digest, release, releases_at, requests_at

from e2urec_core.errors import Fenced, ReleaseRefused, RequestRefused
from e2urec_core.ledger.request_records import NewRequest, RequestRecord
from e2urec_core.ledger.requests import Requests

WAY = ("claimed", "built", "gated", "promoted", "purged", "certified")
GONE = ("purged", "certified", "no_data", "cancelled", "rejected")
WAITING = ("received", "queued", "needs_human")


@dataclass
class Asked:
    user: str
    items: tuple[str, ...]
    until: int
    state: str
    attempts: int = 0
    approved: bool = False
    before: str = ""
    epoch: int = 0
    release: int = 0
    once: bool = False
    """Whether it was ever promoted."""


class Night(RuleBasedStateMachine):
    """Days stand for times; a receipt's digest is the request's place. Releases are numbered; each has forgotten some requests."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        champion(releases_at(self.folder / "requests.db"), 1)
        self.requests: Requests = requests_at(self.folder / "requests.db", approval_share=0.5)
        self.asked: dict[str, Asked] = {}
        self.epoch = 0
        self.forgotten: dict[int, frozenset[str]] = {1: frozenset()}
        self.champions = [1]

    def teardown(self) -> None:
        self.requests.verify()
        for name, model in self.asked.items():
            moves = [(event.event, json.loads(event.facts)) for event in self.requests.history(name)]
            told = [None]
            for _, facts in moves:
                assert facts["from"] == told[-1], "a step was skipped"
                told.append(facts["to"])
            assert told[-1] == model.state
            assert told.count("certified") <= 1
            if model.state == "certified":
                assert tuple(told[-len(WAY) :]) == WAY
        shutil.rmtree(self.folder)

    def any_of(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.asked, key=lambda name: self.requests.request(name).number)))

    def done_or_refused(self, fit: bool, step: Callable[[], object]) -> None:
        """Do a step twice, as after a kill, or see it refused without a trace."""
        before = self.requests._ledger.head()
        if not fit:
            with pytest.raises(RequestRefused):
                step()
            assert self.requests._ledger.head() == before
            return
        first = step()
        head = self.requests._ledger.head()
        assert step() == first
        assert self.requests._ledger.head() == head

    @rule(
        user=st.sampled_from("ab"),
        items=st.sampled_from([(), (), ("x",)]),
        day=st.integers(1, 3),
        source=st.sampled_from(["http", "import"]),
    )
    def add(self, user: str, items: tuple[str, ...], day: int, source: str) -> None:
        same = [(name, each) for name, each in self.asked.items() if (each.user, each.items) == (user, items) and each.state not in GONE]
        joins = ("received", "legal_hold") if source == "http" else (*WAITING, "legal_hold")
        fitting = [name for name, each in reversed(same) if each.state in joins]
        fitting += [name for name, each in reversed(same) if each.until >= day]
        new = NewRequest(user_id=user, items=items, requested_at=datetime(2026, 1, day, tzinfo=UTC))
        made = self.requests.add(new, source)
        if fitting:
            assert made.id == fitting[0]
            self.asked[made.id].until = max(day, self.asked[made.id].until)
        else:
            assert made.id not in self.asked
            self.asked[made.id] = Asked(user, items, day, "received")
        if source != "http" and self.asked[made.id].state == "received":
            self.asked[made.id].state = "queued"

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), step=st.sampled_from(["verify_person", "cancel", "reject", "hold", "release", "approve"]))
    def decide(self, data: st.DataObject, step: str) -> None:
        name = self.any_of(data)
        each = self.asked[name]
        closing = {"cancel": "cancelled", "reject": "rejected"}
        fit = {
            "verify_person": each.state not in ("legal_hold", "certified", "no_data", "cancelled", "rejected"),
            "cancel": (each.state in WAITING and not each.once) or each.state == "cancelled",
            "reject": (each.state in WAITING and not each.once) or each.state == "rejected",
            "hold": (each.state in WAITING and not each.once) or each.state == "legal_hold",
            "release": True,
            "approve": each.state in ("queued", "needs_human"),
        }[step]
        self.done_or_refused(fit, lambda: getattr(self.requests, step)(name))
        if not fit:
            return
        if step in closing:
            each.state = closing[step]
        elif step == "verify_person" and each.state == "received":
            each.state = "queued"
        elif step == "hold" and each.state != "legal_hold":
            each.before, each.state = each.state, "legal_hold"
        elif step == "release" and each.state == "legal_hold":
            each.state = each.before
        elif step == "approve":
            each.attempts, each.state, each.approved = 0 if each.state == "needs_human" else each.attempts, "queued", True

    @rule(limit=st.sampled_from([None, 1]), num_users=st.sampled_from([1, 4]))
    def claim(self, limit: int | None, num_users: int) -> None:
        claim = self.requests.claim("run", num_users=num_users, limit=limit)
        self.epoch += 1
        assert claim.epoch == self.epoch
        assert {each.id for each in claim.unfinished} == {name for name, each in self.asked.items() if each.state in WAY[:-1]}
        users: set[str] = set()
        claimed = []
        # They are due in the order in which they came in.
        queued = {name: each for name, each in self.asked.items() if each.state == "queued"}
        fewest = min((each.attempts for each in queued.values()), default=0)
        first = [name for name, each in queued.items() if each.attempts == fewest]
        first = first[: (len(first) + 1) // 2] if fewest else first
        for name, each in queued.items():
            if not (name in first or each.once) or len(claimed) == limit:
                continue
            each.epoch = self.epoch
            if each.approved or each.user in users or len(users) < max(1, num_users // 2):
                users |= set() if each.approved else {each.user}
                each.state = "claimed"
                claimed.append(name)
            else:
                each.state = "needs_human"
        assert [each.id for each in claim.requests] == claimed

    @rule()
    def take_over(self) -> None:
        taken = self.requests.takeover("other run")
        self.epoch += 1
        assert taken.epoch == self.epoch
        assert {each.id for each in taken.unfinished} == {name for name, each in self.asked.items() if each.state in WAY[:-1]}

    def step(self, name: str, to: str, epoch: int, again: bool = False) -> list[RequestRecord]:
        match to:
            case "purged":
                return self.requests.erase_identity([name], epoch=epoch)
            case "certified":
                return self.requests.certify({name: digest(7)}, epoch=epoch)
            case "no_data":
                return self.requests.close_without_data({name: digest(7)}, epoch=epoch)
            case "queued":
                return self.requests.fail_back([name], epoch=epoch)
        release = (self.asked[name].release if again else self.champions[-1]) if to == "promoted" else None
        return self.requests.advance([name], to, epoch=epoch, release=None if release is None else digest(release))

    @precondition(lambda self: self.asked and self.epoch)
    @rule(data=st.data(), forward=st.booleans(), to=st.sampled_from([*WAY[1:], "no_data", "needs_human", "queued"]))
    def carry_on(self, data: st.DataObject, forward: bool, to: str) -> None:
        """Mostly forward, so that histories come to an end."""
        name = self.any_of(data)
        each = self.asked[name]
        if forward and each.state in WAY[:-1]:
            to = WAY[WAY.index(each.state) + 1]
        again = to == each.state if to != "queued" else each.state in ("queued", "needs_human") and each.epoch == self.epoch
        onward = each.state in WAY[:-1] and to == WAY[WAY.index(each.state) + 1]
        aside = (to == "no_data" and each.state == "claimed") or (to in ("needs_human", "queued") and each.state in WAY[:3])
        if to == "purged" and not again and name in self.forgotten.get(each.release, ()) and name not in self.forgotten[self.champions[-1]]:
            onward = False
        self.done_or_refused(again or onward or aside, lambda: self.step(name, to, self.epoch, again))
        if again or not (onward or aside):
            return
        each.epoch = self.epoch
        each.release = 0 if to == "queued" else self.champions[-1] if to == "promoted" else each.release
        if to == "queued":
            each.attempts += 1
            to = "queued" if each.attempts < 3 or each.once else "needs_human"
        each.state, each.once = to, each.once or to == "promoted"

    @precondition(lambda self: self.asked and self.epoch > 1)
    @rule(data=st.data(), to=st.sampled_from([*WAY[1:], "no_data", "needs_human", "queued"]), late=st.integers(1, 2))
    def go_on_as_a_run_that_slept(self, data: st.DataObject, to: str, late: int) -> None:
        before = self.requests._ledger.head()
        with pytest.raises(Fenced):
            self.step(self.any_of(data), to, self.epoch - late)
        assert self.requests._ledger.head() == before

    @precondition(lambda self: self.asked and self.epoch)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        promoted = [name for name, each in self.asked.items() if each.state == "promoted"]
        self.taken_back(data.draw(st.sampled_from(promoted)) if promoted else self.any_of(data))

    def taken_back(self, name: str) -> None:
        each = self.asked[name]
        again = each.state == "queued" and each.epoch == self.epoch
        fit = each.state == "promoted" and name not in self.forgotten[self.champions[-1]]
        self.done_or_refused(again or fit, lambda: self.requests.take_back([name], epoch=self.epoch))
        if fit:
            each.state, each.epoch, each.release, each.approved = "queued", self.epoch, 0, True

    def gone(self) -> frozenset[str]:
        """Whom a champion has ever forgotten."""
        return frozenset().union(*(self.forgotten[number] for number in self.champions))

    @rule(data=st.data(), inherits=st.sampled_from([True, True, False]))
    def release_and_promote(self, data: st.DataObject, inherits: bool) -> None:
        """A release that has forgotten some requests, and what champions have forgotten, or not."""
        some = data.draw(st.frozensets(st.sampled_from(sorted(self.asked)), max_size=3)) if self.asked else frozenset()
        forgotten = some | (self.gone() if inherits else frozenset())
        self.change(self.released(forgotten), "promote", self.gone() <= forgotten)

    def released(self, forgotten: frozenset[str]) -> int:
        """A registered release that was judged against the champion."""
        number = len(self.forgotten) + 1
        self.forgotten[number] = forgotten
        releases = releases_at(self.folder / "requests.db")
        made = release(number, against=self.champions[-1])
        releases.add(made, {self.requests.request(name).subject: digest(7) for name in forgotten})
        releases.registered(made.bundle, number)
        return number

    @rule(back=st.sampled_from(["no", "rolled back", "taken back"]))
    def a_whole_night(self, back: str) -> None:
        """Up to the promotion; then, maybe, the way back."""
        self.claim(limit=None, num_users=4)
        claimed = {name: each for name, each in self.asked.items() if each.state == "claimed"}
        if claimed:
            number = self.released(self.gone() | claimed.keys())
            self.change(number, "promote", True)
            for to in WAY[1:4]:
                self.requests.advance([*claimed], to, epoch=self.epoch, release=digest(number))
            for each in claimed.values():
                each.state, each.epoch, each.release, each.once = "promoted", self.epoch, number, True
            if back != "no":
                self.back_to(self.champions[-2])
            if back == "taken back":
                for name in claimed:
                    self.taken_back(name)

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        self.back_to(data.draw(st.sampled_from(sorted(set(self.champions)))))

    def back_to(self, number: int) -> None:
        known = self.gone() - self.forgotten[number]
        self.change(number, "rollback", all(self.asked[name].state == "promoted" for name in known))

    @rule(data=st.data())
    def promote_again(self, data: st.DataObject) -> None:
        """What was replaced by a rollback may be promoted again: the champion is the one that it was judged against."""
        number = data.draw(st.sampled_from(sorted(self.forgotten)))
        against = releases_at(self.folder / "requests.db").release(number).judged_against
        self.change(number, "promote", against == digest(self.champions[-1]) and self.gone() <= self.forgotten[number])

    def change(self, number: int, kind: str, fit: bool) -> None:
        releases = releases_at(self.folder / "requests.db")
        if fit or number == self.champions[-1]:
            releases.promote(number, seen_epoch=releases.line().epoch, kind=kind, run="test")
            self.champions += [number] if number != self.champions[-1] else []
        else:
            with pytest.raises(ReleaseRefused):
                releases.promote(number, seen_epoch=releases.line().epoch, kind=kind, run="test")

    @rule()
    def open_again(self) -> None:
        self.requests = requests_at(self.folder / "requests.db", approval_share=0.5)

    @invariant()
    def no_request_is_lost_and_each_stands_where_the_model_says(self) -> None:
        held = {each.id: each for each in self.requests.requests()}
        assert list(held) == list(self.asked)
        for name, each in self.asked.items():
            got = held[name]
            assert (got.state, got.attempts, got.approved, got.covers_until.day) == (each.state, each.attempts, each.approved, each.until)
            if each.state in ("promoted", "purged", "certified"):
                assert got.release == digest(each.release)
            if name in self.forgotten.get(each.release, ()) and each.state in ("purged", "certified"):
                assert name in self.forgotten[self.champions[-1]], "the champion knows somebody whose data is purged"
            person = self.requests.identity(name)
            known = each.state not in GONE
            assert (person.user_id, person.items) == ((each.user, each.items) if known else (None, ()))
            assert (person.nonce is None) == (each.state in GONE[1:])


TestNight = Night.TestCase
TestNight.settings = settings(max_examples=20, stateful_step_count=25)
