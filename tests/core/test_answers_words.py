"""Logits of some words without those of all: the same numbers and gradients, block by block, and never a matrix of (row, vocab).

Tolerances: logits lie within some +-10, where a 32-bit float steps by 1e-6; `FLOAT32` allows some ten such steps. Gradients are sums over
the vocabulary of values below 3; `GRADIENT` allows the same.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from e2urec_core.ops import answers
from e2urec_core.ops.answers import narrow, some_words

FLOAT32 = 1e-5
GRADIENT = 1e-5
WIDTH = 5


def invented(num_rows: int, vocabulary: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States that want a gradient, words and a bias."""
    random = torch.Generator().manual_seed(seed)
    states = torch.randn(num_rows, WIDTH, generator=random).requires_grad_()
    return states, torch.randn(vocabulary, WIDTH, generator=random), torch.randn(vocabulary, generator=random)


def both_ways(
    states: torch.Tensor, words: torch.Tensor, bias: torch.Tensor | None, support: torch.Tensor, remainder: str
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Outputs and gradient of the states, first by `narrow` of all logits, then by `some_words`."""
    everything = states @ words.T if bias is None else states @ words.T + bias
    told = []
    for outputs in (narrow(everything, support, remainder), some_words(states, words, bias, support, remainder)):
        # Every column counts differently, so that none can stand for another.
        weighed = (outputs * torch.arange(1, outputs.numel() + 1).reshape(outputs.shape)).sum() / outputs.numel()
        (gradient,) = torch.autograd.grad(weighed, states, retain_graph=True)
        told.append((outputs.detach(), gradient))
    return told


def assert_same(told: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    (expected, expected_gradient), (found, gradient) = told
    assert torch.allclose(found, expected, rtol=0, atol=FLOAT32)
    assert torch.allclose(gradient, expected_gradient, rtol=0, atol=GRADIENT)


@pytest.mark.parametrize("block", [1, 3, 7, 16, 100])
@pytest.mark.parametrize("with_bias", ["bias", "no bias"])
@pytest.mark.parametrize("remainder", ["none", "logsumexp"])
def test_some_words_are_what_narrow_keeps_of_all_logits_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, block: int, with_bias: str, remainder: str
) -> None:
    monkeypatch.setattr(answers._OthersWeigh, "WORDS_IN_A_BLOCK", block)
    states, words, bias = invented(4, 16)
    # The first block of three is kept in whole by row 0, the last word by row 1, and row 3 names words out of order.
    support = torch.tensor([[0, 1, 2], [15, 4, 9], [5, 6, 7], [12, 3, 8]])
    assert_same(both_ways(states, words, bias if with_bias == "bias" else None, support, remainder))


@given(st.integers(1, 4), st.integers(2, 12), st.integers(1, 14), st.data())
def test_some_words_agree_with_narrow_whatever_is_kept(num_rows: int, vocabulary: int, block: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, vocabulary - 1))
    rows = [data.draw(st.permutations(range(vocabulary)))[:count] for _ in range(num_rows)]
    states, words, bias = invented(num_rows, vocabulary, seed=data.draw(st.integers(0, 5)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers._OthersWeigh, "WORDS_IN_A_BLOCK", block)
        assert_same(both_ways(states, words, bias, torch.tensor(rows), "logsumexp"))


@pytest.mark.parametrize("kept", ["first blocks", "middle blocks", "last blocks"])
def test_blocks_that_are_kept_in_whole_weigh_nothing(monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    monkeypatch.setattr(answers._OthersWeigh, "WORDS_IN_A_BLOCK", 2)
    first = {"first blocks": 0, "middle blocks": 2, "last blocks": 4}[kept]
    states, words, bias = invented(3, 8)
    support = torch.arange(first, first + 4).expand(3, 4)
    told = both_ways(states, words, bias, support, "logsumexp")
    assert bool(torch.isfinite(told[1][0]).all())
    assert_same(told)


def test_the_others_weigh_the_log_of_their_summed_exponentials() -> None:
    # Logits 0, log 2, log 3 and log 4; the first is kept, so the others weigh log(2 + 3 + 4) = log 9.
    words = torch.tensor([[0.0], [math.log(2)], [math.log(3)], [math.log(4)]])
    states = torch.ones(1, 1, requires_grad=True)
    outputs = some_words(states, words, None, torch.tensor([[0]]), "logsumexp")
    assert outputs[0].tolist() == pytest.approx([0.0, math.log(9)], abs=FLOAT32)
    # d log(2^s + 3^s + 4^s) / ds at s = 1: (2 log 2 + 3 log 3 + 4 log 4) / 9
    (gradient,) = torch.autograd.grad(outputs[0, 1], states)
    assert gradient.item() == pytest.approx((2 * math.log(2) + 3 * math.log(3) + 4 * math.log(4)) / 9, abs=GRADIENT)


@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_logits_far_from_zero_neither_overflow_nor_vanish(size: float) -> None:
    words = torch.tensor([[0.0], [size], [size], [size]])
    outputs = some_words(torch.ones(1, 1), words, None, torch.tensor([[1]]), "logsumexp")
    # Others: one 0 and two of `size`: size + log 2 where that is above, else 0.
    assert outputs[0].tolist() == pytest.approx([size, max(size + math.log(2), 0.0)], abs=2e-3)


class Shapes(TorchDispatchMode):
    """Notes the shape of every tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        for each in given if isinstance(given, tuple | list) else [given]:
            if isinstance(each, torch.Tensor):
                self.seen.add(tuple(each.shape))
        return given


def test_no_tensor_of_row_and_vocabulary_is_made_forwards_or_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers._OthersWeigh, "WORDS_IN_A_BLOCK", 7)
    num_rows, vocabulary = 6, 50
    states, words, bias = invented(num_rows, vocabulary)
    support = torch.tensor([[3, 20, 49]] * num_rows)
    with Shapes() as all_words:
        narrow(states @ words.T + bias, support, "logsumexp").sum().backward()
    with Shapes() as some:
        some_words(states, words, bias, support, "logsumexp").sum().backward()
    assert (num_rows, vocabulary) in all_words.seen, "the watch must see what is forbidden"
    assert (num_rows, 7) in some.seen, "the watch must see inside the blocks"
    largest = max(math.prod(shape) for shape in some.seen if shape and shape[0] == num_rows)
    # Kept words' embeddings are (row, kept, width): 6 * 3 * 5 = 90 is the largest, far below 6 * 50.
    assert largest == 90


def test_words_that_are_trained_are_refused_while_gradients_are_taken() -> None:
    states, words, _ = invented(2, 6)
    words.requires_grad_()
    with pytest.raises(AssertionError, match="take all logits"):
        some_words(states, words, None, torch.tensor([[1], [2]]), "logsumexp")
    with torch.no_grad():
        assert some_words(states, words, None, torch.tensor([[1], [2]]), "logsumexp").shape == (2, 2)
