"""What a Yes/No recommender says, read off its logits at the answer position.

`row` counts prompts, `vocab` the tokenizer's entries, `answer` the two words Yes and No in this order, `support` the columns that a
teacher cache keeps.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def answer_nll(logits: Float[Tensor, "row vocab"], answer_ids: Int[Tensor, " row"]) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the right answer word among all words, nats.

    Args:
        logits: Outputs at the answer position.
        answer_ids: Token id of the right answer of each row.

    Source: E2URec, equation 1, for answers of one token.

    >>> answer_nll(torch.zeros(1, 4), torch.tensor([2])).item()  # log 4
    1.3862943649291992
    """
    return torch.nn.functional.cross_entropy(logits.float(), answer_ids)


def yes_probability(logits: Float[Tensor, "row answer"]) -> Float[Tensor, " row"]:
    """Probability of Yes against No, 0 to 1, from the logits of Yes and No (in this order).

    >>> yes_probability(torch.tensor([[0.0, 0.0]]))
    tensor([0.5000], dtype=torch.float64)
    """
    return torch.sigmoid(logits[:, 0].double() - logits[:, 1].double())


def narrow(logits: Float[Tensor, "row vocab"], support: Int[Tensor, "row kept"], remainder: str) -> Float[Tensor, "row support"]:
    """Keep the named columns of `logits`, and, where asked, what all others weigh together.

    Args:
        logits: Outputs at the answer position.
        support: Ids of the columns to keep, a row each.
        remainder: `none` drops the other columns; `logsumexp` appends one column, the log of their summed exponentials, so that
            probabilities over the kept columns stay what they were among all words.

    Returns:
        The kept columns in the order of `support`, in 32-bit floats.

    >>> narrow(torch.zeros(1, 4), torch.tensor([[1]]), "logsumexp")  # log 3 for the other three
    tensor([[0.0000, 1.0986]])
    """
    logits = logits.float()
    kept = logits.gather(1, support)
    if remainder == "none":
        return kept
    others = logits.scatter(1, support, float("-inf"))
    return torch.cat([kept, others.logsumexp(dim=1, keepdim=True)], dim=1)


def some_words(
    states: Float[Tensor, "row width"],
    words: Float[Tensor, "vocab width"],
    bias: Float[Tensor, " vocab"] | None,
    support: Int[Tensor, "row kept"],
    remainder: str,
) -> Float[Tensor, "row support"]:
    """What `narrow` gives of the logits `states @ words.T + bias`, without a matrix of (row, vocab).

    Args:
        states: What the decoder gives at the answer position.
        words: Output embeddings; no gradient reaches them.
        bias: Of the logits, or None.
        support: Ids of the columns to keep, a row each, each id once.
        remainder: `none` or `logsumexp`; see `narrow`.

    >>> some_words(torch.zeros(1, 2), torch.zeros(4, 2), None, torch.tensor([[1]]), "logsumexp")  # log 3 for the other three
    tensor([[0.0000, 1.0986]])
    """
    assert not words.requires_grad or not torch.is_grad_enabled(), "words are trained: take all logits"
    kept = torch.einsum("rw,rkw->rk", states, words[support])
    if bias is not None:
        kept = kept + bias[support]
    if remainder == "none":
        return kept
    others: Tensor = _OthersWeigh.apply(states, words, bias, support)
    return torch.cat([kept, others], dim=1)


class _OthersWeigh(torch.autograd.Function):
    """Log of the summed exponentials of the words that are not in the support, block by block of the vocabulary.

    The sum is kept as its largest logit and what remains after it is taken out (Milakov and Gimelshein, 2018). The gradient, the mean
    of those words' embeddings under their softmax, falls out of the same blocks, so that nothing is run twice.
    """

    WORDS_IN_A_BLOCK = 4096

    @staticmethod
    def forward(context: Any, states: Tensor, words: Tensor, bias: Tensor | None, support: Tensor) -> Tensor:
        largest = states.new_full((len(states), 1), float("-inf"))
        summed, weighed = states.new_zeros(len(states), 1), torch.zeros_like(states)
        for first in range(0, len(words), _OthersWeigh.WORDS_IN_A_BLOCK):
            block = words[first : first + _OthersWeigh.WORDS_IN_A_BLOCK]
            logits = states @ block.T
            if bias is not None:
                logits = logits + bias[first : first + len(block)]
            rows, columns = torch.nonzero((support >= first) & (support < first + len(block)), as_tuple=True)
            logits[rows, support[rows, columns] - first] = float("-inf")
            higher = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
            # A block of kept words alone weighs nothing yet.
            shrunk = torch.where(higher.isinf(), torch.ones_like(higher), torch.exp(largest - higher))
            weights = torch.exp(logits - torch.where(higher.isinf(), torch.zeros_like(higher), higher))
            summed = summed * shrunk + weights.sum(dim=1, keepdim=True)
            weighed = weighed * shrunk + weights @ block
            largest = higher
        context.save_for_backward(weighed / summed)
        return largest + torch.log(summed)

    @staticmethod
    def backward(context: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        (mean,) = context.saved_tensors
        return given * mean, None, None, None
