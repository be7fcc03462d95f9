"""A PostgreSQL server that is lost during a commit: nobody knows whether it happened, and the same call again is right; row 69."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest
from ledgers import child, digest, ended, registered, releases_at
from sqlalchemy import make_url

from e2urec_core.errors import StorageFailed
from e2urec_core.failpoints import VARIABLE
from e2urec_core.ledger import database
from e2urec_core.ledger.records import Line

SOCKET = ".s.PGSQL.5432"


@contextmanager
def going_through(url: str, lost: Literal["request", "answer"], armed: threading.Event) -> Iterator[str]:
    """The URL of a relay to the server at `url`; once `armed`, it loses the next commit or the answer to it, with the connection."""
    target = Path(str(make_url(url).query["host"])) / SOCKET

    def relay(client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(str(target))
            threading.Thread(target=pass_on, args=(server, client), daemon=True).start()
            while sent := client.recv(65536):
                commits = armed.is_set() and b"COMMIT\0" in sent
                if commits and lost == "request":
                    break
                if commits:
                    # From here on nothing is passed back, until the server has hung up.
                    silenced.set()
                    server.sendall(sent)
                    server.shutdown(socket.SHUT_WR)
                    hung_up.wait(30)
                    break
                server.sendall(sent)
            for end in (server, client):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def pass_on(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while answer := server.recv(65536):
                if not silenced.is_set():
                    client.sendall(answer)
        hung_up.set()

    silenced, hung_up = threading.Event(), threading.Event()
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as door:
        door.bind(str(Path(folder) / SOCKET))
        door.listen()

        def welcome() -> None:
            while True:
                try:
                    client, _ = door.accept()
                except OSError:
                    return
                threading.Thread(target=relay, args=(client,), daemon=True).start()

        threading.Thread(target=welcome, daemon=True).start()
        yield make_url(url).update_query_dict({"host": folder}).render_as_string(hide_password=False)
        door.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(("lost", "happened"), [("request", 0), ("answer", 1)])
def test_a_commit_that_was_lost_on_the_way_is_repeated_as_it_was(
    postgres: Callable[[], str], lost: Literal["request", "answer"], happened: int
) -> None:
    url, armed = postgres(), threading.Event()
    direct = releases_at(url)
    registered(direct, 1)
    with going_through(url, lost, armed) as relayed:
        releases = releases_at(relayed)
        armed.set()
        with pytest.raises(StorageFailed, match="the ledger cannot be used: "):
            releases.promote(1, seen_epoch=0, kind="promote", run="test")
    assert direct.line().epoch == happened
    assert direct.promote(1, seen_epoch=0, kind="promote", run="test") == Line(epoch=1, champion=digest(1))
    assert direct.verify().seq == 3


def test_a_process_that_sleeps_inside_a_transaction_is_put_out_and_refused_when_it_wakes(
    postgres: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, told = postgres(), tmp_path / "told"
    releases = releases_at(url)
    registered(releases, 1)
    registered(releases, 2)
    monkeypatch.setattr(database, "_SETTINGS", ("idle_in_transaction_session_timeout = '1500ms'",))

    def late() -> None:
        try:
            releases_at(url).promote(2, seen_epoch=0, kind="promote", run="late")
        except StorageFailed as error:
            told.write_text(error.fact)

    process = child(late, **{VARIABLE: "ledger.commit:1:stop"})
    assert os.WIFSTOPPED(os.waitpid(process, os.WUNTRACED)[1])
    assert releases.promote(1, seen_epoch=0, kind="promote", run="test").champion == digest(1)
    os.kill(process, signal.SIGCONT)
    assert ended(process) == 0
    assert told.read_text().startswith("the ledger cannot be used: ")
    assert releases.line() == Line(epoch=1, champion=digest(1))
    assert releases.verify().seq == 5
