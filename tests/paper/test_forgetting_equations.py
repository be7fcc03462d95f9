"""The formulas of the methods without an augmented model against arithmetic done by hand, with `math` alone on the expected side.

Tolerance `FLOAT32`: the code computes in 32-bit floats, whose step near 1 is 1.2e-7; a handful of operations lose a few of them.
"""

from __future__ import annotations

import math

import pytest
import torch

from e2urec_core.ops.answers import answer_nll
from e2urec_core.ops.distil import teacher_divergence
from e2urec_core.ops.forgetting import answer_nlls, lowered_answer, negated, saturating_ascent

FLOAT32 = 2e-6


def test_the_likelihood_of_each_answer_is_taken_among_all_columns() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.5]])
    # log(1 + e^-1 + e^-2) = 0.407606 and log(1 + 2 e^-1.5) = 0.368981
    expected = [math.log(1 + math.exp(-1) + math.exp(-2)), math.log(1 + 2 * math.exp(-1.5))]
    nlls = answer_nlls(logits, torch.tensor([0, 1]))
    assert nlls.tolist() == pytest.approx(expected, abs=FLOAT32)
    assert nlls.mean().item() == pytest.approx(answer_nll(logits, torch.tensor([0, 1])).item(), abs=FLOAT32)


def test_npo_is_the_log_of_one_plus_the_likelihoods_ratio_to_the_power_of_beta() -> None:
    # As the paper writes it, (2 / beta) log(1 + (pi / pi_ref)^beta), with beta = 0.5:
    #   row 1: pi = 0.8, pi_ref = 0.2: ratio 4, its root 2:    4 log 3     = 4.394449
    #   row 2: pi = 0.1, pi_ref = 0.4: ratio 1/4, its root .5: 4 log 1.5   = 1.621860
    nlls, original = (torch.tensor([-math.log(one) for one in pair]) for pair in ((0.8, 0.1), (0.2, 0.4)))
    assert saturating_ascent(nlls, original, 0.5).item() == pytest.approx((4 * math.log(3) + 4 * math.log(1.5)) / 2, abs=FLOAT32)


def test_simnpo_is_minus_the_log_of_a_sigmoid_of_the_likelihood_and_the_margin() -> None:
    # As the paper writes it, -(2 / beta) log sigmoid(-beta log pi - gamma), with beta = 2, gamma = 1, pi = 0.5:
    #   -2 log .5 - 1 = .386294; sigmoid = 1 / (1 + e^-.386294) = .595390; -log of it = .518538
    beta, gamma, probability = 2.0, 1.0, 0.5
    expected = -(2 / beta) * math.log(1 / (1 + math.exp(beta * math.log(probability) + gamma)))
    assert expected == pytest.approx(0.518538, abs=1e-6)
    nlls = torch.tensor([-math.log(probability)])
    assert saturating_ascent(nlls, torch.tensor([gamma / beta]), beta).item() == pytest.approx(expected, abs=FLOAT32)


@pytest.mark.parametrize(
    ("nll", "sharpness", "slope"),
    # -2 sigmoid(sharpness (1 - nll)): at the threshold that of plain ascent, behind it less, and plain ascent everywhere as it goes to 0.
    [(1.0, 2.0, -1.0), (1.0, 50.0, -1.0), (2.0, 2.0, -2 / (1 + math.exp(2))), (0.0, 2.0, -2 / (1 + math.exp(-2))), (9.0, 1e-6, -1.0)],
)
def test_the_push_has_the_slope_of_plain_ascent_at_its_threshold_and_fades_behind_it(nll: float, sharpness: float, slope: float) -> None:
    nlls = torch.tensor([nll], requires_grad=True)
    saturating_ascent(nlls, torch.ones(1), sharpness).backward()
    assert nlls.grad is not None
    assert nlls.grad.item() == pytest.approx(slope, abs=4 * FLOAT32)


def test_a_push_far_behind_its_threshold_is_no_overflow() -> None:
    far = saturating_ascent(torch.tensor([1000.0, 0.0]), torch.tensor([0.0, 1000.0]), 100.0)
    # 0 for the first row; (2 / 100) * 100 * 1000 = 2000 for the second.
    assert far.item() == pytest.approx(1000.0, abs=1e-3)


def test_undial_lowers_the_right_answer_alone_and_what_it_loses_goes_to_the_others_in_their_proportions() -> None:
    # Columns (Yes, No, other), p = (e, 1, 1) / (e + 2); Yes lowered by 1: (1, 1, 1) / 3. The second row's answer is No, lowered to -1.
    target = lowered_answer(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([0, 1]), 1.0)
    assert target.tolist() == [[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]]
    # A student that is still the original is KL(1/3 each || p) = -log 3 - (1 + 0 + 0) / 3 + log(e + 2) = 0.119499 away in the first row.
    expected = -math.log(3) - 1 / 3 + math.log(math.e + 2)
    assert expected == pytest.approx(0.119499, abs=1e-6)
    assert teacher_divergence(target[:1], torch.tensor([[1.0, 0.0, 0.0]])).item() == pytest.approx(expected, abs=FLOAT32)


def test_a_negated_weight_lies_as_far_behind_the_original_as_training_took_it_ahead_times_the_scale() -> None:
    original, tuned = torch.tensor([[1.0, -2.0]]), torch.tensor([[1.5, -4.0]])
    # 1 - 2 (1.5 - 1) = 0 and -2 - 2 (-4 + 2) = 2
    assert negated(original, tuned, 2.0).tolist() == [[0.0, 2.0]]
    assert torch.equal(negated(original, tuned, 0.0), original)
