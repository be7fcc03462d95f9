"""Several processes at one ledger: first openers, promotions, a lock that is held; rows 15, 17, 63 and 64 of FAULTS."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ledgers import champion, child, digest, ended, release, releases_at

from e2urec_core.errors import ChampionChanged, StorageFailed
from e2urec_core.ledger import database, open_ledger
from e2urec_core.ledger.records import Line

PROCESSES, WINS = 4, 50


def win(place: Path | str, told: Path, own: tuple[int, int], gate: int) -> None:
    """Promote one or the other of two releases of one's own until fifty promotions have gone through."""
    os.read(gate, 1)
    releases, won = releases_at(place), []
    while len(won) < WINS:
        line = releases.line()
        target = next(number for number in own if digest(number) != line.champion)
        try:
            after = releases.promote(target, seen_epoch=line.epoch, kind="rollback", run=told.name)
        except ChampionChanged:
            continue
        assert after == Line(epoch=line.epoch + 1, champion=digest(target), previous=line.champion)
        won.append(after.epoch)
    told.write_text(json.dumps(won))


# Of processes that claim at once on a server: `test_requests_faults.py`.
@pytest.mark.parametrize("places", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_four_processes_with_fifty_promotions_each_lose_none_and_win_every_epoch_once(place: Path | str, tmp_path: Path) -> None:
    releases = releases_at(place)
    for number in range(2 * PROCESSES):
        champion(releases, number + 1)
    gate, opened = os.pipe()
    files = [tmp_path / f"process-{number}" for number in range(PROCESSES)]
    owned = [(2 * number + 1, 2 * number + 2) for number in range(PROCESSES)]
    processes = [child(lambda file=file, own=own: win(place, file, own, gate)) for file, own in zip(files, owned, strict=True)]
    os.write(opened, b"." * PROCESSES)
    assert [ended(process) for process in processes] == [0] * PROCESSES
    os.close(gate)
    os.close(opened)

    won = {file.name: json.loads(file.read_text()) for file in files}
    end = 2 * PROCESSES + PROCESSES * WINS
    assert sorted(itertools.chain(*won.values())) == list(range(2 * PROCESSES + 1, end + 1))
    assert releases.line().epoch == end
    changes = [json.loads(event.facts) for event in releases._ledger.events() if event.event == "champion changed"]
    assert [change["epoch"] for change in changes] == list(range(1, end + 1))
    assert {name: [change["epoch"] for change in changes if change["run"] == name] for name in won} == won
    releases.verify()


def test_four_first_openers_make_one_ledger(places: Callable[[], Path | str]) -> None:
    for _ in range(5):
        place = places()
        gate, opened = os.pipe()

        def open_at_once(place: Path | str = place, gate: int = gate) -> None:
            os.read(gate, 1)
            releases_at(place).add(release(1), {})

        processes = [child(open_at_once) for _ in range(PROCESSES)]
        os.write(opened, b"." * PROCESSES)
        assert [ended(process) for process in processes] == [0] * PROCESSES
        os.close(gate)
        os.close(opened)
        releases = releases_at(place)
        assert releases.verify().seq == 1
        assert releases.line() == Line(epoch=0)


def test_a_ledger_that_another_program_holds_is_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "requests.db"
    releases = releases_at(place)
    held, released = threading.Event(), threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(place, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        held.set()
        # It is longer than what the other needs when nobody holds the ledger.
        threading.Event().wait(2)
        released.set()
        connection.execute("COMMIT")
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    champion(releases, 1)
    assert released.is_set()
    holder.join()
    assert releases_at(place).line().epoch == 1


def test_a_ledger_that_stays_locked_is_refused_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "requests.db"
    ledger = open_ledger(place)
    monkeypatch.setattr(database, "_PRAGMAS", ("busy_timeout=20",))
    holder = sqlite3.connect(place, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageFailed, match="the ledger cannot be used: database is locked") as refused, ledger.writing():
        pass
    assert refused.value.facts == {"ledger": str(place)}
    holder.close()
    assert ledger.events() == []
