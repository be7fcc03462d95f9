"""Curvature, conjugate gradients and the influence step, on problems small enough to write the matrices down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2urec_core.data.batches import Batch, Prompts
from e2urec_core.engine import Bench
from e2urec_core.errors import BadRequest, Diverged, NotSolved
from e2urec_core.influence import Influence, drawn_panel, fallen_away
from e2urec_core.methods.base import Changed, Problem
from e2urec_core.methods.ifru import Ifru
from e2urec_core.ops.answers import answer_nll
from e2urec_core.ops.influence import conjugate_gradient, gauss_newton_product, largest_eigenvalue, most_important, slice_importance
from e2urec_core.recommender import Recommender
from e2urec_core.training import mean_answer_nll

FLOAT32_SUMS = 2e-5
"""Sums of some hundred products in 32 bits, against the same in another order."""
QUICK: dict[str, Any] = {"panel_rows": 24, "max_iterations": 60, "tolerance": 1e-6}


def quiet(iteration: int, value: float) -> None:
    """Nobody is told."""


def linear(seed: int, rows: int = 7, width: int = 3, vocabulary: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, a layer's weights and right answers of a linear softmax model."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(vocabulary, width, generator=generator).requires_grad_()
    answers = torch.randint(vocabulary, (rows,), generator=generator)
    return torch.randn(rows, width, generator=generator), weight, answers


def hessian(inputs: Tensor, weight: Tensor, answers: Tensor) -> Tensor:
    """Second derivative of the summed loss, written down by torch; of a linear model that is the Gauss-Newton matrix."""

    def loss(flat: Tensor) -> Tensor:
        return answer_nll(inputs @ flat.view_as(weight).T, answers) * len(answers)

    whole: Tensor = torch.autograd.functional.hessian(loss, weight.detach().reshape(-1))  # type: ignore[no-untyped-call]
    return whole


@given(seed=st.integers(0, 1000))
def test_a_product_is_that_of_the_explicit_matrix(seed: int) -> None:
    inputs, weight, answers = linear(seed)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed + 1))
    (made,) = gauss_newton_product(inputs @ weight.T, [weight], [direction])
    expected = (hessian(inputs, weight, answers) @ direction.reshape(-1)).view_as(weight)
    torch.testing.assert_close(made, expected, atol=FLOAT32_SUMS, rtol=FLOAT32_SUMS)


def test_a_product_of_a_network_leaves_out_what_bends_in_the_network() -> None:
    inputs, weight, _ = linear(3)
    other = torch.randn(3, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()

    def logits(one: Tensor, two: Tensor) -> Tensor:
        return torch.tanh(inputs @ one.T) @ two.T

    weights = (other, weight)
    # (row, vocab, weight) of both tensors
    jacobian = torch.cat([part.flatten(2) for part in torch.autograd.functional.jacobian(logits, weights)], dim=2)  # type: ignore[no-untyped-call]
    shares = torch.softmax(logits(*weights), dim=1).detach()
    inner = torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]
    matrix = torch.einsum("rvw,rvu,rux->wx", jacobian, inner, jacobian)
    direction = [torch.randn(one.shape, generator=torch.Generator().manual_seed(5)) for one in weights]
    made = torch.cat([one.reshape(-1) for one in gauss_newton_product(logits(*weights), list(weights), direction)])
    expected = matrix @ torch.cat([one.reshape(-1) for one in direction])
    torch.testing.assert_close(made, expected, atol=FLOAT32_SUMS, rtol=FLOAT32_SUMS)


def test_a_tensor_that_the_logits_do_not_see_has_no_curvature() -> None:
    inputs, weight, _ = linear(0)
    unseen = torch.ones(2, requires_grad=True)
    made = gauss_newton_product(inputs @ weight.T, [weight, unseen], [torch.ones_like(weight), torch.ones(2)])
    assert made[0].abs().max() > 0
    assert torch.equal(made[1], torch.zeros(2))


@given(seed=st.integers(0, 1000), size=st.integers(1, 12))
def test_conjugate_gradients_solve_what_torch_solves(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix, wanted = root @ root.T + torch.eye(size, dtype=torch.float64), torch.randn(size, generator=generator, dtype=torch.float64)
    solved = conjugate_gradient(lambda direction: matrix @ direction, wanted, 10 * size, 1e-10, quiet)
    torch.testing.assert_close(solved.solution, torch.linalg.solve(matrix, wanted), atol=1e-7, rtol=1e-7)
    left = (matrix @ solved.solution - wanted).norm() / wanted.norm()
    assert solved.residuals[-1] <= 1e-10
    assert left.item() == pytest.approx(solved.residuals[-1], abs=1e-9)


def test_conjugate_gradients_stop_at_the_tolerance_or_the_last_iteration() -> None:
    scale, told = torch.arange(1.0, 21.0), []

    def solve(max_iterations: int, tolerance: float) -> tuple[float, ...]:
        told.clear()
        return conjugate_gradient(
            lambda direction: scale * direction, torch.ones(20), max_iterations, tolerance, lambda at, value: told.append((at, value))
        ).residuals

    loose, few = solve(50, 0.1), solve(3, 1e-6)
    assert loose[-1] <= 0.1 < loose[-2]
    assert len(few) == 3
    assert few[-1] > 1e-6
    assert told == list(enumerate(few, 1))


def test_conjugate_gradients_end_when_there_is_no_number_left() -> None:
    residuals = conjugate_gradient(lambda direction: direction * float("nan"), torch.ones(2), 9, 1e-6, quiet).residuals
    assert len(residuals) == 1
    assert residuals[0] != residuals[0]


def test_the_power_method_comes_to_the_largest_eigenvalue_from_below() -> None:
    scale, found = torch.tensor([5.0, 4.0, 0.0]), []
    value = largest_eigenvalue(lambda direction: scale * direction, torch.ones(3), 30, lambda at, value: found.append(value))
    assert found == sorted(found)
    assert value == pytest.approx(5, abs=1e-4)


def test_the_most_important_rows_are_those_with_the_largest_mean_square() -> None:
    importance = torch.cat([slice_importance(torch.tensor([[3.0, 0.0], [1.0, 1.0]])), slice_importance(torch.tensor([2.0, -0.5]))])
    # 9 / 2, (1 + 1) / 2; of a vector each entry: 4, 1 / 4
    assert importance.tolist() == [4.5, 1.0, 4.0, 0.25]
    assert most_important(importance, 0.5).tolist() == [True, False, True, False]
    assert most_important(importance, 0.01).tolist() == [True, False, False, False]


class Linear(torch.nn.Module):
    """A softmax over the mean of a few words' embeddings: linear in its weights, so that influence is exact algebra."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(0.3 * torch.randn(2, 5, generator=torch.Generator().manual_seed(1)))
        self.table = torch.randn(vocabulary, 5, generator=torch.Generator().manual_seed(2))

    def read(self, batch: Batch, *_: Any, **__: Any) -> Tensor:
        told = self.table[batch.token_ids] * batch.mask[..., None]
        return (told.sum(dim=1) / batch.mask.sum(dim=1, keepdim=True)) @ self.weight.T


@pytest.fixture
def straight(tiny_problem: Problem, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Problem, Linear]]:
    """The tiny rows under a linear model whose answers are words 0 and 1."""
    original = tiny_problem.original
    network = Linear(original.tokenizer.get_vocab_size())
    answers = original.answers.model_copy(update={"yes_id": 0, "no_id": 1})
    monkeypatch.setattr(Bench, "reader", lambda bench, recommender: recommender.network.read)

    def built(changed: Changed | None = None) -> tuple[Problem, Linear]:
        recommender = Recommender(network, original.tokenizer, answers)
        return dataclasses.replace(tiny_problem, original=recommender, teachers=None, changed=changed), network

    return built


def explicit(problem: Problem, network: Linear, rows: Prompts) -> tuple[Tensor, Tensor]:
    """Gradient and second derivative of the summed loss of `rows`, written down by torch, in 64 bits."""
    batch = rows.batch(numpy.arange(len(rows)))
    inputs = ((network.table[batch.token_ids] * batch.mask[..., None]).sum(dim=1) / batch.mask.sum(dim=1, keepdim=True)).double()
    answers = problem.original.answer_ids(batch)

    def loss(flat: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(inputs @ flat.view(2, 5).T, answers, reduction="sum")

    at = network.weight.detach().double().reshape(-1)
    return (
        torch.autograd.functional.jacobian(loss, at),  # type: ignore[no-untyped-call]
        torch.autograd.functional.hessian(loss, at),  # type: ignore[no-untyped-call]
    )


def swapped(rows: Prompts) -> Prompts:
    """The same rows, each with another one's prompt."""
    other = rows.select(numpy.roll(numpy.arange(len(rows)), 1))
    return dataclasses.replace(other, example_ids=rows.example_ids, labels=rows.labels)


@pytest.mark.parametrize("spillover", [False, True], ids=["direct", "with spillover"])
def test_the_step_is_the_closed_form(
    straight: Callable[..., tuple[Problem, Linear]], tiny_problem: Problem, bench: Bench, spillover: bool
) -> None:
    some = tiny_problem.retained.select(numpy.arange(9))
    problem, network = straight(Changed(some, swapped(some)) if spillover else None)
    rule = Ifru(scale=2, keep_share=1, damping_share=0.05, panel_rows=10_000, tolerance=1e-6, power_iterations=200)
    made: Any = rule.unlearn(problem, bench).recommender.network
    wanted = explicit(problem, network, problem.forgotten)[0]
    if spillover:
        wanted = wanted + explicit(problem, network, some)[0] - explicit(problem, network, swapped(some))[0]
    curvature = explicit(problem, network, problem.retained)[1] / len(problem.retained)
    damped = curvature + 0.05 * torch.linalg.eigvalsh(curvature)[-1] * torch.eye(10)
    count = len(problem.retained) + len(problem.forgotten)
    expected = network.weight.detach().double().reshape(-1) + 2 / count * torch.linalg.solve(damped, wanted)
    moved = (expected - network.weight.detach().reshape(-1)).norm()
    assert moved > 0.01
    assert (made.weight.detach().double().reshape(-1) - expected).norm() < 1e-3 * moved


def influence_of(problem: Problem, bench: Bench, rows: int = 16) -> Influence:
    return Influence(problem.original.trainable(), drawn_panel(problem, rows, bench.seed), bench)


def test_a_changed_history_adds_exactly_the_difference_of_its_gradients(tiny_problem: Problem, bench: Bench) -> None:
    some = tiny_problem.retained.select(numpy.arange(5))
    anew = swapped(some)
    influence = influence_of(tiny_problem, bench)
    direct = fallen_away(influence, tiny_problem)
    both = fallen_away(influence, dataclasses.replace(tiny_problem, changed=Changed(some, anew)))
    torch.testing.assert_close(both - direct, influence.gradient(some) - influence.gradient(anew), atol=1e-4, rtol=1e-4)
    assert (both - direct).norm() > 0.01
    same = fallen_away(influence, dataclasses.replace(tiny_problem, changed=Changed(some, some)))
    torch.testing.assert_close(same, direct, atol=FLOAT32_SUMS, rtol=FLOAT32_SUMS)


def test_gradients_and_products_do_not_depend_on_how_rows_are_cut_into_pieces(tiny_problem: Problem, bench: Bench) -> None:
    whole, pieces = (influence_of(tiny_problem, dataclasses.replace(bench, token_budget=budget)) for budget in (10**6, 400))
    direction = whole.gradient(tiny_problem.forgotten)
    scale = direction.abs().max()
    torch.testing.assert_close(pieces.gradient(tiny_problem.forgotten), direction, atol=1e-5 * scale.item(), rtol=1e-4)
    one, other = whole.curvature(direction), pieces.curvature(direction)
    torch.testing.assert_close(one, other, atol=1e-5 * one.abs().max().item(), rtol=1e-4)
    # No negative eigenvalue.
    assert torch.dot(direction, one) > 0


@pytest.mark.parametrize("trains", ["network", "adapter"])
def test_what_is_pruned_keeps_its_bits_and_is_not_counted(tiny_problem: Problem, bench: Bench, trains: str) -> None:
    outcome = Ifru(trains=trains, keep_share=0.25, damping_share=0.1, **QUICK).unlearn(tiny_problem, bench)
    student = Ifru(trains=trains).student(tiny_problem.original, bench)
    before, after = student.network.state_dict(), outcome.recommender.network.state_dict()
    moved = sum(int((before[name] != after[name]).sum()) for name, _ in student.network.named_parameters())
    assert outcome.num_changed is not None
    assert 0 < moved <= outcome.num_changed < student.count()["trainable_parameters"]
    if trains == "adapter":
        assert not [name for name in before if "lora_B" not in name and not torch.equal(before[name], after[name])]
    untouched = [(before[name] == after[name]).reshape(len(before[name]), -1).all(dim=1) for name in before if before[name].dim() == 2]
    assert torch.cat(untouched).float().mean() > 0.5


@pytest.mark.parametrize("trains", ["network", "adapter"])
def test_a_small_step_moves_the_loss_of_forgotten_rows_up_more_than_that_of_others(
    tiny_problem: Problem, bench: Bench, trains: str
) -> None:
    outcome = Ifru(trains=trains, scale=0.2, damping_share=0.1, **QUICK).unlearn(tiny_problem, bench)

    def loss(recommender: Recommender, rows: Prompts) -> float:
        return mean_answer_nll(bench.reader(recommender), recommender, rows, bench)

    risen = {
        part: loss(outcome.recommender, rows) - loss(tiny_problem.original, rows)
        for part, rows in (("forgotten", tiny_problem.forgotten), ("retained", tiny_problem.retained))
    }
    assert risen["forgotten"] > max(0.0, risen["retained"])


def test_at_scale_0_the_original_comes_back(tiny_problem: Problem, bench: Bench) -> None:
    outcome = Ifru(scale=0, damping_share=0.1, **QUICK).unlearn(tiny_problem, bench)
    before, after = tiny_problem.original.network.state_dict(), outcome.recommender.network.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_the_curve_is_the_residual_of_every_iteration(tiny_problem: Problem, bench: Bench) -> None:
    told: list[tuple[int, int, dict[str, float]]] = []
    watched = dataclasses.replace(bench, watch=lambda done, total, unit, numbers: told.append((done, total, dict(numbers))))
    rule = Ifru(damping_share=0.1, power_iterations=3, **QUICK)
    curve = rule.unlearn(tiny_problem, watched).fitted.curve
    assert [numbers["residual"] for _, _, numbers in told[3:]] == [point.loss for point in curve]
    assert [(done, total) for done, total, _ in told] == [(at, 63) for at in range(1, 4 + len(curve))]
    assert curve[-1].loss <= 1e-6 or len(curve) == 60


def test_a_system_that_is_not_solved_is_refused_with_its_numbers_unless_it_is_good_enough(tiny_problem: Problem, bench: Bench) -> None:
    short: dict[str, Any] = {"panel_rows": 24, "max_iterations": 2, "damping_share": 0.001}
    with pytest.raises(NotSolved, match=r"residual of 0\.\d+ after 2 iterations") as refused:
        Ifru(**short).unlearn(tiny_problem, bench)
    assert "--method.damping-share" in refused.value.hint
    assert len(Ifru(**short, accept_residual=0.999).unlearn(tiny_problem, bench).fitted.curve) == 2


def test_an_original_whose_gradients_are_no_numbers_is_refused(tiny_problem: Problem, bench: Bench) -> None:
    broken = tiny_problem.original.trainable()
    with torch.no_grad():
        next(broken.network.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match="gradient that falls away of ifru is nan"):
        Ifru(**QUICK).unlearn(dataclasses.replace(tiny_problem, original=broken), bench)


def test_nothing_to_keep_is_refused(tiny_problem: Problem, bench: Bench) -> None:
    nobody = tiny_problem.retained.select(numpy.arange(0))
    with pytest.raises(BadRequest, match="0 rows to keep"):
        Ifru(**QUICK).unlearn(dataclasses.replace(tiny_problem, retained=nobody), bench)


def test_a_residual_that_could_never_be_accepted_is_refused() -> None:
    with pytest.raises(ValueError, match=r"accept_residual 0\.01 is below tolerance 0\.1"):
        Ifru(tolerance=0.1)
