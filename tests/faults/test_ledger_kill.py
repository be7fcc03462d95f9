"""The ledger under kills: at every failpoint and at every statement, and again during recovery; rows 1, 4, 7 and 82 of FAULTS.

What was killed either happened or did not, and the same calls again end where an undisturbed process ends.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from ledgers import champion, child, digest, ended, registered, releases_at, subject
from sqlalchemy import Engine, event

from e2urec_core.errors import ReleaseRefused, StorageFailed
from e2urec_core.failpoints import VARIABLE
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.records import Line
from tests.by_default import few

CORE = Path(__file__).parents[2] / "e2urec_core"
# How often the story passes each: a file is made beside its place, another database by a transaction like any other.
PASSED = {
    "ledger.begin": {"file": 6, "server": 7},
    "ledger.commit": {"file": 6, "server": 7},
    "ledger.committed": {"file": 6, "server": 7},
    # Nobody is erased in this story.
    "ledger.scrub": {"file": 0, "server": 0},
    "ledger.scrubbed": {"file": 0, "server": 0},
    "ledger.create": {"file": 1, "server": 0},
    "ledger.created": {"file": 1, "server": 0},
}


def story(place: Path | str) -> None:
    """Six transactions that write, and every one may be repeated."""
    releases = releases_at(place)
    registered(releases, 1)
    releases.promote(1, seen_epoch=0, kind="promote", run="test")
    registered(releases, 2, against=1, forgotten=[1])
    releases.promote(2, seen_epoch=1, kind="promote", run="test")


def assert_legal(place: Path | str) -> None:
    releases = releases_at(place)
    releases.verify()
    line, made = releases.line(), releases.releases()
    assert line.epoch <= 2
    assert [each.bundle for each in made] == [digest(number) for number in range(len(made), 0, -1)]
    assert line.champion in {None, *(each.bundle for each in made if each.state == "registered")}


def assert_finished(place: Path | str) -> None:
    """Repeat the calls that a killed process was in the middle of; what was there already is not there twice."""
    releases = releases_at(place)
    registered(releases, 1)
    if releases.line().epoch == 0:
        releases.promote(1, seen_epoch=0, kind="promote", run="test")
    registered(releases, 2, against=1, forgotten=[1])
    assert releases.promote(2, seen_epoch=1, kind="promote", run="test") == Line(epoch=2, champion=digest(2), previous=digest(1))
    assert releases.verify().seq == 6
    assert releases.completed() == {subject(1): 2}


def killed_at_statement(place: Path | str, nth: int, work: Callable[[Path | str], None]) -> None:
    numbers = itertools.count(1)

    def count(*_: object) -> None:
        if next(numbers) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    work(place)


def test_every_failpoint_of_the_ledger_is_one_of_these() -> None:
    sources = "".join(path.read_text() for path in (CORE / "ledger").rglob("*.py"))
    assert re.findall(r'failpoint\("([a-z.]+)"\)', sources) == list(PASSED)


# In the database of a server or a file; a process that ends by an error closes what it has open, and that is the easier end.
@pytest.mark.parametrize(
    ("name", "action"),
    few(
        {("ledger.commit", "kill"), ("ledger.committed", "kill"), ("ledger.created", "kill"), ("ledger.commit", "raise")},
        itertools.product(PASSED, ["kill", "raise"]),
    ),
)
def test_a_process_that_ends_at_any_failpoint_leaves_a_legal_ledger_on_which_the_same_calls_finish(
    places: Callable[[], Path | str], name: str, action: str
) -> None:
    for nth in itertools.count(1):
        place = places()
        status = ended(child(lambda place=place: story(place), **{VARIABLE: f"{name}:{nth}:{action}"}))
        assert_legal(place)
        assert_finished(place)
        if status == 0:
            break
        assert status == {"kill": -signal.SIGKILL, "raise": 1}[action]
    assert nth - 1 == PASSED[name]["file" if isinstance(place, Path) else "server"]


@pytest.mark.parametrize("name", few({"ledger.commit", "ledger.create"}, PASSED))
def test_a_process_that_is_killed_while_it_recovers_leaves_a_legal_ledger_too(quick_path: Path, name: str) -> None:
    for first, second in itertools.product(range(1, PASSED[name]["file"] + 1), (1, 2)):
        place = quick_path / f"{first}-{second}" / "requests.db"
        for nth in (first, second):
            ended(child(lambda place=place: assert_finished(place), **{VARIABLE: f"{name}:{nth}:kill"}))
            assert_legal(place)
        assert_finished(place)


def test_a_ledger_whose_every_commit_is_killed_changes_nothing_for_as_long_as_that_lasts(quick_path: Path) -> None:
    place = quick_path / "requests.db"
    open_ledger(place)
    for _ in range(5):
        assert ended(child(lambda: story(place), **{VARIABLE: "ledger.commit:0:kill"})) == -signal.SIGKILL
        assert open_ledger(place).events() == []
    assert_finished(place)


# The story's statements are many, and every third leaves none of its transactions out.
@pytest.mark.parametrize(
    ("work", "step"),
    [
        pytest.param(open_ledger, 1, marks=pytest.mark.long, id="migration"),
        pytest.param(story, 3, marks=pytest.mark.long, id="story"),
        pytest.param(open_ledger, 5, id="some of the migration"),
        pytest.param(story, 11, id="some of the story"),
    ],
)
def test_a_process_killed_at_any_statement_leaves_a_legal_ledger(quick_path: Path, work: Callable[[Path | str], None], step: int) -> None:
    for nth in itertools.count(1, step):
        place = quick_path / f"{nth}" / "requests.db"
        status = ended(child(lambda place=place, nth=nth: killed_at_statement(place, nth, work)))
        assert_legal(place)
        assert_finished(place)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    # The tables, triggers and rows of the schema alone are more.
    assert nth > 15


def test_a_postgresql_migration_killed_at_any_statement_leaves_nothing(postgres: Callable[[], str]) -> None:
    for nth in itertools.count(1, 4):
        place = postgres()
        status = ended(child(lambda place=place, nth=nth: killed_at_statement(place, nth, open_ledger)))
        assert_finished(place)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert nth > 15


def test_a_paused_process_that_wakes_after_another_promotion_is_refused(places: Callable[[], Path | str], tmp_path: Path) -> None:
    place, told = places(), tmp_path / "told"
    releases = releases_at(place)
    champion(releases, 1)
    registered(releases, 2, against=1)

    def late() -> None:
        try:
            releases_at(place).promote(2, seen_epoch=1, kind="promote", run="late")
        except Exception as error:
            told.write_text(str(error))

    process = child(late, **{VARIABLE: "ledger.begin:1:stop"})
    assert os.WIFSTOPPED(os.waitpid(process, os.WUNTRACED)[1])
    champion(releases, 3)
    before = releases.verify()
    os.kill(process, signal.SIGCONT)
    assert ended(process) == 0
    assert told.read_text().startswith("ChampionChanged: the champion changed from version 1 to version 3 meanwhile\n")
    assert releases.verify() == before


def test_a_commit_whose_outcome_is_unknown_may_be_repeated(place: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    releases = releases_at(place)
    registered(releases, 1)
    # Past the begin of one transaction, and then lost after its commit, as when a connection breaks.
    monkeypatch.setenv(VARIABLE, "ledger.committed:0:raise")
    with pytest.raises(StorageFailed, match=r"failpoint `ledger\.committed`"):
        releases.promote(1, seen_epoch=0, kind="promote", run="test")
    monkeypatch.delenv(VARIABLE)
    assert releases.promote(1, seen_epoch=0, kind="promote", run="test") == Line(epoch=1, champion=digest(1))
    assert releases.verify().seq == 3


def test_a_refused_promotion_leaves_no_trace(place: Path | str) -> None:
    releases = releases_at(place)
    champion(releases, 1)
    registered(releases, 2, against=1, passed=False)
    before = releases.verify(), releases.line()
    with pytest.raises(ReleaseRefused):
        releases.promote(2, seen_epoch=1, kind="promote", run="test")
    assert (releases.verify(), releases.line()) == before
