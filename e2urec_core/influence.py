"""Gradients and curvature of a network's loss as flat vectors over the weights that may change: what an influence step is made of.

Rows go through the network longest first, in pieces under a budget of tokens that the bench's processes share; sums over the pieces
are those over the rows. The network is in evaluation mode throughout, so that nothing is drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy
import torch
from torch import Tensor

from e2urec_core.data.batches import Batch, Prompts
from e2urec_core.engine import Bench
from e2urec_core.errors import BadRequest
from e2urec_core.methods.base import Problem
from e2urec_core.ops.answers import answer_nll
from e2urec_core.ops.influence import gauss_newton_product, most_important, slice_importance
from e2urec_core.recommender import Recommender
from e2urec_core.seeding import numpy_generator, torch_generator

# Backward passes through backward passes hold this many times the memory of one.
GRAPHS = 4


class Influence:
    """A network some of whose weights may change, and the rows on which its curvature is taken.

    Args:
        recommender: Its weights that require a gradient may change; `step` changes them in place.
        panel: At least one row.
        bench: Device, processes and budget of tokens.
    """

    def __init__(self, recommender: Recommender, panel: Prompts, bench: Bench) -> None:
        recommender.network.to(bench.device).eval()
        self.recommender, self._panel, self._bench = recommender, panel, bench
        self._weights: list[Tensor] = [weight for weight in recommender.network.parameters() if weight.requires_grad]
        # What is compiled has no second derivative.
        self._read = dataclasses.replace(bench, compiled=False).reader(recommender)
        self._movable = torch.ones_like(_flat(self._weights), dtype=torch.bool)

    @property
    def num_weights(self) -> int:
        """Weights that a vector stands for, those that stay among them."""
        return len(self._movable)

    @property
    def num_movable(self) -> int:
        """Weights that `step` may change."""
        return int(self._movable.sum())

    def gradient(self, rows: Prompts) -> Tensor:
        """Sum over `rows` of the gradient of the right answers' negative log-likelihood, (weight,)."""
        total = torch.zeros(self.num_weights, device=self._bench.device)
        for batch in self._pieces(rows, self._bench.token_budget):
            loss = answer_nll(self._read(batch), self.recommender.answer_ids(batch)) * len(batch.labels)
            total += _flat(torch.autograd.grad(loss, self._weights, materialize_grads=True))
        return self._bench.workers.summed(total)

    def curvature(self, direction: Tensor) -> Tensor:
        """Gauss-Newton matrix of the panel's mean loss over the weights that may change, times `direction`, (weight,)."""
        total, split = torch.zeros_like(direction), self._split(direction * self._movable)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            for batch in self._pieces(self._panel, self._bench.token_budget // GRAPHS):
                total += _flat(gauss_newton_product(self._read(batch), self._weights, split))
        return self._bench.workers.summed(total) * self._movable / len(self._panel)

    def pruned(self, gradient: Tensor, keep_share: float) -> Tensor:
        """Let only the rows of tensors change that `gradient` weighs most on; returns it with 0 in the place of the others."""
        importance = [slice_importance(one) for one in self._split(gradient)]
        kept = most_important(torch.cat(importance), keep_share).split([len(one) for one in importance])
        shapes = [(-1, *[1] * (weight.dim() - 1)) for weight in self._weights]
        self._movable = _flat([rows.view(shape).expand_as(weight) for rows, shape, weight in zip(kept, shapes, self._weights, strict=True)])
        return gradient * self._movable

    @torch.no_grad()
    def step(self, change: Tensor) -> None:
        """Add `change` to the weights that may change."""
        for weight, added, moves in zip(self._weights, self._split(change), self._split(self._movable), strict=True):
            # Adding 0 would turn a weight of -0 into 0.
            weight.copy_(torch.where(moves, weight + added, weight))

    def _split(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([weight.numel() for weight in self._weights])
        return [part.view_as(weight) for part, weight in zip(parts, self._weights, strict=True)]

    def _pieces(self, rows: Prompts, token_budget: int) -> Iterator[Batch]:
        workers = self._bench.workers
        return (batch.to(self._bench.device) for batch in rows.in_order(token_budget, workers.rank, workers.world))


def fallen_away(influence: Influence, problem: Problem) -> Tensor:
    """Sum of the gradients that the training loss loses with the forgotten rows and with the changed prompts, (weight,)."""
    direct = influence.gradient(problem.forgotten)
    if problem.changed is None:
        return direct
    return direct + influence.gradient(problem.changed.before) - influence.gradient(problem.changed.after)


def drawn_panel(problem: Problem, rows: int, seed: int) -> Prompts:
    """At most `rows` retained rows, drawn by the seed.

    Raises:
        BadRequest: There are none.
    """
    if len(problem.retained) == 0:
        raise BadRequest("there are 0 rows to keep", hint="lower `--forget.share`, so that some users stay")
    drawn = numpy_generator(seed, "influence-panel").permutation(len(problem.retained))[:rows]
    return problem.retained.select(numpy.sort(drawn))


def drawn_start(influence: Influence, bench: Bench) -> Tensor:
    """A direction drawn by the seed, (weight,)."""
    return torch.randn(influence.num_weights, generator=torch_generator(bench.seed, "influence-start")).to(bench.device)


def _flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
