"""Shards of a stage trained side by side, by child processes and by the workers of a Ray cluster: the same bytes, and the same refusals."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_stages import SEAT, SHARDED, TRAINING, arguments, changed, digests_in, left_beside, perform_inline, silent

from e2urec_core.errors import BadSetting, MissingPackage, ProcessDied, StaleCache
from e2urec_core.settings import Seat
from flows.runs import build_run
from tasks import _ray_crew
from tasks._crew import Crew, perform_in_shares
from tasks._pool import Pool
from tests.by_default import few

with_ray = pytest.mark.skipif(
    find_spec("ray") is None or find_spec("prefect_ray") is None, reason="ray and prefect-ray are not installed: pip install 'e2urec[ray]'"
)
FOUR, SHORT = changed(SHARDED, num_shards=4), changed(TRAINING, batch_size=8)


def given(inputs: Path, stage: str) -> dict[str, Any]:
    """What the sharded stages are called with, with shards of which several are touched."""
    if stage == "train_shards":
        return arguments(inputs, stage, sharding=FOUR.sharding(SHORT))
    nothing = {"augmented": None, "remembering": None, "teachers": None}
    return arguments(inputs, stage, method=FOUR, shards=inputs.parent / "four" / "train_shards", training=SHORT, **nothing)


@pytest.fixture(scope="module")
def alone(inputs: Path) -> Path:
    """What the sharded stages give in this process, one shard after another; leave it as it is."""
    root = inputs.parent / "four"
    for stage in ("train_shards", "unlearn"):
        perform_inline(stage, given(inputs, stage), root / stage)
    return root


def ask(crew: Crew, told: dict[str, Any], stage: str, place: Path, watch: Any = silent, seat: Seat = SEAT) -> int:
    place.mkdir(parents=True)
    return perform_in_shares(crew, stage, told, seat, place, place.parent / "kept", watch)


@pytest.mark.slow
@pytest.mark.parametrize("size", few([2], [1, 2]))
def test_one_and_two_processes_give_the_bytes_of_this_one(size: int, inputs: Path, alone: Path, tmp_path: Path) -> None:
    with Pool(size) as pool:
        for stage in ("train_shards", "unlearn"):
            ask(pool, given(inputs, stage), stage, tmp_path / stage / "place")
            assert digests_in(tmp_path / stage / "place") == digests_in(alone / stage)
            kept = {path.name for path in (tmp_path / stage / "kept").iterdir()}
            assert {"shard-0-slice-0-finished", "shard-0-slice-1-finished"} <= kept
            assert left_beside(tmp_path / stage / "place") == {"kept"}


@pytest.mark.slow
def test_every_step_of_every_shard_is_told_once(inputs: Path, alone: Path, tmp_path: Path) -> None:
    steps: list[int] = []

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        assert numbers["loss"] > 0
        steps.append(done)

    with Pool(2) as pool:
        ask(pool, given(inputs, "train_shards"), "train_shards", tmp_path / "place", watch)
    # Shards may stop early, so some of the planned steps are missing.
    assert len(steps) == len(set(steps)) > 8


@pytest.mark.long
def test_a_share_whose_process_was_killed_is_said_and_what_others_finished_is_not_trained_again(
    inputs: Path, alone: Path, tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir()
    told, killed = given(inputs, "train_shards"), []

    def kill(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        if not killed:
            killed.append(done)
            next(child for child in psutil.Process().children() if "--serve" in child.cmdline()).kill()

    with Pool(2) as pool:
        with pytest.raises(ProcessDied, match="`train-shards` ended with signal 9"):
            perform_in_shares(pool, "train_shards", told, SEAT, tmp_path / "place", tmp_path / "kept", kill)
        assert killed
        finished = {path.name for path in (tmp_path / "kept").glob("*-finished")}
        assert 2 * 2 <= len(finished) < 4 * 2
        again: list[int] = []
        perform_in_shares(pool, "train_shards", told, SEAT, tmp_path / "place", tmp_path / "kept", lambda done, *more: again.append(done))
    assert again
    assert digests_in(tmp_path / "place") == digests_in(alone / "train_shards")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes with one worker each on this machine, and a Prefect server that its workers reach."""
    from prefect.testing.utilities import prefect_test_harness
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ADDRESS")}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    started.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = started.address
    try:
        with prefect_test_harness(server_startup_timeout=120):
            yield started
    finally:
        started.shutdown()
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@pytest.fixture(scope="module")
def on_ray(cluster: Any) -> Iterator[Crew]:
    with _ray_crew.RayCrew(2) as crew:
        yield crew


def ray_workers() -> list[psutil.Process]:
    """Processes of the cluster that train shards."""
    return [each for each in psutil.process_iter(["name"]) if (each.info["name"] or "").startswith("ray::train-sha")]


def lasting(inputs: Path) -> dict[str, Any]:
    """A training of shards so long that it has not ended when its first steps are heard of."""
    told = given(inputs, "train_shards")
    return {**told, "sharding": changed(told["sharding"], training=changed(SHORT, num_epochs=16, patience=0).canonical())}


@with_ray
@pytest.mark.long
def test_two_workers_of_a_ray_cluster_give_the_bytes_of_this_process(on_ray: Crew, inputs: Path, alone: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    for stage in ("train_shards", "unlearn"):
        place = tmp_path / stage / "place"
        ask(on_ray, given(inputs, stage), stage, place, lambda done, total, unit, numbers: losses.append(numbers["loss"]))
        assert digests_in(tmp_path / stage / "place") == digests_in(alone / stage)
        assert left_beside(tmp_path / stage / "place") == {"kept"}
    assert min(losses) > 0


@with_ray
@pytest.mark.long
def test_both_nodes_of_the_cluster_train_at_the_same_time(on_ray: Crew, inputs: Path, alone: Path, tmp_path: Path) -> None:
    most = 0

    def watch(*told: Any) -> None:
        nonlocal most
        most = most if most == 2 else max(most, len(ray_workers()))

    ask(on_ray, lasting(inputs), "train_shards", tmp_path / "place", watch)
    assert most == 2


@with_ray
@pytest.mark.long
def test_what_a_ray_worker_refuses_is_raised_here_as_it_was_said(on_ray: Crew, inputs: Path, tmp_path: Path) -> None:
    told = arguments(inputs, "unlearn", original=inputs / "train_retrained")
    raised = []
    for crew in (Pool(1), on_ray):
        with pytest.raises(StaleCache) as refusal:
            ask(crew, told, "unlearn", tmp_path / type(crew).__name__ / "place")
        raised.append((str(refusal.value), refusal.value.facts, refusal.value.hint))
    assert raised[0] == raised[1]


@with_ray
@pytest.mark.long
def test_a_killed_ray_worker_is_said_and_the_stage_goes_on_to_the_same_bytes(
    on_ray: Crew, inputs: Path, alone: Path, tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir()
    told, killed = lasting(inputs), list[int]()

    def kill(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        if not killed:
            killed.extend(worker.pid for worker in ray_workers())
            for worker in ray_workers():
                worker.kill()

    with pytest.raises(ProcessDied, match=r"the Ray worker of `train-shards` ended without its rows \(.*Crash"):
        perform_in_shares(on_ray, "train_shards", told, SEAT, tmp_path / "place", tmp_path / "kept", kill)
    assert killed
    perform_in_shares(on_ray, "train_shards", told, SEAT, tmp_path / "place", tmp_path / "kept", silent)
    perform_inline("train_shards", told, tmp_path / "inline")
    assert digests_in(tmp_path / "place") == digests_in(tmp_path / "inline")


@with_ray
def test_an_address_where_no_cluster_answers_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(BadSetting, match="no Ray cluster can be joined") as refusal, _ray_crew.RayCrew(2):
        pass
    assert refusal.value.facts["RAY_ADDRESS"] == "127.0.0.1:1"


def test_without_the_extra_a_cluster_is_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from flows.cli import main

    monkeypatch.setattr(_ray_crew, "find_spec", lambda name: None)
    words = {"dataset": "sample", "backbone": "tiny-t5", "method": "sisa"}
    with pytest.raises(MissingPackage, match=r"2 of 2 packages .* are missing: ray, prefect-ray") as refusal:
        build_run(words, None, {"fan-out": "ray"})
    assert refusal.value.hint == "pip install 'e2urec[ray]'"
    monkeypatch.setattr("sys.argv", ["e2urec", "compare", "sample", "tiny-t5", "--fan-out", "ray", "--workspace", str(tmp_path / "place")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err == f"{refusal.value}\n"
    assert not (tmp_path / "place").exists()


def test_several_processes_of_one_stage_are_refused_on_a_cluster() -> None:
    words = {"dataset": "sample", "backbone": "tiny-t5", "method": "sisa"}
    with pytest.raises(BadSetting, match="`--processes 2` is refused with `--fan-out ray`"):
        build_run(words, None, {"fan-out": "ray", "processes": "2"})
