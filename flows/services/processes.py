"""Processes that outlive the command that started them, written down so that another one ends just these."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from e2urec_core.disk import write_whole
from e2urec_core.errors import ServiceFailed
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    import psutil

FOLDER, NOTES = "services", "services.json"
END_WITHIN_S = 20.0
LAST_LINES = 3


class Service(Settings):
    """One process."""

    name: str
    """What it is: `prefect`, `mlflow` or `worker`."""
    process: int = Field(ge=1)
    """Number of the process."""
    started: float
    """When it was started, seconds since 1970: tells it from a later process of the same number."""
    address: str = ""
    """Where it answers; empty for a worker."""

    def living(self) -> psutil.Process | None:
        """The process, if it is still there."""
        import psutil

        with suppress(psutil.Error):
            process = psutil.Process(self.process)
            if abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


class Services(Settings):
    """Those of one workspace."""

    services: tuple[Service, ...] = ()
    """In the order in which they were started."""

    @classmethod
    def of(cls, place: Path) -> Services:
        """Those that were started in a workspace and still live."""
        try:
            noted = cls.model_validate_json((place / FOLDER / NOTES).read_bytes())
        except (OSError, ValidationError):
            return cls()
        return cls(services=tuple(each for each in noted.services if each.living()))

    def note(self, place: Path) -> None:
        """Write them down."""
        write_whole(place / FOLDER / NOTES, self.model_dump_json(indent=1))

    def named(self, name: str) -> Service | None:
        """The one of this name, if it is there."""
        return next((each for each in self.services if each.name == name), None)

    def with_one(self, service: Service) -> Services:
        """These and one more, in the place of an earlier one of its name."""
        return Services(services=(*(each for each in self.services if each.name != service.name), service))


def start(place: Path, name: str, line: Sequence[str], environment: Mapping[str, str], address: str = "") -> Service:
    """Start a process that outlives this one; what it says goes into `services/NAME.log`."""
    import psutil

    with (place / FOLDER / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **environment}
        )
    return Service(name=name, process=process.pid, started=psutil.Process(process.pid).create_time(), address=address)


def wait_for(service: Service, path: str, place: Path, within_s: float) -> None:
    """Wait until a service answers 200.

    Raises:
        ServiceFailed: It ended, or did not answer in time.
    """
    import httpx

    until = time.monotonic() + within_s
    while time.monotonic() < until:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{service.address}{path}", timeout=5).status_code == httpx.codes.OK:
                return
        if service.living() is None:
            break
        time.sleep(0.2)
    raise ServiceFailed(
        f"the {service.name} server {'ended' if service.living() is None else f'did not answer within {within_s:.0f} s'}",
        facts={"its log": place / FOLDER / f"{service.name}.log", "which ends": _end_of(place / FOLDER / f"{service.name}.log")},
        hint="`e2urec doctor` looks at versions, ports and databases",
    )


def end(service: Service) -> int:
    """End a process and everything that it has started; returns how many ended."""
    import psutil

    first = service.living()
    if first is None:
        return 0
    with suppress(psutil.Error):
        below = first.children(recursive=True)
        first.terminate()
        psutil.wait_procs([first], timeout=END_WITHIN_S)
        left = [each for each in (first, *below) if each.is_running()]
        for each in left:
            with suppress(psutil.Error):
                each.terminate()
        for each in psutil.wait_procs(left, timeout=END_WITHIN_S)[1]:
            with suppress(psutil.Error):
                each.kill()
        return 1 + len(below)
    return 1


def _end_of(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-LAST_LINES:]) or "nothing"
