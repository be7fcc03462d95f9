"""Prompts as token ids, and the order in which they are drawn.

Token ids of all prompts lie in one flat array; a batch is cut from it and padded to its own longest prompt. Prompts of near-equal
length share a batch, because padding is work for nothing. The order depends on the seed and the pass alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from e2urec_core.data.ragged import encode
from e2urec_core.seeding import numpy_generator

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Batches that are sorted by length together: more pads less, fewer mixes better.
BATCHES_IN_A_POOL = 16


@dataclass(frozen=True)
class Batch:
    """Padded prompts.

    Args:
        token_ids: Ids of the prompts' tokens, padded at the end.
        mask: True where a token stands, False on padding.
        labels: 1 where the right answer is Yes, else 0.
        index: Position of each row in the `Prompts` it was cut from.
    """

    token_ids: Int[Tensor, "row token"]
    mask: Bool[Tensor, "row token"]
    labels: Int[Tensor, " row"]
    index: Int[Tensor, " row"]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; copied while the device works, where memory is pinned."""
        return Batch(*(grid.to(device, non_blocking=True) for grid in (self.token_ids, self.mask, self.labels, self.index)))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU can copy from by itself."""
        return Batch(*(grid.pin_memory() for grid in (self.token_ids, self.mask, self.labels, self.index)))


@dataclass(frozen=True)
class Prompts:
    """Tokenised prompts.

    Args:
        example_ids: int64, one a prompt.
        labels: int64, 0 or 1, one a prompt.
        flat: int32, the token ids of all prompts one after another.
        starts: int64, where each prompt starts in `flat`, and at the end the length of `flat`.
        users: int64, the number of each prompt's user, one a prompt; None where nobody asks.
    """

    example_ids: numpy.ndarray
    labels: numpy.ndarray
    flat: numpy.ndarray
    starts: numpy.ndarray
    users: numpy.ndarray | None = None

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    def lengths(self) -> numpy.ndarray:
        """Number of tokens of each prompt."""
        return numpy.diff(self.starts)

    def lengths_at(self, index: numpy.ndarray) -> numpy.ndarray:
        """Number of tokens of the prompts at positions `index`."""
        return self.starts[index + 1] - self.starts[index]

    def places_of(self, example_ids: numpy.ndarray) -> numpy.ndarray:
        """Positions of the prompts with these numbers, all of which must be here."""
        order = numpy.argsort(self.example_ids)
        return order[numpy.searchsorted(self.example_ids, example_ids, sorter=order)]

    def select(self, index: numpy.ndarray) -> Prompts:
        """The prompts at positions `index`, in that order."""
        lengths = self.lengths_at(index)
        starts = numpy.zeros(len(index) + 1, dtype=numpy.int64)
        numpy.cumsum(lengths, out=starts[1:])
        places = numpy.arange(int(starts[-1])) + numpy.repeat(self.starts[index] - starts[:-1], lengths)
        users = None if self.users is None else self.users[index]
        return Prompts(self.example_ids[index], self.labels[index], self.flat[places], starts, users)

    def joined(self, other: Prompts) -> Prompts:
        """These prompts, then those of `other`."""
        users = None if self.users is None or other.users is None else numpy.concatenate([self.users, other.users])
        starts = numpy.concatenate([self.starts, self.starts[-1] + other.starts[1:]])
        example_ids, labels, flat = (
            numpy.concatenate([getattr(self, name), getattr(other, name)]) for name in ("example_ids", "labels", "flat")
        )
        return Prompts(example_ids, labels, flat, starts, users)

    def batch(self, index: numpy.ndarray) -> Batch:
        """The prompts at positions `index`, padded to the longest of them."""
        starts, lengths = self.starts[index], self.lengths_at(index)
        places = numpy.arange(int(lengths.max()))
        mask = places[None, :] < lengths[:, None]
        ids = self.flat[numpy.minimum(starts[:, None] + places[None, :], len(self.flat) - 1)]
        return Batch(
            torch.from_numpy(numpy.where(mask, ids, 0).astype(numpy.int64)),
            torch.from_numpy(mask),
            torch.from_numpy(self.labels[index]),
            torch.from_numpy(index.astype(numpy.int64)),
        )

    def in_order(self, token_budget: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Every prompt once, longest first, for scoring; a batch's `index` tells where its rows belong.

        Args:
            token_budget: Most tokens of a batch, padding included; a single prompt may have more.
            rank: Which process this is, from 0; the processes' batches together hold every prompt once.
            world: Number of processes.
        """
        order = numpy.argsort(-self.lengths, kind="stable")[rank::world]
        for start, stop in under_budget(self.lengths_at(order), token_budget):
            yield self.batch(order[start:stop])


def under_budget(lengths: numpy.ndarray, token_budget: int) -> list[tuple[int, int]]:
    """Where to cut rows that stand longest first, so that rows times longest stays within the budget; a piece has at least one row.

    >>> under_budget(numpy.array([5, 4, 3, 2, 2]), 8)
    [(0, 1), (1, 3), (3, 5)]
    """
    cuts, start = [], 0
    while start < len(lengths):
        stop = min(len(lengths), start + max(1, token_budget // max(1, int(lengths[start]))))
        cuts.append((start, stop))
        start = stop
    return cuts


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows in turn, padded to the longest, so that they share a forward pass."""
    longest = max(batch.token_ids.shape[1] for batch in batches)

    def padded(grid: Tensor) -> Tensor:
        return torch.nn.functional.pad(grid, (0, longest - grid.shape[1]))

    return Batch(
        torch.cat([padded(batch.token_ids) for batch in batches]),
        torch.cat([padded(batch.mask) for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        torch.cat([batch.index for batch in batches]),
    )


def tokenise(tokenizer: Tokenizer, example_ids: numpy.ndarray, labels: numpy.ndarray, prompts: Sequence[str]) -> Prompts:
    """Token ids of `prompts`, in their order."""
    made = encode(tokenizer, list(prompts), framed=True)
    return Prompts(example_ids.astype(numpy.int64), labels.astype(numpy.int64), made.flat, made.starts)


def pass_order(lengths: numpy.ndarray, batch_size: int, seed: int, number: int, purpose: str = "row-order") -> list[numpy.ndarray]:
    """Positions of each batch of pass `number`, every row once.

    Rows are shuffled, then sorted by length within pools of `BATCHES_IN_A_POOL` batches, then the batches are shuffled.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows in a batch; the last one may hold fewer.
        seed: The run's seed.
        number: Which pass, from 0; every pass has an order of its own.
        purpose: Name of the generator.
    """
    random = numpy_generator(seed, f"{purpose}-{number}")
    order = random.permutation(len(lengths))
    pool = batch_size * BATCHES_IN_A_POOL
    batches = []
    for start in range(0, len(order), pool):
        near = order[start : start + pool]
        near = near[numpy.argsort(lengths[near], kind="stable")]
        batches += [near[first : first + batch_size] for first in range(0, len(near), batch_size)]
    return [batches[place] for place in random.permutation(len(batches))]
