"""Two teachers that differ, the rows they are asked about, and a count of what each network was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    import numpy
    import torch

    from e2urec_core.data.batches import Prompts
    from e2urec_core.methods.base import Problem
    from e2urec_core.recommender import Recommender


@pytest.fixture(scope="session")
def teachers(tiny_problem: Problem) -> tuple[Recommender, Recommender]:
    """The original, and another network in place of the augmented one."""
    import torch

    augmented = tiny_problem.original.trainable()
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in augmented.network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=random))
    augmented.network.eval()
    return tiny_problem.original, augmented


@pytest.fixture(scope="session")
def train(teachers: tuple[Recommender, Recommender], rows_of: Callable[[Recommender, str], Prompts]) -> Prompts:
    """All 244 training rows."""
    return rows_of(teachers[0], "train")


@pytest.fixture(scope="session")
def gone(train: Prompts, tiny_problem: Problem) -> numpy.ndarray:
    """True for the 47 training rows to forget, (row,)."""
    import numpy

    return numpy.isin(train.example_ids, tiny_problem.forgotten.example_ids)


@pytest.fixture(scope="session")
def write(teachers: tuple[Recommender, Recommender], train: Prompts) -> Callable[..., Path]:
    """Writes the original's outputs for a request and returns the folder: `write(folder, gone)`; other stamps, benches by name."""
    from e2urec_core.data.teacher_scoring import Stamp, write_original
    from e2urec_core.engine import Bench
    from e2urec_core.settings import CacheRule

    usual: dict[str, Any] = {
        "rule": CacheRule(support="top", top=5, rows_per_group=16, retained_per_forgotten=1),
        "stamp": Stamp("a" * 64, "b" * 64, "e" * 64),
        "bench": Bench(seed=1),
    }

    def written(folder: Path, forgotten: numpy.ndarray, rule: CacheRule = usual["rule"], **more: Any) -> Path:
        folder.mkdir(exist_ok=True)
        write_original(folder, teachers[0], train, forgotten, **{**usual, "rule": rule, **more})
        return folder

    return written


@pytest.fixture(scope="session")
def first(write: Callable[..., Path], gone: numpy.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original's outputs for the first request."""
    return write(tmp_path_factory.mktemp("first"), gone)


class Asked:
    """Rows that were run through networks since it was last emptied."""

    def __init__(self) -> None:
        self.rows: list[tuple[torch.nn.Module, int]] = []

    def by(self, recommender: Recommender) -> int:
        """Rows that were run through this one."""
        return sum(count for network, count in self.rows if network is recommender.network)

    def total(self) -> int:
        """Rows that were run through any."""
        return sum(count for _, count in self.rows)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Counts the rows of every forward pass."""
    from e2urec_core.reader import AnswerReader

    noted, forward = Asked(), AnswerReader.forward

    def counted(reader: AnswerReader, token_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        noted.rows.append((reader.network, len(token_ids)))
        return forward(reader, token_ids, *rest)

    monkeypatch.setattr(AnswerReader, "forward", counted)
    return noted
