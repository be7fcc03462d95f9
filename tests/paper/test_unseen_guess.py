"""The calibrated method's formulas against arithmetic by hand and against other ways to the same number."""

from __future__ import annotations

import pytest
import torch

from e2urec_core.ops.unseen import label_slope, likeness, ridge_answers, standardised, with_margin

CLOSE = 1e-5
"""A few roundings of 32 bits."""


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kernel_ridge_is_linear_ridge_where_the_likeness_is_a_product() -> None:
    known, asked, signs = drawn(12, 3), drawn(5, 3, seed=1), drawn(12, seed=2).sign()
    weights = torch.linalg.solve(known.T @ known + 2.0 * torch.eye(3), known.T @ (signs - signs.mean()))
    expected = asked @ weights + signs.mean()
    assert torch.allclose(ridge_answers(known @ known.T, signs, asked @ known.T, 2.0), expected, atol=1e-4)


def test_a_large_ridge_guesses_the_mean_answer() -> None:
    signs = torch.tensor([1.0, 1.0, -1.0])
    assert torch.allclose(ridge_answers(torch.eye(3), signs, torch.eye(3), 1e6), torch.full((3,), 1 / 3), atol=CLOSE)


def test_likeness_of_rows_to_themselves_has_no_eigenvalue_below_zero() -> None:
    one, other = drawn(8, 3), drawn(8, 2, seed=1)
    assert torch.linalg.eigvalsh(likeness(one @ one.T, other @ other.T)).min() > -1e-4


def test_standardised_counts_of_the_known_rows_have_mean_zero_and_a_mean_square_of_one() -> None:
    counts = drawn(20, 4).abs()
    made = standardised(counts, counts)
    assert torch.allclose(made.mean(dim=0), torch.zeros(4), atol=CLOSE)
    # Each of four words has variance 1 and is divided by the root of 4.
    assert made.square().sum(dim=1).mean().item() == pytest.approx(1.0, abs=CLOSE)


def test_a_word_that_no_known_row_has_weighs_at_most_eight_deviations() -> None:
    assert standardised(torch.tensor([[5.0]]), torch.zeros(3, 1)).item() == 8.0


def test_the_label_slope_grows_by_what_is_remembered_of_every_answer() -> None:
    guessed, signs = drawn(40).double(), drawn(40, seed=1).double().sign()
    skill = 0.7 * guessed + 0.2 * drawn(40, seed=2).double()
    grown = label_slope(skill + 1.5 * signs, guessed, signs) - label_slope(skill, guessed, signs)
    assert grown.item() == pytest.approx(1.5, abs=CLOSE)


def test_the_label_slope_is_finite_where_all_answers_are_the_same() -> None:
    assert torch.isfinite(label_slope(drawn(6), drawn(6, seed=1), torch.ones(6)))


def test_only_yes_and_no_are_moved_and_their_mean_stays() -> None:
    original, margins = drawn(6, 5), drawn(6, seed=1)
    moved = with_margin(original, margins)
    assert torch.allclose(moved[:, 0] - moved[:, 1], margins, atol=CLOSE)
    assert torch.allclose(moved[:, :2].mean(dim=1), original[:, :2].mean(dim=1), atol=CLOSE)
    assert torch.equal(moved[:, 2:], original[:, 2:])
