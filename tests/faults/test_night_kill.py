"""Nights that are killed, stopped, started twice or run out of disk: no request is lost, carried out twice or finished early."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import IO

import pytest
from e2urec_console import COMMAND, Answer, Story, clean_environment, shared_folder, story_told_once
from nightly_shops import NIGHT, NightShop

from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.requests import Requests

pytestmark = pytest.mark.slow
# In the order in which a night passes them: each rerun comes as far as the next.
POINTS = (
    *("release.added:1", "release.uploaded:1", "night.registered:1", "promote.recorded:1", "night.promoted:1", "night.noted-gated:1"),
    *("night.noted-promoted:1", "erase.suppressed:1", "erase.noted:1", "erase.artifact:2", "erase.renamed:3", "erase.snapshot:1"),
    *("erase.rewritten:1", "erase.tidy:1", "erase.file:1", "purge.version:1", "purge.run:2", "purge.vacuum:1", "erase.tracking:1"),
    *("erase.scanned:1", "erase.purged:1", "receipt.written:1", "certify.written:1"),
)
# Between the commit of the decision and everything that follows from it.
FEW = ("promote.recorded:1",)
SAID: dict[int, tuple[IO[bytes], IO[bytes]]] = {}
OPEN = ("queued", "claimed", "built", "gated", "promoted", "purged")


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Read it and leave it as it is."""
    return story_told_once(shared_folder(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="module")
def shop(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NightShop]:
    """A shop with a champion."""
    shop = NightShop.opened(story.workspace, tmp_path_factory.mktemp("killed") / "workspace")
    yield shop
    shop.console.close()


def night(shop: NightShop, *flags: str, before: Callable[[], None] | None = None, **environment: str) -> Answer:
    """A night in a process of its own; what it says goes into files, as what it starts may outlive it and hold a pipe."""
    with started(shop, *flags, before=before, **environment) as process:
        process.wait(300)
        return Answer(process.returncode, said(process, 0), said(process, 1))


@contextmanager
def started(
    shop: NightShop, *flags: str, before: Callable[[], None] | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A night that has begun."""
    line = [COMMAND, *NIGHT, *flags, "--workspace", str(shop.place)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as talk:
        process = subprocess.Popen(line, stdout=out, stderr=talk, env=clean_environment(**environment), preexec_fn=before)  # noqa: PLW1509
        SAID[process.pid] = (out, talk)
        yield process


def said(process: subprocess.Popen[bytes], stream: int) -> str:
    """What a night has said so far: 0 for data, 1 for talk."""
    file = SAID[process.pid][stream]
    file.seek(0)
    return file.read().decode()


def kill_through(shop: NightShop, points: tuple[str, ...], user: str, next_user: str) -> None:
    """Kill a night at each point, and the next one at the next, until one ends, which has a further request; then look at what is there."""
    request, before = shop.ask(user), len(shop.receipts())
    for point in points:
        killed = night(shop, E2UREC_FAILPOINT=f"{point}:kill")
        assert killed.code == -signal.SIGKILL, f"{point} was not reached: {killed.stderr}"
        assert shop.states()[request] in OPEN, point
    further = shop.ask(next_user)
    ended = shop.console(*NIGHT)
    assert ended.code == 0, ended.stderr
    assert (shop.states()[request], shop.states()[further]) == ("certified", "certified")
    # Else the rows of the first would have been retained rows of the second, and taught to the next champion.
    assert moved(shop, request, "purged") < moved(shop, further, "claimed")
    told = [each for each in shop.receipts() if each["request"] == request]
    assert (len(told), len(shop.receipts())) == (1, before + 2)
    assert told[0]["found"]["interactions"] > 0
    assert told[0]["model"]["version"] == shop.champion() - 1
    assert {each["kind"] for each in told[0]["erased"]["artifacts"]} >= {"Interactions", "Examples", "Tokens"}
    assert shop.console("receipt", "verify-all").code == 0
    assert shop.scan(user) == shop.scan(next_user) == []
    assert {path.parent.name for path in (shop.place / "store" / "objects").glob("*/*")} == {"Bundle", "Interactions", "Examples", "Tokens"}


def moved(shop: NightShop, request: str, state: str) -> int:
    """Number of the event by which a request came into a state."""
    history = Requests(open_ledger(shop.place / "requests.db")).history(request)
    return next(each.seq for each in history if each.event == f"request {state}")


def test_a_request_whose_nights_are_killed_again_and_again_is_carried_out_once(shop: NightShop) -> None:
    kill_through(shop, FEW, shop.users[0], shop.users[5])


@pytest.mark.long
def test_a_request_whose_nights_are_killed_at_every_step_is_carried_out_once(shop: NightShop) -> None:
    kill_through(shop, POINTS, shop.users[1], shop.users[6])


def test_of_two_nights_at_once_one_works_and_the_other_says_so(shop: NightShop) -> None:
    request, before = shop.ask(shop.users[2]), len(shop.receipts())
    with started(shop) as one, started(shop) as other:
        codes = sorted((one.wait(300), other.wait(300)))
        told = said(one, 1) + said(other, 1)
    assert codes in ([0, 2], [0, 0]), told
    assert ("another night is at work" in told) == (codes == [0, 2]), told
    assert shop.states()[request] == "certified"
    assert len(shop.receipts()) == before + 1


@pytest.mark.long
def test_a_night_that_sleeps_is_taken_over_and_can_do_nothing_more(shop: NightShop) -> None:
    request, before = shop.ask(shop.users[3]), len(shop.receipts())
    with started(shop, E2UREC_FAILPOINT="release.added:1:stop") as sleeping:
        os.waitid(os.P_PID, sleeping.pid, os.WSTOPPED)
        busy = night(shop)
        assert (busy.code, "another night is at work" in busy.stderr) == (2, True)
        taken = night(shop, "--take-over")
        # The one that sleeps might still read what is to be erased, so nothing is, and it says who is in the way.
        assert taken.code == 2
        assert "1 other runs still work with data that is to be erased" in taken.stderr
        assert shop.states()[request] == "promoted"
        champion = shop.champion()
        sleeping.send_signal(signal.SIGCONT)
        assert sleeping.wait(120) == 2
        assert "another run has taken the requests over" in said(sleeping, 1)
    assert (shop.states()[request], shop.champion()) == ("promoted", champion)
    assert night(shop).code == 0
    assert (shop.states()[request], shop.champion(), len(shop.receipts())) == ("certified", champion, before + 1)
    assert shop.scan(shop.users[3]) == []


def small_files() -> None:
    """As on a full disk: no file of this process can be longer than 64 KiB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


@pytest.mark.parametrize("also_full", [False, pytest.param(True, marks=pytest.mark.long)], ids=["a write fails", "no write succeeds"])
def test_a_full_disk_during_erasure_stops_the_night_and_the_next_one_goes_on(shop: NightShop, also_full: bool) -> None:
    user = shop.users[7 if also_full else 4]
    request = shop.ask(user)
    refused = night(shop, E2UREC_FAILPOINT="erase.artifact:3:raise")
    assert (refused.code, "StorageFailed" in refused.stderr) == (2, True), refused.stderr
    assert shop.states()[request] == "promoted"
    if also_full:
        full = night(shop, before=small_files)
        assert full.code == 2, full.stderr
        assert "StorageFailed" in full.stderr
        assert shop.states()[request] == "promoted"
    ended = shop.console(*NIGHT)
    assert ended.code == 0, ended.stderr
    assert shop.states()[request] == "certified"
    assert shop.scan(user) == []


@pytest.mark.long
def test_changed_bytes_are_found_before_a_night_begins(shop: NightShop) -> None:
    shop.ask(shop.users[5])
    shop.night()
    shop.ask(shop.users[6])
    receipt = sorted((shop.place / "receipts").glob("0*.json"))[0]
    before = receipt.read_bytes()
    receipt.write_bytes(before.replace(b"e", b"f", 1))
    assert shop.console("receipt", "verify-all").code == 2
    assert "the chain of receipts is not whole" in shop.console("erase").stderr
    receipt.write_bytes(before)
    with closing(sqlite3.connect(shop.place / "requests.db")) as ledger:
        (facts,) = ledger.execute("SELECT facts FROM events WHERE seq = 5").fetchone()
        for changed, code in ((facts.replace("e", "f", 1), 2), (facts, 0)):
            # Who can write the file can also do away with what guards it.
            for (trigger,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                ledger.execute(f"DROP TRIGGER {trigger}")
            ledger.execute("UPDATE events SET facts = ? WHERE seq = 5", (changed,))
            ledger.commit()
            answer = shop.console("nightly") if code else shop.console("requests", "list")
            assert (answer.code, "DamagedLedger" in answer.stderr) == (code, code == 2), answer.stderr
    (bundle,) = shop.artifacts("Bundle")
    weights = next(path for path in bundle.rglob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    # The store's copy is damaged, the registry's is whole, so the night goes on from that.
    ended = shop.console(*NIGHT)
    assert ended.code == 0, ended.stderr
