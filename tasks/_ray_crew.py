"""Hands stages to the workers of a Ray cluster through Prefect's task runner for Ray; the only file that imports either.

A worker is sent the text of a stage file and answers with text. What it reads and writes lies in the workspace, which every machine of the
cluster must see under the same path. It imports `e2urec_core` alone of ours; Prefect is there because its task runner wants it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from contextvars import Context
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from e2urec_core.errors import BadSetting, MissingPackage, ProcessDied, UserError
from e2urec_core.run import run_text
from e2urec_core.settings import Seat, Share
from e2urec_core.stage_file import StageFile
from tasks._crew import Watch, beside
from tasks._isolation import heard

# Where a cluster is to be found; Ray itself reads it. Without it, one is started on this machine for as long as the run lasts.
ADDRESS = "RAY_ADDRESS"
LOOK_EVERY_S, ANSWER_S = 0.5, 10.0


def need_ray() -> None:
    """Make sure that Ray and Prefect's task runner for it are installed.

    Raises:
        MissingPackage: They are not.
    """
    modules = {"ray": "ray", "prefect-ray": "prefect_ray"}
    missing = [package for package, module in modules.items() if find_spec(module) is None]
    if missing:
        raise MissingPackage(
            f"{len(missing)} of {len(modules)} packages that hand stages to a Ray cluster are missing: {', '.join(missing)}",
            hint="pip install 'e2urec[ray]'",
        )


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()


class RayCrew:
    """Workers of a Ray cluster; see `Crew`."""

    elsewhere = True

    def __init__(self, size: int, threads: int = 1) -> None:
        """Have at most `size` stages, or shares of stages, of `threads` threads each on the cluster at a time."""
        self.size, self._threads = size, threads
        self._free, self._opened = threading.Semaphore(size), ExitStack()

    def __enter__(self) -> Self:
        """Join the cluster that the environment names, or start one.

        Raises:
            MissingPackage: Ray is not installed.
            BadSetting: No cluster answers at the address.
        """
        need_ray()
        import ray
        from prefect import get_client
        from prefect_ray import RayTaskRunner

        address = os.environ.get(ADDRESS)
        own: dict[str, Any] = {} if address else {"num_cpus": self.size * self._threads, "include_dashboard": False}
        self._ray, self._runner = ray, RayTaskRunner(init_kwargs={"log_to_driver": False, "logging_level": "ERROR", **own})
        try:
            _knock(address or "")
            self._opened.enter_context(self._runner)
        except (OSError, RuntimeError, ValueError) as error:
            raise BadSetting(
                f"`--fan-out ray` is refused: no Ray cluster can be joined ({type(error).__name__})",
                facts={ADDRESS: address or "not set, so one was to be started on this machine"},
                hint="start one with `ray start --head`, or name its address",
            ) from error
        # Workers tell Prefect of their tasks at the server that this run has, where it lasts for the run alone too.
        self._server = str(get_client(sync_client=True).api_url)
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def perform(
        self, name: str, arguments: Mapping[str, Any], seat: Seat, place: Path, checkpoints: Path, watch: Watch, share: Share | None = None
    ) -> int:
        """See `Crew.perform`."""
        assert seat.processes == 1, "a stage that several processes share is started by torch's launcher"
        text = StageFile.of(name, arguments, seat, place, checkpoints, share).model_dump_json()
        events = beside(place, share, "events")
        with self._free:
            # A flow run's context would be carried to the worker, and with it the modules of the flow and its settings.
            future = Context().run(self._submitted, name.replace("_", "-"), text, events, seat)
            try:
                rows, crash = heard(self._said(future, events), watch)
            except UserError:
                raise
            except BaseException:
                # Nobody may go on writing into a place that is given up.
                self._ray.cancel(future.wrapped_future, force=True)
                raise
            finally:
                events.unlink(missing_ok=True)
        if rows is None:
            raise ProcessDied(
                f"the Ray worker of `{name.replace('_', '-')}` ended without its rows{crash}",
                hint="it may have run out of memory, or not see the workspace, which all machines of the cluster must under the same path; "
                "the stage goes on from its last checkpoint when run again",
            )
        return rows

    def _submitted(self, title: str, text: str, events: Path, seat: Seat) -> Any:
        from prefect import task
        from prefect.cache_policies import NO_CACHE
        from prefect.settings import PREFECT_API_URL, temporary_settings
        from prefect_ray.context import remote_options

        once = task(name=f"{title} on Ray", persist_result=False, cache_policy=NO_CACHE, log_prints=False)(run_text)
        # Ray would try again by itself, and the run would not know.
        wants = {"num_cpus": seat.threads, "num_gpus": 1 if seat.device == "cuda" else 0, "max_retries": 0}
        with temporary_settings({PREFECT_API_URL: self._server}), remote_options(**wants):
            return self._runner.submit(once, {"text": text, "events": str(events)})

    def _said(self, future: Any, events: Path) -> Iterator[str]:
        """Steps that the worker writes down as it goes, and, when it is done, its last event, which comes back through Ray."""
        read, done = 0, False
        while not done:
            done = bool(self._ray.wait([future.wrapped_future], timeout=LOOK_EVERY_S)[0])
            told = events.read_bytes() if events.exists() else b""
            # A line without its end is still being written.
            lines = [line for line in told[read:].splitlines(keepends=True) if line.endswith(b"\n")]
            read += sum(map(len, lines))
            yield from (line.decode() for line in lines if b'"done"' in line)
        try:
            answer = future.result(raise_on_failure=False)
        except self._ray.exceptions.RayError as error:
            answer = error
        yield answer if isinstance(answer, str) else f'{{"crash": "{type(answer).__name__}"}}'
