"""Steps and their pieces: every row once on some process, under the budget, and the pieces' losses and gradients add up to the step's.

Tolerance `SUMMED`: a step in pieces is summed in another order; 32-bit losses of a few nats then differ by some 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from e2urec_core.data.batches import Prompts, under_budget
from e2urec_core.data.draws import Draw, Loaded, Part, pieces
from e2urec_core.engine import Bench, Read
from e2urec_core.methods.base import Problem
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.recommender import Recommender
from e2urec_core.settings import Lora, Training
from e2urec_core.training import Loss, fit_answers

SUMMED = 1e-6
LossOf = Callable[[Read, Loaded], Loss]


def prompts(lengths: list[int], first: int = 0) -> Prompts:
    """Prompts of the given lengths; row n repeats the token first + n."""
    starts = numpy.concatenate([[0], numpy.cumsum(lengths)]).astype(numpy.int64)
    count = numpy.arange(len(lengths))
    return Prompts(count, count % 2, numpy.repeat(first + count, lengths).astype(numpy.int32), starts)


def drawn(**lengths: list[int]) -> Draw:
    """All rows of parts with the given lengths; beside every row stands its place in its part."""
    parts = {}
    for number, (name, some) in enumerate(lengths.items()):
        everyone = numpy.arange(len(some))
        parts[name] = Part(prompts(some, first=100 * (number + 1)), everyone, len(some), {"place": torch.from_numpy(everyone)})
    return Draw(parts)


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=25)
SHARED = st.integers(1, 4)
BUDGET = st.integers(1, 400)


def rows_in(draw: Draw) -> list[tuple[str, int]]:
    return [(name, int(place)) for name, part in draw.parts.items() for place in part.index]


@given(LENGTHS, LENGTHS, BUDGET, SHARED)
def test_the_pieces_of_all_processes_together_hold_every_row_once(one: list[int], two: list[int], budget: int, world: int) -> None:
    whole = drawn(one=one, two=two)
    found = [row for rank in range(world) for piece in pieces(whole, budget, rank, world) for row in rows_in(piece)]
    assert sorted(found) == sorted(rows_in(whole))


@given(LENGTHS, LENGTHS, BUDGET, SHARED)
def test_a_piece_is_within_the_budget_unless_it_is_one_row(one: list[int], two: list[int], budget: int, world: int) -> None:
    for rank in range(world):
        for piece in pieces(drawn(one=one, two=two), budget, rank, world):
            assert len(piece.lengths) == 1 or len(piece.lengths) * max(piece.lengths) <= budget
            assert piece.load().batch.token_ids.numel() == len(piece.lengths) * max(piece.lengths)


@given(LENGTHS, LENGTHS, BUDGET, SHARED)
def test_the_shares_of_all_pieces_sum_to_one_for_each_part(one: list[int], two: list[int], budget: int, world: int) -> None:
    shares = {"one": 0.0, "two": 0.0}
    for rank in range(world):
        for piece in pieces(drawn(one=one, two=two), budget, rank, world):
            loaded = piece.load()
            for name in loaded.rows:
                shares[name] += loaded.share(name)
    assert shares == {"one": pytest.approx(1, abs=1e-12), "two": pytest.approx(1, abs=1e-12)}


@given(LENGTHS, st.integers(1, 8))
def test_processes_get_as_many_rows_as_each_other_or_one_more(lengths: list[int], world: int) -> None:
    counts = [sum(len(piece.lengths) for piece in pieces(drawn(rows=lengths), 50, rank, world)) for rank in range(world)]
    assert max(counts) - min(counts) <= 1


def test_a_process_without_a_row_has_no_piece() -> None:
    assert [len(pieces(drawn(rows=[3, 2]), 100, rank, 3)) for rank in range(3)] == [1, 1, 0]


def test_a_step_within_the_budget_is_one_piece_and_stays_as_it_was_drawn() -> None:
    whole = drawn(one=[2, 3], two=[1])
    # 3 rows of 3 tokens: 9
    assert pieces(whole, 9) == [whole]
    # Longest first, 8 // 3 = 2 rows a piece
    assert [rows_in(piece) for piece in pieces(whole, 8)] == [[("one", 0), ("one", 1)], [("two", 0)]]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), BUDGET)
def test_cuts_cover_rows_in_order_within_the_budget_and_waste_no_room(lengths: list[int], budget: int) -> None:
    longest_first = numpy.array(sorted(lengths, reverse=True))
    cuts = under_budget(longest_first, budget)
    assert [place for start, stop in cuts for place in range(start, stop)] == list(range(len(lengths)))
    for start, stop in cuts:
        longest = longest_first[start]
        assert stop - start == 1 or (stop - start) * longest <= budget
        # One row more would have been too much, but for the last piece.
        assert stop == len(lengths) or (stop - start + 1) * longest > budget


def test_rows_that_are_taken_keep_what_stands_beside_them_and_the_steps_totals() -> None:
    taken = drawn(one=[2, 3, 4], two=[5, 1]).take(numpy.array([4, 0, 2]))
    # Places 0 to 2 are part one, 3 and 4 part two.
    assert {name: part.index.tolist() for name, part in taken.parts.items()} == {"one": [0, 2], "two": [1]}
    assert {name: part.beside["place"].tolist() for name, part in taken.parts.items()} == {"one": [0, 2], "two": [1]}
    assert {name: part.total for name, part in taken.parts.items()} == {"one": 3, "two": 2}
    assert taken.lengths.tolist() == [2, 4, 1]


def test_a_part_of_which_no_row_is_taken_is_left_out() -> None:
    assert list(drawn(one=[2, 3], two=[5]).take(numpy.array([2])).parts) == ["two"]


def test_loaded_rows_are_the_parts_in_turn_padded_to_the_longest() -> None:
    loaded = drawn(one=[1, 2], two=[3]).load()
    assert loaded.batch.token_ids.tolist() == [[100, 0, 0], [101, 101, 0], [200, 200, 200]]
    assert loaded.batch.mask.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert loaded.rows == {"one": slice(0, 2), "two": slice(2, 3)}
    assert loaded.totals == {"one": 2, "two": 1}
    assert loaded.beside["one"]["place"].tolist() == [0, 1]


def test_a_share_is_of_the_steps_rows_of_that_part() -> None:
    loaded = drawn(one=[2, 3, 4, 5], two=[6]).take(numpy.array([0, 4])).load()
    # 1 of 4 rows, 1 of 1
    assert (loaded.share("one"), loaded.share("two")) == (0.25, 1.0)


def test_rows_that_go_to_a_device_keep_their_parts() -> None:
    loaded = drawn(one=[1, 2], two=[3]).load()
    there = loaded.to(torch.device("meta"))
    assert {grid.device.type for grid in (there.batch.token_ids, there.batch.mask, there.beside["two"]["place"])} == {"meta"}
    assert (there.rows, there.totals) == (loaded.rows, loaded.totals)


class FirstStep(Exception):
    """Carries what the first step of a training was given."""

    def __init__(self, recommender: Recommender, draw: Draw, loss: LossOf) -> None:
        super().__init__()
        self.recommender, self.draw, self.loss = recommender, draw, loss


@pytest.fixture
def first_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], FirstStep]:
    """The recommender, the draw and the loss that a training hands to `fit` for its first step."""

    def caught(recommender: Recommender, passes: Callable[[int], Iterable[Draw]], loss: LossOf, *rest: object, **more: object) -> None:
        raise FirstStep(recommender, next(iter(passes(0))), loss)

    def run(train: Callable[[], object]) -> FirstStep:
        monkeypatch.setattr("e2urec_core.training.fit", caught)
        with pytest.raises(FirstStep) as stopped:
            train()
        return stopped.value

    return run


def descended(step: FirstStep, bench: Bench, budget: int, world: int) -> tuple[dict[str, float], dict[str, torch.Tensor], int]:
    """Losses and gradients of all pieces of all processes together, and how many pieces there were."""
    network, losses, count = step.recommender.network, dict[str, float](), 0
    network.zero_grad()
    for rank in range(world):
        for piece in pieces(step.draw, budget, rank, world):
            loss, count = step.loss(bench.reader(step.recommender), piece.load()), count + 1
            loss.total().backward()
            for name, part in loss.parts.items():
                losses[name] = losses.get(name, 0.0) + part.item()
    return losses, {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}, count


def assert_pieces_are_the_step(step: FirstStep, bench: Bench) -> None:
    whole, gradient, count = descended(step, bench, 10**6, 1)
    assert count == 1
    assert max(values.abs().max().item() for values in gradient.values()) > 1e-3, "without a gradient there is nothing to test"
    for budget, world in ((1, 1), (300, 1), (10**6, 3), (300, 2)):
        losses, summed, count = descended(step, bench, budget, world)
        assert count > 1
        assert losses == pytest.approx(whole, abs=SUMMED)
        assert summed.keys() == gradient.keys()
        for name, values in summed.items():
            assert torch.allclose(values, gradient[name], rtol=0, atol=SUMMED), name


def test_the_answer_loss_of_a_step_is_the_sum_over_its_pieces_and_so_is_its_gradient(
    tiny_problem: Problem, bench: Bench, first_step: Callable[[Callable[[], object]], FirstStep]
) -> None:
    student, rows = tiny_problem.original.trainable(), tiny_problem.retained
    training = Training(num_epochs=1, batch_size=13, learning_rate=1e-3)
    step = first_step(lambda: fit_answers(student, rows, rows, training, bench, purpose="test"))
    student.network.eval()
    assert_pieces_are_the_step(step, bench)


@pytest.mark.parametrize("centring", ["none", "log_softmax"])
def test_the_loss_of_e2urec_is_the_sum_over_its_pieces_and_so_is_its_gradient(
    tiny_problem: Problem, bench: Bench, first_step: Callable[[Callable[[], object]], FirstStep], centring: str
) -> None:
    training = Training(num_epochs=1, batch_size=7, learning_rate=1e-3)
    method = E2URec(centring=centring, lora=Lora(rank=2), training=training)
    step = first_step(lambda: method.unlearn(tiny_problem, bench))
    assert set(step.draw.parts) == {"forgotten", "retained"}
    # A fresh adapter is the original itself, from which nothing is to be remembered: move it off.
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in step.recommender.network.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=random)
    step.recommender.network.eval()
    assert_pieces_are_the_step(step, bench)
