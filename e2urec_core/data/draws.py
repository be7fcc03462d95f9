"""The rows that one step of a training draws, and how a step is cut into pieces.

A step is what the algorithm sees: its rows are fixed by the seed. A piece is what one forward pass on one device sees: rows of
near-equal length under a budget of tokens. Losses are means over the step, so a piece carries the step's counts, and the pieces'
losses and gradients add up to the step's, however many devices share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy
import torch
from torch import Tensor

from e2urec_core.data.batches import Batch, Prompts, join, under_budget

D = TypeVar("D", bound="Drawn")


class Drawn(Protocol):
    """Rows of one step, or a piece of them."""

    @property
    def lengths(self) -> numpy.ndarray:
        """Tokens of each row."""

    def take(self: D, places: numpy.ndarray) -> D:
        """Some of the rows."""

    def load(self) -> Loaded:
        """The rows as tensors."""


@dataclass(frozen=True)
class States:
    """What an encoder gave for the tokens of some rows.

    Args:
        flat: (token, width), the rows one after another.
        starts: Where each row starts, (row,).
        lengths: Tokens of each row, (row,).
    """

    flat: Tensor
    starts: numpy.ndarray
    lengths: numpy.ndarray

    def take(self, places: numpy.ndarray) -> States:
        """Some of the rows."""
        return States(self.flat, self.starts[places], self.lengths[places])

    def padded(self, longest: int) -> Tensor:
        """(row, longest, width); what stands on padding means nothing."""
        offsets = numpy.minimum(numpy.arange(longest)[None, :], self.lengths[:, None] - 1)
        return self.flat[torch.from_numpy(self.starts[:, None] + offsets)]


@dataclass(frozen=True)
class Part:
    """Rows of one kind in a step.

    Args:
        prompts: What they are drawn from.
        index: Their positions in it, (row,).
        total: Rows of this kind in the whole step.
        beside: What stands beside each row, (row, ...) each.
        states: What the encoder gave for them, where that is known already.
    """

    prompts: Prompts
    index: numpy.ndarray
    total: int
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    states: States | None = None

    def take(self, places: numpy.ndarray) -> Part:
        """Some of the rows; `total` stays that of the step."""
        chosen = torch.from_numpy(places)
        beside = {name: values[chosen] for name, values in self.beside.items()}
        return Part(self.prompts, self.index[places], self.total, beside, self.states.take(places) if self.states else None)


@dataclass(frozen=True)
class Loaded:
    """Rows as tensors.

    Args:
        batch: All rows, the parts in turn, padded to the longest.
        rows: Which rows of the batch belong to a part.
        totals: Rows of each part in the whole step.
        beside: What stands beside the rows of each part.
        states: What the encoder gave for all rows, (row, token, width), where that is known already.
    """

    batch: Batch
    rows: Mapping[str, slice]
    totals: Mapping[str, int]
    beside: Mapping[str, Mapping[str, Tensor]]
    states: Tensor | None = None

    def to(self, device: torch.device) -> Loaded:
        """The same on `device`; copied while the device works, where memory is pinned."""
        beside = {name: {what: values.to(device, non_blocking=True) for what, values in part.items()} for name, part in self.beside.items()}
        states = None if self.states is None else self.states.to(device, non_blocking=True)
        return Loaded(self.batch.to(device), self.rows, self.totals, beside, states)

    def pinned(self) -> Loaded:
        """The same in memory that a GPU can copy from by itself."""
        beside = {name: {what: values.pin_memory() for what, values in part.items()} for name, part in self.beside.items()}
        return Loaded(self.batch.pinned(), self.rows, self.totals, beside, None if self.states is None else self.states.pin_memory())

    def share(self, part: str) -> float:
        """Share of the step's rows of `part` that are in this piece: turns a mean over the piece into its part of the step's mean."""
        rows = self.rows[part]
        return (rows.stop - rows.start) / self.totals[part]


@dataclass(frozen=True)
class Draw:
    """Rows of one step in named parts, such as forgotten and retained ones, which share a forward pass.

    Args:
        parts: Parts by name; empty ones are left out.
    """

    parts: Mapping[str, Part]

    @property
    def lengths(self) -> numpy.ndarray:
        """Tokens of each row, the parts in turn."""
        return numpy.concatenate([part.prompts.lengths_at(part.index) for part in self.parts.values()])

    def take(self, places: numpy.ndarray) -> Draw:
        """Some of the rows, by their place among all parts' rows in turn."""
        taken, first = {}, 0
        for name, part in self.parts.items():
            here = places[(places >= first) & (places < first + len(part.index))] - first
            if len(here):
                taken[name] = part.take(numpy.sort(here))
            first += len(part.index)
        return Draw(taken)

    def load(self) -> Loaded:
        """Cut the rows out of their prompts and pad them."""
        batches = {name: part.prompts.batch(part.index) for name, part in self.parts.items()}
        rows, first = {}, 0
        for name, part in self.parts.items():
            rows[name] = slice(first, first + len(part.index))
            first += len(part.index)
        batch = join(list(batches.values())) if len(batches) > 1 else next(iter(batches.values()))
        totals = {name: part.total for name, part in self.parts.items()}
        known = [part.states.padded(batch.mask.shape[1]) for part in self.parts.values() if part.states is not None]
        states = torch.cat(known) if len(known) == len(self.parts) else None
        return Loaded(batch, rows, totals, {name: part.beside for name, part in self.parts.items()}, states)


def pieces(draw: D, token_budget: int, rank: int = 0, world: int = 1) -> list[D]:
    """The pieces of a step that process `rank` of `world` runs, longest rows first; together, every row once.

    Args:
        draw: The whole step.
        token_budget: Most tokens of one piece, padding included; a single row may have more.
        rank: Which process this is, from 0.
        world: Number of processes; with more processes than rows, some get no piece.
    """
    lengths = draw.lengths
    if world == 1 and len(lengths) * int(lengths.max()) <= token_budget:
        return [draw]
    order = numpy.argsort(-lengths, kind="stable")[rank::world]
    return [draw.take(order[start:stop]) for start, stop in under_budget(lengths[order], token_budget)]
