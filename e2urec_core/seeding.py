"""One generator for each named purpose, all derived from the run's seed; nothing draws from a global state by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    import torch


def derived_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose: the same in every process, unrelated for another purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, purpose: str) -> numpy.random.Generator:
    """NumPy generator for one purpose."""
    import numpy

    return numpy.random.default_rng(derived_seed(seed, purpose))


def torch_generator(seed: int, purpose: str) -> torch.Generator:
    """CPU generator of torch for one purpose."""
    import torch

    return torch.Generator().manual_seed(derived_seed(seed, purpose))


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Within the block, what draws from torch's global state (initial weights, dropout) is fixed by the seed and the purpose."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, purpose))
        yield
