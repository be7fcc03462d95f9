"""Trains several copies of one recommender and averages their weights.

Copies that start from the same trained weights and see their rows in another order end in the same valley, on different slopes of it.
Their mean lies nearer to its bottom than each of them, and costs nothing to serve. Copies that start from different weights have no
such mean.

Source: Model soups (Wortsman et al., arXiv 2203.05482), the uniform one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.engine import Bench
from e2urec_core.methods.base import Outcome
from e2urec_core.seeding import derived_seed
from e2urec_core.sharding.training import joined


def average_of_copies(num_copies: int, train: Callable[[Bench], Outcome], bench: Bench) -> Outcome:
    """The mean of what `train` gives at several benches; with one copy, what it gives at `bench`.

    Args:
        num_copies: Copies, at least 1.
        train: Trains a copy of the same weights, all of them or the same ones, and no adapter.
        bench: Each copy has a seed and checkpoints of its own, drawn from it, but for the first one's seed, which is the bench's.
    """
    if num_copies == 1:
        return train(bench)
    outcomes = [train(_bench_of(bench, number, num_copies)) for number in range(num_copies)]
    mean = outcomes[0].recommender
    with torch.no_grad():
        for weight, *others in zip(*(outcome.recommender.network.parameters() for outcome in outcomes), strict=True):
            weight.copy_(torch.stack([weight, *others]).mean(dim=0))
    return dataclasses.replace(outcomes[0], recommender=mean, fitted=joined([outcome.fitted for outcome in outcomes], bench))


def _bench_of(bench: Bench, number: int, num_copies: int) -> Bench:
    """The bench of one copy; its watcher is told of all copies together."""
    kept = bench.checkpoints
    if kept is not None:
        kept = Checkpoints(kept.folder / f"copy-{number}", every_s=kept.every_s, every_steps=kept.every_steps)

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        bench.watch(number * total + done, num_copies * total, unit, numbers)

    seed = derived_seed(bench.seed, f"copy-{number}") if number else bench.seed
    return dataclasses.replace(bench, seed=seed, watch=watch, checkpoints=kept)
