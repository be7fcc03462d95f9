"""What the tests of the ledger share: releases by number, forked children, and a PostgreSQL server where its programs are installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2urec_core import failpoints
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.records import Line, Release
from e2urec_core.ledger.releases import Releases
from e2urec_core.ledger.request_records import RequestRule
from e2urec_core.ledger.requests import Requests


def digest(number: int) -> str:
    """A digest that shows its number."""
    return f"{number:064x}"


def subject(number: int) -> str:
    """A pseudonym that shows its number."""
    return f"{number:020x}"


def release(number: int, *, against: int = 0, passed: bool = True, base: int = 0) -> Release:
    """Release `number`, judged against release `against`; 0 is none."""
    return Release(
        bundle=digest(number),
        model=digest(1000 + number),
        kind="Unlearned" if base else "Original",
        run=f"run-{number}",
        base=digest(base) if base else None,
        verdict={"auc": 0.7, "passed": passed},
        passed=passed,
        judged_against=digest(against) if against else "",
    )


def registered(
    releases: Releases, number: int, *, against: int = 0, passed: bool = True, forgotten: Iterable[int] = (), base: int = 0
) -> None:
    """Add release `number` and register it as version `number`."""
    made = release(number, against=against, passed=passed, base=base)
    releases.add(made, {subject(each): digest(each) for each in forgotten})
    releases.registered(made.bundle, number)


def champion(releases: Releases, number: int, *, forgotten: Iterable[int] = ()) -> Line:
    """Add, register and promote release `number`, as things are."""
    line = releases.line()
    registered(releases, number, against=int(line.champion or "0", 16), forgotten=forgotten)
    return releases.promote(number, seen_epoch=line.epoch, kind="promote", run="test")


def releases_at(place: Path | str) -> Releases:
    """The releases of the ledger at `place`."""
    return Releases(open_ledger(place))


def requests_at(place: Path | str, **rule: Any) -> Requests:
    """The deletion requests of the ledger at `place`, treated by a rule."""
    return Requests(open_ledger(place), RequestRule(**rule))


def promoted(requests: Requests, *names: str, epoch: int) -> None:
    """Move claimed requests on until a champion, release 1, has forgotten them; it must be champion."""
    requests.advance(names, "built", epoch=epoch, model=digest(1001))
    requests.advance(names, "gated", epoch=epoch, release=digest(1))
    requests.advance(names, "promoted", epoch=epoch)


def child(work: Callable[[], None], **environment: str) -> int:
    """Start `work` in a forked child, and give its number; it ends with 0 if nothing is raised."""
    number = os.fork()
    if number == 0:
        try:
            os.environ.update(environment)
            # The parent may have passed armed places of its own.
            failpoints._passed.clear()
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return number


def ended(number: int) -> int:
    """Wait for a child; its exit status, negative: the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def postgres_is_here() -> bool:
    """Whether the server's programs and a driver are installed."""
    return _programs() is not None and importlib.util.find_spec("psycopg") is not None


@contextmanager
def postgres_server() -> Iterator[Callable[[], str]]:
    """A server of its own on a socket of its own; what is given makes an empty schema and says its URL."""
    import psycopg

    programs = _programs()
    assert programs is not None
    place = Path(tempfile.mkdtemp(prefix="postgres-"))
    # The server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(place, user)

    def run(program: str, *words: object) -> None:
        subprocess.run([programs / program, *map(str, words)], user=user, cwd=place, check=True, stdout=subprocess.DEVNULL, timeout=60)

    def schema() -> str:
        name = f"ledger_{uuid.uuid4().hex}"
        with psycopg.connect(host=str(place), user="postgres") as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql+psycopg://postgres@/postgres?host={place}&options=-csearch_path%3D{name}"

    try:
        run("initdb", "-D", place / "data", "-U", "postgres", "-A", "trust", "--no-sync")
        settings = f"-k {place} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "-D", place / "data", "-w", "-l", place / "log", "-o", settings, "start")
        try:
            yield schema
        finally:
            run("pg_ctl", "-D", place / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _programs() -> Path | None:
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None
