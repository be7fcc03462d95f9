"""Where a stage's networks run: devices, processes, precision, and how rows reach them.

Accelerate owns the processes and the precision. A stage runs in one process, or in several that `torch.distributed.run` has started;
each then takes its share of every step's rows, and sums meet here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.data.batches import Batch
from e2urec_core.errors import BadSetting
from e2urec_core.settings import Seat, Share

if TYPE_CHECKING:
    from e2urec_core.reader import AnswerReader
    from e2urec_core.recommender import Recommender

T = TypeVar("T")
# Elements of the gradients that travel between processes in one piece.
BUCKET = 2**24
# Most tokens of a forward pass without gradients: on a GPU so many budgets, as a row needs a fraction of the memory; on a CPU what stays
# in its cache (LOG.md).
SCORING_BUDGETS, SCORING_TOKENS = 4, 4096


class Watcher(Protocol):
    """Told how far a stage has come."""

    def __call__(self, done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        """`done` of `total` `unit`s are through; `numbers` are the latest measures."""


def silent(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
    """A watcher that says nothing."""


class Read(Protocol):
    """Runs a network on a batch."""

    def __call__(self, batch: Batch, support: Tensor | None = None, remainder: str = "none", states: Tensor | None = None) -> Tensor:
        """Logits at the answer position in 32-bit floats: of every word, or of those in `support`; see `AnswerReader`."""

    def encode(self, batch: Batch) -> Tensor:
        """What the encoder gives for every token, (row, token, width)."""

    def state(self, batch: Batch) -> Tensor:
        """What the last layer gives at the answer position, (row, width), in 32-bit floats."""


@dataclass(frozen=True)
class Bench:
    """Where work is done.

    Args:
        seed: The run's seed.
        device: Device of the networks.
        watch: Told how far the work has come.
        checkpoints: Where a training keeps its state, so that it can be continued after a kill; None keeps none.
        precision: Of matrix products; weights, sums and losses are in 32 bits.
        token_budget: Most tokens in one forward pass with gradients, padding included.
        compiled: Whether networks are compiled.
        share: Which shards are trained; None trains all that are not finished yet, and does what comes after them.
    """

    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    watch: Watcher = silent
    checkpoints: Checkpoints | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    token_budget: int = 32768
    compiled: bool = False
    share: Share | None = None

    @cached_property
    def workers(self) -> Workers:
        """The processes that share this stage."""
        return Workers(self.device, self.precision)

    @property
    def scoring_budget(self) -> int:
        """Most tokens in one forward pass without gradients."""
        return self.token_budget * SCORING_BUDGETS if self.device.type == "cuda" else min(self.token_budget, SCORING_TOKENS)

    def reader(self, recommender: Recommender) -> Read:
        """Runs `recommender` in this bench's precision."""
        return _Reader(recommender.reader().to(self.device), self.workers, self.compiled)


class ShareTrained(Exception):
    """The shards of a share are trained and kept among the checkpoints; what comes after them is for whoever joins the shares."""


def open_bench(seat: Seat, watch: Watcher = silent, checkpoints: Path | None = None, share: Share | None = None) -> Bench:
    """The bench that a seat describes; sets the number of threads.

    Args:
        seat: Where and how.
        watch: Told how far the work has come.
        checkpoints: Folder for checkpoints, or None.
        share: Which shards are trained, where others train the rest.

    Raises:
        BadSetting: The device is not there, or has not the precision.
    """
    if seat.device == "cuda" and not torch.cuda.is_available():
        raise BadSetting("`--device cuda` is refused: torch sees 0 CUDA devices", hint="take `--device cpu`, or a CUDA build of torch")
    if seat.device == "cuda" and seat.precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise BadSetting("`--precision bf16` is refused: this device computes it in no hardware", hint="take `--precision fp32`")
    torch.set_num_threads(seat.threads)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if seat.device == "cuda" else torch.device("cpu")
    rule = seat.engine
    kept = Checkpoints(checkpoints, every_s=rule.checkpoint_every_s, every_steps=rule.checkpoint_every_steps) if checkpoints else None
    return Bench(seat.seed, device, watch, kept, seat.precision, rule.token_budget, rule.compiled == "on", share)


class _Reader:
    def __init__(self, reader: AnswerReader, workers: Workers, compiled: bool) -> None:
        self._reader, self._workers = reader, workers
        self._run = torch.compile(reader, dynamic=True) if compiled else reader

    def __call__(self, batch: Batch, support: Tensor | None = None, remainder: str = "none", states: Tensor | None = None) -> Tensor:
        with self._workers.autocast():
            logits: Tensor = self._run(batch.token_ids, batch.mask, support, remainder, states)
        return logits.float()

    def encode(self, batch: Batch) -> Tensor:
        with self._workers.autocast():
            return self._reader.encode(batch.token_ids, batch.mask)

    def state(self, batch: Batch) -> Tensor:
        with self._workers.autocast():
            return self._reader.state(batch.token_ids, batch.mask).float()


class Workers:
    """The processes that share a stage, and what they say to each other."""

    def __init__(self, device: torch.device, precision: str) -> None:
        """Join the processes that were started together, if several were."""
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        started = int(os.environ.get("WORLD_SIZE", "1"))
        # Accelerate keeps one state a process, and refuses a second one of another precision or device.
        AcceleratorState._reset_state(reset_partial_state=started == 1)
        threads = torch.get_num_threads()
        self._accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if precision == "bf16" else "no")
        torch.set_num_threads(threads)
        self.rank, self.world = self._accelerator.process_index, self._accelerator.num_processes
        assert self.world == started, f"{started} processes were started, {self.world} have met"

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[None]:
        """Within it, matrix products run in the bench's precision."""
        context: AbstractContextManager[None] = self._accelerator.autocast()
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` to those of the weights."""
        self._accelerator.backward(loss)

    def summed(self, values: Tensor) -> Tensor:
        """Sum of every process's `values`; the same bits in all of them."""
        total: Tensor = self._accelerator.reduce(values, reduction="sum") if self.world > 1 else values
        return total

    def sum_gradients(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Make every weight's gradient the sum over the processes; a process that saw no row adds nothing."""
        if self.world == 1:
            return
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        for bucket in _buckets([weight.grad for weight in weights if weight.grad is not None]):
            flat = self.summed(torch.cat([gradient.reshape(-1) for gradient in bucket]))
            for gradient, summed in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def gathered(self, values: Tensor) -> list[Tensor]:
        """Every process's `values`, by rank; all of one shape."""
        if self.world == 1:
            return [values]
        together: Tensor = self._accelerator.gather(values[None].to(self._accelerator.device))
        return list(together.cpu())

    def wait(self) -> None:
        """Go on when every process has come here."""
        self._accelerator.wait_for_everyone()


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(each.numel() for each in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def ahead(make: Iterable[Callable[[], T]], depth: int = 2) -> Iterator[T]:
    """What the calls in `make` give, in their order; up to `depth` of them are made by another thread before they are asked for."""
    waiting = iter(make)

    def following() -> tuple[bool, T | None]:
        call = next(waiting, None)
        return (False, None) if call is None else (True, call())

    with ThreadPoolExecutor(1, thread_name_prefix="rows") as thread:
        made = [thread.submit(following) for _ in range(depth)]
        try:
            while (result := made.pop(0).result())[0]:
                made.append(thread.submit(following))
                yield result[1]  # type: ignore[misc]
        finally:
            for future in made:
                future.cancel()
