"""Shards that several processes train: a share keeps what it has trained, the last run trains nothing, and no bit depends on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench, ShareTrained
from e2urec_core.methods.base import Method, Problem
from e2urec_core.methods.rec_eraser import RecEraser
from e2urec_core.methods.sisa import Sisa
from e2urec_core.recommender import Recommender
from e2urec_core.settings import Share, Training
from e2urec_core.sharding import partition, training
from e2urec_core.sharding.system import ShardsFolder, retrain_touched, write_shards

TRAINING = Training(num_epochs=1, batch_size=12, learning_rate=5e-2)
WithShards = Callable[[Method, Problem, Bench], Problem]


@pytest.fixture(scope="module")
def problem(tiny_problem: Problem) -> Problem:
    return dataclasses.replace(tiny_problem, teachers=None, training=TRAINING)


@pytest.fixture(scope="module")
def train(problem: Problem, rows_of: Callable[[Recommender, str], Prompts]) -> Prompts:
    return rows_of(problem.original, "train")


@pytest.fixture
def kept(bench: Bench, tmp_path: Path) -> Bench:
    """A bench that keeps what is finished."""
    return dataclasses.replace(bench, checkpoints=Checkpoints(tmp_path / "kept", every_s=1000.0))


def weights_in(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("weights.safetensors"))}


def refuse(*told: Any, **named: Any) -> Any:
    raise AssertionError("nothing is left to be done here")


@pytest.mark.parametrize("method", [Sisa(num_shards=3, num_slices=2), RecEraser(num_shards=3)], ids=lambda method: method.kind)
def test_shards_trained_in_shares_are_those_that_one_process_trains(
    method: Sisa | RecEraser,
    problem: Problem,
    train: Prompts,
    bench: Bench,
    kept: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sharding = method.sharding(TRAINING)
    assert problem.fresh is not None
    given = (train, problem.validation, sharding, problem.fresh, problem.original)
    whole, told = write_shards(tmp_path / "whole", *given, _made(bench, tmp_path / "whole"))
    for number in (1, 0):
        place = tmp_path / str(number)
        with pytest.raises(ShareTrained):
            write_shards(place, *given, _made(dataclasses.replace(kept, share=Share(number=number, total=2)), place))
        # What a share has trained is kept, and nothing is written.
        assert list(place.iterdir()) == []
    for owner, name in ((training, "fit_answers"), (partition, "_clustered")):
        monkeypatch.setattr(owner, name, refuse)
    joined, noted = write_shards(tmp_path / "joined", *given, _made(kept, tmp_path / "joined"))
    assert weights_in(tmp_path / "joined") == weights_in(tmp_path / "whole")
    assert len(weights_in(tmp_path / "joined")) == 3 * sharding.num_slices
    assert (joined.curve, noted) == (whole.curve, told)
    assert (tmp_path / "joined" / "partition.parquet").read_bytes() == (tmp_path / "whole" / "partition.parquet").read_bytes()


def _made(bench: Bench, place: Path) -> Bench:
    place.mkdir()
    return bench


@pytest.mark.parametrize("places", ["frozen", "rebuilt"])
def test_touched_shards_trained_again_in_shares_are_those_of_one_process(
    places: Any, problem: Problem, with_shards: WithShards, bench: Bench, kept: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = RecEraser(num_shards=3)
    asked, sharding = with_shards(method, problem, bench), method.sharding(TRAINING)
    assert isinstance(asked.shards, ShardsFolder)
    whole = retrain_touched(asked, sharding, bench, places)
    assert whole.retrained
    for number in range(2):
        with pytest.raises(ShareTrained):
            retrain_touched(asked, sharding, dataclasses.replace(kept, share=Share(number=number, total=2)), places)
    for owner, name in ((training, "fit_answers"), (partition, "_clustered")):
        monkeypatch.setattr(owner, name, refuse)
    joined = retrain_touched(asked, sharding, kept, places)
    assert (joined.retrained, joined.fitted.curve) == (whole.retrained, whole.fitted.curve)
    for shard, weights in whole.weights.items():
        assert all(torch.equal(weight, joined.weights[shard][name]) for name, weight in weights.items())


def test_a_share_trains_every_nth_shard_and_no_other(problem: Problem, train: Prompts, kept: Bench, tmp_path: Path) -> None:
    assert problem.fresh is not None
    assert kept.checkpoints is not None
    place, mine = tmp_path / "place", dataclasses.replace(kept, share=Share(number=1, total=2))
    with pytest.raises(ShareTrained):
        write_shards(place, train, problem.validation, Sisa(num_shards=4).sharding(TRAINING), problem.fresh, None, _made(mine, place))
    assert {path.name for path in kept.checkpoints.folder.iterdir()} == {"shard-1-slice-0-finished", "shard-3-slice-0-finished"}


def test_shares_are_counted_from_0_and_hold_every_item_once() -> None:
    items = list(range(7))
    assert sorted(item for number in range(3) for item in Share(number=number, total=3).of(items)) == items
    # More shares than items leave some with nothing to do.
    assert list(Share(number=8, total=9).of(items)) == []
    with pytest.raises(ValidationError, match="share 3 is none of 3"):
        Share(number=3, total=3)
