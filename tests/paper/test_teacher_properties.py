"""What must hold of the two teachers and of what is kept of a row, whatever the numbers; found by trying many.

Tolerances: logits lie within +-20, where a 32-bit float steps by 2e-6; `FLOAT32` allows some tens of such steps.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from e2urec_core.ops.answers import answer_nll, narrow, yes_probability
from e2urec_core.ops.distil import centred, suppressed_teacher, teacher_divergence

FLOAT32 = 5e-5
LOGIT = st.floats(-20, 20, width=32)


@st.composite
def grids(draw: st.DrawFn, count: int = 2) -> list[torch.Tensor]:
    """`count` grids of logits of one shape: 1 to 4 rows, 2 to 7 columns."""
    num_rows, num_columns = draw(st.integers(1, 4)), draw(st.integers(2, 7))
    row = st.lists(LOGIT, min_size=num_columns, max_size=num_columns)
    return [torch.tensor(draw(st.lists(row, min_size=num_rows, max_size=num_rows))) for _ in range(count)]


@given(grids())
def test_the_divergence_from_a_teacher_is_never_negative(pair: list[torch.Tensor]) -> None:
    assert teacher_divergence(*pair).item() >= -FLOAT32


@given(grids(1))
def test_the_divergence_of_a_teacher_from_itself_is_zero(grid: list[torch.Tensor]) -> None:
    assert teacher_divergence(grid[0], grid[0]).item() == pytest.approx(0, abs=FLOAT32)


@given(grids(), LOGIT, LOGIT)
def test_the_divergence_does_not_see_a_constant_added_to_a_models_logits(pair: list[torch.Tensor], one: float, other: float) -> None:
    teacher, student = pair
    moved = teacher_divergence(teacher + one, student + other).item()
    assert moved == pytest.approx(teacher_divergence(teacher, student).item(), abs=FLOAT32, rel=FLOAT32)


def test_the_divergence_is_not_symmetric() -> None:
    # p = (.5, .5), q = (e^4, 1)/(1 + e^4) = (.982, .018): KL(p||q) = 1.32, KL(q||p) = .60
    flat, sharp = torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0, 0.0]])
    assert teacher_divergence(flat, sharp).item() == pytest.approx(1.3250, abs=1e-4)
    assert teacher_divergence(sharp, flat).item() == pytest.approx(0.6031, abs=1e-4)


def test_the_gradient_of_the_divergence_reaches_the_student_alone() -> None:
    teacher = torch.tensor([[1.0, 0.0]], requires_grad=True)
    student = torch.tensor([[0.0, 0.0]], requires_grad=True)
    teacher_divergence(teacher, student).backward()
    assert teacher.grad is None
    # d KL(p||softmax z) / dz = q - p = (.5, .5) - (.731059, .268941)
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx([-0.231059, 0.231059], abs=1e-6)


@given(grids(), st.floats(0, 10, width=32))
def test_the_forgetting_teacher_is_nowhere_above_the_original(pair: list[torch.Tensor], suppression: float) -> None:
    original, augmented = pair
    teacher = suppressed_teacher(original, augmented, suppression)
    assert bool((teacher <= original).all())
    # Where the augmented model says no more than the original, the teacher is the original.
    assert torch.equal(teacher[augmented <= original], original[augmented <= original])


@given(grids())
def test_a_suppression_of_zero_returns_the_original(pair: list[torch.Tensor]) -> None:
    assert torch.equal(suppressed_teacher(*pair, 0.0), pair[0])


@pytest.mark.parametrize("centring", ["mean", "log_softmax"])
@given(pair=grids(), constant=LOGIT)
def test_centring_makes_the_forgetting_teacher_blind_to_a_constant_of_either_model(
    centring: str, pair: list[torch.Tensor], constant: float
) -> None:
    original, augmented = pair
    plain = suppressed_teacher(centred(original, centring), centred(augmented, centring), 2.0)
    moved = suppressed_teacher(centred(original, centring), centred(augmented + constant, centring), 2.0)
    assert torch.allclose(plain, moved, atol=FLOAT32)


@pytest.mark.parametrize("centring", ["none", "mean", "log_softmax"])
@given(grid=grids(1))
def test_centring_changes_no_probability(centring: str, grid: list[torch.Tensor]) -> None:
    assert torch.allclose(centred(grid[0], centring).softmax(1), grid[0].softmax(1), atol=FLOAT32)


def test_without_centring_the_logits_stay_as_they_are_and_with_it_rows_sum_to_zero_or_to_probability_one() -> None:
    logits = torch.tensor([[3.0, 1.0, -1.0]])
    assert torch.equal(centred(logits, "none"), logits)
    # 3, 1, -1 less their mean 1
    assert centred(logits, "mean").tolist() == [[2.0, 0.0, -2.0]]
    assert centred(logits, "log_softmax").exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_an_unknown_centring_is_our_own_bug() -> None:
    with pytest.raises(AssertionError, match="median"):
        centred(torch.zeros(1, 2), "median")


@given(grids(1), st.data())
def test_narrow_with_the_remainder_keeps_the_probability_of_every_kept_column(grid: list[torch.Tensor], data: st.DataObject) -> None:
    logits = grid[0]
    width = logits.shape[1]
    columns = st.lists(st.integers(0, width - 1), min_size=1, max_size=width - 1, unique=True).map(sorted)
    count = data.draw(st.integers(1, width - 1))
    rows = [data.draw(columns.filter(lambda chosen: len(chosen) >= count))[:count] for _ in range(len(logits))]
    support = torch.tensor(rows)
    narrowed = narrow(logits, support, "logsumexp").softmax(1)
    assert torch.allclose(narrowed[:, :-1], logits.softmax(1).gather(1, support), atol=FLOAT32)
    assert torch.allclose(narrowed.sum(1), torch.ones(len(logits)), atol=FLOAT32)


def test_narrow_keeps_the_order_of_the_support_and_gathers_the_rest() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    # Kept: 4, 1. Rest: log(e^2 + e^3) = 3.313262
    assert narrow(logits, torch.tensor([[3, 0]]), "logsumexp")[0].tolist() == pytest.approx([4.0, 1.0, 3.313262], abs=1e-6)
    assert narrow(logits, torch.tensor([[3, 0]]), "none").tolist() == [[4.0, 1.0]]


def test_narrow_lets_the_gradient_through_every_column_including_the_gathered_ones() -> None:
    logits = torch.tensor([[1.0, 1.0, 1.0]], requires_grad=True)
    narrow(logits, torch.tensor([[0]]), "logsumexp").sum().backward()
    # d(z0)/dz0 = 1; d log(e^z1 + e^z2)/dz1 = 1/2
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1.0, 0.5, 0.5]]


@given(grids(1))
def test_p_yes_depends_on_the_margin_of_the_two_answers_alone(grid: list[torch.Tensor]) -> None:
    pair = grid[0][:, :2]
    yes = yes_probability(pair)
    assert bool(((yes >= 0) & (yes <= 1)).all())
    assert torch.allclose(yes + yes_probability(pair.flip(1)), torch.ones(len(pair), dtype=torch.float64), atol=1e-12)
    assert torch.allclose(yes, pair.double().softmax(1)[:, 0], atol=1e-12)


def test_a_tensor_of_the_wrong_shape_is_refused_by_the_signature() -> None:
    with pytest.raises(TypeCheckError):
        suppressed_teacher(torch.zeros(1, 2), torch.zeros(1, 3), 2.0)
    with pytest.raises(TypeCheckError):
        teacher_divergence(torch.zeros(2), torch.zeros(2))
    with pytest.raises(TypeCheckError):
        answer_nll(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
