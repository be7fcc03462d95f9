"""Any history of releases and promotions, compared step by step with a model of plain dicts; I3 and I18 of FAULTS."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledgers import digest, release, releases_at, subject

from e2urec_core.errors import ChampionChanged, ReleaseRefused

SUBJECTS = range(1, 5)


@dataclass
class Made:
    passed: bool
    against: int
    forgotten: frozenset[int]
    registered: bool = False


class Line(RuleBasedStateMachine):
    """Releases are numbered from 1; 0 is none."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.releases = releases_at(self.folder / "requests.db")
        self.made: dict[int, Made] = {}
        self.champions = [0]

    def teardown(self) -> None:
        self.releases.verify()
        assert [made.bundle for made in self.releases.releases()] == [digest(number) for number in sorted(self.made, reverse=True)]
        for number, made in self.made.items():
            assert self.releases.forgotten_by(digest(number)).keys() == {subject(each) for each in made.forgotten}
            assert self.releases.still_known(digest(number)) == [subject(each) for each in sorted(self.gone() - made.forgotten)]
        shutil.rmtree(self.folder)

    @rule(
        passed=st.sampled_from([True, True, True, False]),
        against=st.sampled_from(["champion", "champion", "champion", "none", "before"]),
        more=st.frozensets(st.sampled_from(SUBJECTS), max_size=2),
        inherits=st.sampled_from([True, True, True, False]),
        registers=st.booleans(),
    )
    def add(self, passed: bool, against: str, more: frozenset[int], inherits: bool, registers: bool) -> None:
        number = len(self.made) + 1
        judged = {"champion": self.champions[-1], "none": 0, "before": self.champions[max(0, len(self.champions) - 2)]}[against]
        forgotten = more | (self.gone() if inherits else frozenset())
        self.made[number] = Made(passed, judged, forgotten)
        made = self.releases.add(release(number, against=judged, passed=passed), {subject(each): digest(each) for each in forgotten})
        assert made.state == "built"
        if registers:
            self.register(number)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def register_any(self, data: st.DataObject) -> None:
        self.register(data.draw(st.sampled_from(sorted(self.made))))

    def register(self, number: int) -> None:
        self.made[number].registered = True
        assert self.releases.registered(digest(number), number).state == "registered"

    @precondition(lambda self: self.made)
    @rule(data=st.data(), kind=st.sampled_from(["promote", "rollback"]), late=st.sampled_from([0, 0, 0, 1]))
    def change(self, data: st.DataObject, kind: str, late: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.made, reverse=True)))
        before, seen = self.champions[-1], max(0, len(self.champions) - 1 - late)
        made = self.made[number]
        fit = {"promote": made.passed and made.against == before, "rollback": number in self.champions}[kind]
        fit = fit and made.registered and self.gone() <= made.forgotten

        def promote() -> None:
            after = self.releases.promote(digest(number), seen_epoch=seen, kind=kind, run="test")
            assert after.champion == digest(number)

        if number == before:
            promote()
        elif seen != len(self.champions) - 1:
            with pytest.raises(ChampionChanged):
                promote()
        elif not fit:
            with pytest.raises(ReleaseRefused):
                promote()
        else:
            promote()
            self.champions.append(number)

    @rule()
    def open_again(self) -> None:
        self.releases = releases_at(self.folder / "requests.db")

    def gone(self) -> frozenset[int]:
        """Whom a champion has ever forgotten."""
        return frozenset().union(*(self.made[number].forgotten for number in self.champions if number))

    @invariant()
    def the_line_is_the_models(self) -> None:
        line = self.releases.line()
        assert line.epoch == len(self.champions) - 1
        names = [digest(number) if number else None for number in [0, *self.champions][-2:]]
        assert [line.previous, line.champion] == names
        assert self.releases.completed().keys() == {subject(each) for each in self.gone()}

    @invariant()
    def the_champion_is_registered_has_passed_and_knows_nobody_who_was_forgotten(self) -> None:
        line = self.releases.line()
        if line.champion is not None:
            champion = self.releases.release(line.champion)
            assert champion.state == "registered"
            assert champion.passed
            assert self.releases.still_known(line.champion) == []


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=20, stateful_step_count=20)
