"""Which of several trainings a night that trains anew keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from e2urec_core.deletion.rule import NightRule
from e2urec_core.evaluation import Scored
from e2urec_core.settings import Seat
from flows import night_training
from flows.night_training import train_best

LABELS = numpy.array([0, 1, 0, 1])
# What the network of each seed says of the four rows, and by it the AUC: 1/2, 1 and 3/4.
SAID = {7: [0.4, 0.4, 0.4, 0.4], 8: [0.1, 0.8, 0.2, 0.9], 9: [0.1, 0.3, 0.5, 0.9]}


class Stages:
    """Stages that train and score nothing, and note what they are asked for."""

    def __init__(self, labels: numpy.ndarray) -> None:
        self.labels, self.trained, self.scored = labels, list[int](), list[tuple[Any, ...]]()

    def train(self, tokens: str, backbone: object, training: object, seat: Seat) -> int:
        """A network that is its seed."""
        self.trained.append(seat.seed)
        return seat.seed

    def score(self, model: int, tokens: str, request: object, asked: Any, seat: Seat) -> int:
        """Scores that are the network's seed."""
        self.scored.append((tokens, request, asked.groups))
        return model

    def read(self, folder: Path, models: list[str], groups: tuple[str, ...]) -> dict[str, Scored]:
        """What the network says of validation rows."""
        assert groups == ("validation",)
        return {"validation": Scored(numpy.arange(4), self.labels, {models[0]: numpy.array(SAID[int(folder.name)])})}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Stages:
    """Those of the module under test; the labels of the rows are the parameter."""
    stages = Stages(getattr(request, "param", LABELS))
    room = SimpleNamespace(store=SimpleNamespace(open=lambda scores: Path(str(scores))))
    for name, stage in (("train_original", stages.train), ("score", stages.score), ("read_scores", stages.read)):
        monkeypatch.setattr(night_training, name, stage)
    monkeypatch.setattr(night_training, "choose_forgotten", lambda rows, examples, rule, seed: (rows, examples, rule.nobody))
    monkeypatch.setattr(night_training, "ROOM", SimpleNamespace(get=lambda: room))
    return stages


def chosen(num_seeds: int) -> Any:
    """The network that is kept, of trainings from seed 7 on."""
    seat = Seat(seed=7)
    run: Any = SimpleNamespace(night=NightRule(anew_seeds=num_seeds), seed=7, seat=lambda: seat, backbone="network", training="schedule")
    given: Any = ("rows", "examples", "tokens")
    return train_best(run, *given)


def test_the_training_that_ranks_validation_rows_best_is_kept(stages: Stages) -> None:
    assert chosen(3) == 8
    assert stages.trained == [7, 8, 9]
    # Nobody is forgotten of rows that are without the forgotten already, and no test row is looked at.
    assert stages.scored == [("tokens", ("rows", "examples", True), ("validation",))] * 3


def test_one_training_is_kept_unseen(stages: Stages) -> None:
    assert chosen(1) == 7
    assert (stages.trained, stages.scored) == ([7], [])


@pytest.mark.parametrize("stages", [numpy.ones(4, dtype=int)], indirect=True)
def test_rows_that_rank_nothing_leave_the_first_training(stages: Stages) -> None:
    assert chosen(3) == 7
