"""The bench and its workers: what is refused, what precision touches, what happens ahead, and how processes add up.

Tolerance `BF16`: a 16-bit brain float steps by 2^-8 = 0.4 % of its value. A p(Yes) of these small networks moved by 0.0008, and a loss by
0.07 % of itself; `BF16` is one such step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from accelerate import Accelerator

from e2urec_core import engine
from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench, Workers, ahead, open_bench
from e2urec_core.errors import BadSetting
from e2urec_core.recommender import Recommender
from e2urec_core.scoring import yes_probabilities
from e2urec_core.settings import EngineRule, Seat, Training
from e2urec_core.training import fit_answers

BF16 = 2**-8
CPU = torch.device("cpu")
Build = Callable[..., Recommender]
RowsOf = Callable[[Recommender, str], Prompts]


def counting(made: list[int], upto: int, fail_at: int = -1) -> Iterator[Callable[[], int]]:
    """Calls that give 0, 1, 2, ... and note when they were made."""

    def call(number: int) -> int:
        if number == fail_at:
            raise ZeroDivisionError(f"call {number}")
        made.append(number)
        return number

    return ((lambda number=number: call(number)) for number in range(upto))


def made_in_the_end(made: list[int], expected: int) -> int:
    """How many calls were made, once there were as many as expected and time for one too many."""
    deadline = time.monotonic() + 10
    while len(made) < expected and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    return len(made)


def rows_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("rows")}


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_what_is_made_ahead_comes_in_order_and_whole(depth: int, count: int) -> None:
    assert list(ahead(counting([], count), depth)) == list(range(count))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_no_more_is_made_ahead_than_asked(depth: int) -> None:
    made: list[int] = []
    results = ahead(counting(made, 30), depth)
    assert made_in_the_end(made, 0) == 0
    for asked in range(1, 4):
        next(results)
        assert made_in_the_end(made, asked + depth) == asked + depth
    results.close()  # type: ignore[attr-defined]


def test_another_thread_makes_what_is_ahead() -> None:
    assert set(ahead([threading.get_ident] * 3)) != {threading.get_ident()}


def test_an_error_in_a_call_reaches_who_asks_in_its_turn() -> None:
    results, told, before = ahead(counting([], 5, fail_at=2)), [], rows_threads()
    with pytest.raises(ZeroDivisionError, match="call 2"):
        for result in results:
            told.append(result)
    assert told == [0, 1]
    assert rows_threads() == before


def test_an_error_in_what_lists_the_calls_reaches_who_asks() -> None:
    def calls() -> Iterator[Callable[[], int]]:
        yield lambda: 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(ahead(calls()))


def test_a_consumer_that_leaves_ends_the_thread_and_what_was_not_begun_is_never_made() -> None:
    made, begun, go_on, before = [], threading.Event(), threading.Event(), rows_threads()

    def slow() -> int:
        begun.set()
        go_on.wait(10)
        made.append(1)
        return 1

    results = ahead([lambda: 0, slow, lambda: made.append(2)])
    next(results)
    assert begun.wait(10)
    assert len(rows_threads() - before) == 1
    # While the first call ahead is still being made, the consumer leaves; the second has not begun.
    threading.Timer(0.1, go_on.set).start()
    results.close()  # type: ignore[attr-defined]
    assert rows_threads() == before
    assert made == [1]


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadSetting) as refused:
        open_bench(Seat(seed=0, device="cuda"))
    assert str(refused.value).splitlines() == [
        "BadSetting: `--device cuda` is refused: torch sees 0 CUDA devices",
        "hint: take `--device cpu`, or a CUDA build of torch",
    ]


def test_bf16_is_refused_on_a_gpu_that_has_it_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(BadSetting, match="`--precision bf16` is refused") as refused:
        open_bench(Seat(seed=0, device="cuda", precision="bf16"))
    assert "--precision fp32" in refused.value.hint


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_bench_is_what_its_seat_says(tmp_path: Path) -> None:
    rule = EngineRule(token_budget=77, compiled="on", checkpoint_every_s=9.0, checkpoint_every_steps=4)
    bench = open_bench(Seat(seed=5, threads=2, precision="bf16", engine=rule), checkpoints=tmp_path / "kept")
    assert (bench.seed, bench.device, bench.precision, bench.token_budget, bench.compiled) == (5, CPU, "bf16", 77, True)
    assert bench.checkpoints is not None
    assert (bench.checkpoints.folder, bench.checkpoints.every_s, bench.checkpoints.every_steps) == (tmp_path / "kept", 9.0, 4)
    assert torch.get_num_threads() == 2
    assert not (tmp_path / "kept").exists()


@pytest.mark.usefixtures("threads")
def test_a_bench_without_a_folder_keeps_no_checkpoints_and_by_itself_compiles_nothing() -> None:
    bench = open_bench(Seat(seed=0))
    assert (bench.checkpoints, bench.compiled) == (None, False)


@pytest.mark.usefixtures("threads")
def test_each_process_takes_the_gpu_of_its_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert open_bench(Seat(seed=0, device="cuda")).device == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("device", "token_budget", "expected"),
    # On a GPU four budgets; on a CPU one, but never over 4,096.
    [("cuda", 1000, 4000), ("cuda", 32768, 131072), ("cpu", 1000, 1000), ("cpu", 32768, 4096)],
)
def test_rows_are_scored_in_larger_batches_on_a_gpu_and_in_what_the_cache_holds_on_a_cpu(
    device: str, token_budget: int, expected: int
) -> None:
    assert Bench(seed=0, device=torch.device(device), token_budget=token_budget).scoring_budget == expected


@pytest.mark.usefixtures("threads")
def test_workers_leave_the_number_of_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = Accelerator.__init__

    def joined_on_one_thread(accelerator: Accelerator, **how: Any) -> None:
        joined(accelerator, **how)
        # As Accelerate does where several processes share a CPU.
        torch.set_num_threads(1)

    monkeypatch.setattr(Accelerator, "__init__", joined_on_one_thread)
    torch.set_num_threads(2)
    assert Bench(seed=0).workers.world == 1
    assert torch.get_num_threads() == 2


def test_bf16_scores_lie_near_those_in_32_bits_and_are_not_the_same(build_tiny: Build, rows_of: RowsOf) -> None:
    recommender = build_tiny("tiny_t5")
    with torch.no_grad():
        for weight in recommender.network.parameters():
            if weight.dim() > 1:
                weight.mul_(0.2 / max(1e-3, weight.std().item()))
    rows = rows_of(recommender, "forgotten")
    exact, rounded = (yes_probabilities(recommender, rows, Bench(seed=0, precision=precision)) for precision in ("fp32", "bf16"))
    assert numpy.ptp(exact) > BF16, "answers must depend on the prompt"
    assert rounded == pytest.approx(exact, abs=BF16)
    assert not numpy.array_equal(rounded, exact)


def test_a_reader_gives_32_bit_floats_whatever_the_precision(build_tiny: Build, rows_of: RowsOf) -> None:
    recommender = build_tiny("tiny_t5")
    batch = rows_of(recommender, "forgotten").batch(numpy.arange(2))
    support = torch.tensor([[5, 6]] * 2)
    with torch.inference_mode():
        for precision in ("fp32", "bf16"):
            read = Bench(seed=0, precision=precision).reader(recommender)  # type: ignore[arg-type]
            assert {read(batch).dtype, read(batch, support, "logsumexp").dtype} == {torch.float32}


def test_training_in_bf16_keeps_weights_in_32_bits_and_losses_near_those_of_fp32(build_tiny: Build, rows_of: RowsOf) -> None:
    curves = {}
    for precision in ("fp32", "bf16"):
        recommender = build_tiny("tiny_t5")
        rows, bench = rows_of(recommender, "forgotten"), Bench(seed=0, precision=precision)  # type: ignore[arg-type]
        training = Training(num_epochs=2, batch_size=16, learning_rate=2e-3)
        curves[precision] = [point.loss for point in fit_answers(recommender, rows, rows, training, bench, purpose="test").curve]
        assert {weight.dtype for weight in recommender.network.parameters()} == {torch.float32}
        assert {weight.grad.dtype for weight in recommender.network.parameters() if weight.grad is not None} == {torch.float32}
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=BF16)
    assert curves["bf16"] != curves["fp32"]


def test_benches_of_different_precision_work_side_by_side_in_one_process(build_tiny: Build, rows_of: RowsOf) -> None:
    recommender = build_tiny("tiny_t5")
    rows, plain, brain = rows_of(recommender, "forgotten"), Bench(seed=0), Bench(seed=0, precision="bf16")
    alone = {bench.precision: yes_probabilities(recommender, rows, bench) for bench in (plain, brain)}
    # Both have been opened; each goes on as if the other were not there.
    for bench in (plain, brain, plain):
        assert numpy.array_equal(yes_probabilities(recommender, rows, bench), alone[bench.precision])
    number = torch.tensor(2.0, requires_grad=True)
    for bench in (plain, brain):
        bench.workers.backward(number**2)
    # 2 * 2 twice
    assert number.grad == 8


def test_one_process_by_itself_adds_nothing_to_sums_gradients_and_what_is_gathered() -> None:
    workers, values = Bench(seed=0).workers, torch.tensor([1.0, 2.0])
    weight, still = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.tensor([3.0, 4.0])
    workers.sum_gradients([weight, still])
    assert workers.summed(values) is values
    assert workers.gathered(values) == [values]
    assert (weight.grad.tolist(), still.grad) == ([3.0, 4.0], None)
    assert (workers.rank, workers.world, workers.is_main) == (0, 1, True)


class Twins:
    """Stands for Accelerate in two processes that always hold the same: a sum is twice the own part."""

    device = CPU

    def __init__(self) -> None:
        self.sent: list[int] = []

    def reduce(self, values: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        self.sent.append(values.numel())
        return values * 2

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, values])


@pytest.fixture
def two_workers() -> Workers:
    workers = Workers.__new__(Workers)
    workers._accelerator, workers.rank, workers.world = Twins(), 1, 2  # type: ignore[assignment]
    return workers


def test_gradients_of_two_processes_add_up_bucket_by_bucket_whatever_their_shapes(
    two_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUCKET", 6)
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (3,), (5,), ())]
    for number, weight in enumerate(weights[:3]):
        weight.grad = torch.arange(weight.numel(), dtype=torch.float32).reshape(weight.shape) + number
    two_workers.sum_gradients(weights)
    found: list[Any] = [weight.grad.tolist() for weight in weights]  # type: ignore[union-attr]
    # The last weight saw no row here, nor in the twin: twice 0.
    assert found == [[[0, 2], [4, 6]], [2, 4, 6], [4, 6, 8, 10, 12], 0]
    # 4 + 3 reach the bucket's 6; so do 5 + 1.
    assert two_workers._accelerator.sent == [7, 6]  # type: ignore[attr-defined]


def test_what_two_processes_gather_is_one_tensor_each_by_rank(two_workers: Workers) -> None:
    assert [values.tolist() for values in two_workers.gathered(torch.tensor([1, 2]))] == [[1, 2], [1, 2]]
    assert not two_workers.is_main
