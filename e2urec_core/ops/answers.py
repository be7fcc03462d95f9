"""What a Yes/No recommender says, read off its logits at the answer position.

`row` counts prompts, `vocab` the tokenizer's entries, `answer` the two words Yes and No in this order, `support` the columns that a
teacher cache keeps.
"""

from __future__ import annotations

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
