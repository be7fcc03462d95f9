"""Processes that take stages in turn: the same bytes, the same refusals, and a killed one is replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from small_stages import SEAT, arguments, digests_in, left_beside, perform_inline, silent

from e2urec_core.errors import ProcessDied, StaleCache
from tasks._pool import Pool

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as opened:
        yield opened


def serving() -> set[psutil.Process]:
    """Processes below this one that wait for stages or run one."""
    return {child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE and "--serve" in child.cmdline()}


def ask(pool: Pool, inputs: Path, stage: str, place: Path, watch: object = silent, **changes: object) -> int:
    place.mkdir(parents=True)
    return pool.perform(stage, arguments(inputs, stage, **changes), SEAT, place, place.parent / "kept", watch)  # type: ignore[arg-type]


def test_stages_in_turn_in_one_process_give_the_bytes_of_this_process(pool: Pool, inputs: Path, tmp_path: Path) -> None:
    for stage in ("train_augmented", "unlearn"):
        ask(pool, inputs, stage, tmp_path / stage / "place")
        assert digests_in(tmp_path / stage / "place") == digests_in(inputs / stage)
        assert left_beside(tmp_path / stage / "place") == set()
    assert len(serving()) == 1


def test_two_threads_are_served_by_two_processes_and_a_third_waits(pool: Pool, inputs: Path, tmp_path: Path) -> None:
    met, failed = threading.Barrier(2, timeout=60), []

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        if done == 1:
            met.wait()

    def work(number: int) -> None:
        try:
            ask(pool, inputs, "train_original", tmp_path / str(number) / "place", watch if number < 2 else silent)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work(2)
    assert failed == []
    assert [digests_in(tmp_path / str(number) / "place") for number in range(3)] == [digests_in(inputs / "train_original")] * 3
    assert len(serving()) == 2


def test_a_refusal_is_raised_here_and_the_process_serves_on(pool: Pool, inputs: Path, tmp_path: Path) -> None:
    before = serving()
    with pytest.raises(StaleCache):
        ask(pool, inputs, "unlearn", tmp_path / "a" / "place", original=inputs / "train_retrained")
    ask(pool, inputs, "evaluate", tmp_path / "b" / "place")
    assert digests_in(tmp_path / "b" / "place") == digests_in(inputs / "evaluate")
    assert serving() == before


def test_a_killed_process_is_said_and_another_one_takes_the_stage(inputs: Path, tmp_path: Path) -> None:
    known = serving()

    def kill(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        for worker in serving() - known:
            worker.kill()

    with Pool(1) as pool:
        with pytest.raises(ProcessDied, match="`train-original` ended with signal 9"):
            ask(pool, inputs, "train_original", tmp_path / "a" / "place", kill)
        perform_inline("train_original", arguments(inputs, "train_original"), tmp_path / "inline")
        ask(pool, inputs, "train_original", tmp_path / "b" / "place")
        assert digests_in(tmp_path / "b" / "place") == digests_in(tmp_path / "inline")


@pytest.mark.long
def test_a_process_that_died_while_it_waited_is_said_and_replaced(inputs: Path, tmp_path: Path) -> None:
    known = serving()
    with Pool(1) as pool:
        ask(pool, inputs, "unlearn", tmp_path / "a" / "place")
        (worker,) = serving() - known
        worker.kill()
        with pytest.raises(ProcessDied):
            ask(pool, inputs, "unlearn", tmp_path / "b" / "place")
        ask(pool, inputs, "unlearn", tmp_path / "c" / "place")
        assert digests_in(tmp_path / "c" / "place") == digests_in(inputs / "unlearn")
    assert serving() == known
