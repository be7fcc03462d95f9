"""Who runs stages apart from the flow's process, and how the shards of one stage are shared among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from e2urec_core.settings import Seat, Share

Watch = Callable[[int, int, str, Mapping[str, float]], None]


class Crew(Protocol):
    """Processes, here or on other machines, that take turns at stages; asked by several threads at once."""

    @property
    def size(self) -> int:
        """Stages and shares of stages that run side by side."""

    @property
    def elsewhere(self) -> bool:
        """Whether they work on GPUs that this machine does not hand out."""

    def perform(
        self, name: str, arguments: Mapping[str, Any], seat: Seat, place: Path, checkpoints: Path, watch: Watch, share: Share | None = None
    ) -> int:
        """Run the core's stage function `name` in one of the processes; returns its rows.

        Args:
            name: Function of `e2urec_core/stages.py`.
            arguments: Its arguments, folders opened.
            seat: Where and how; for one process.
            place: Folder to write into.
            checkpoints: Folder of what an unfinished stage keeps.
            watch: Told how far the stage is.
            share: Which of the stage's shards are trained, and nothing else; None runs the stage to its end.

        Raises:
            UserError: What the function raised.
            ProcessDied: The process ended without saying why; another takes its place.
        """


def perform_in_shares(crew: Crew, name: str, arguments: Mapping[str, Any], seat: Seat, place: Path, checkpoints: Path, watch: Watch) -> int:
    """Run a stage, the shards that it trains side by side first; its last run finds them finished. See `Crew.perform`."""
    total = min(crew.size, _num_shards(arguments))

    def train(number: int) -> None:
        crew.perform(name, arguments, seat, place, checkpoints, watch, Share(number=number, total=total))

    if total > 1:
        with ThreadPoolExecutor(total, thread_name_prefix="shards") as threads:
            list(threads.map(train, range(total)))
    return crew.perform(name, arguments, seat, place, checkpoints, watch)


def beside(place: Path, share: Share | None, ending: str) -> Path:
    """The file beside `place` by which a process is asked or answers."""
    return place.parent / f"{place.name}{'' if share is None else f'-{share.number}'}.{ending}"


def _num_shards(arguments: Mapping[str, Any]) -> int:
    """Shards, or folds, that a stage may train one without the other; 1 where it has none."""
    if "sharding" in arguments:
        return int(arguments["sharding"].num_shards)
    if "folds" in arguments:
        return int(arguments["folds"].num_folds)
    method = arguments.get("method")
    sharding = method.sharding(arguments["training"]) if method is not None else None
    return int(sharding.num_shards) if sharding else 1
