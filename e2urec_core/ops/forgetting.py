"""Losses and targets that push answers away from forgotten rows, as functions of tensors.

`row` counts prompts, `vocab` the tokenizer's entries, `support` the columns over which a student is compared with the original.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def answer_nlls(logits: Float[Tensor, "row support"], columns: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """Negative log-likelihood of the named column of each row, nats.

    Args:
        logits: Outputs at the answer position: of every word, or of kept words and of all others together.
        columns: In which column the answer of each row stands.

    >>> answer_nlls(torch.zeros(2, 4), torch.tensor([0, 3]))  # log 4 each
    tensor([1.3863, 1.3863])
    """
    return torch.nn.functional.cross_entropy(logits.float(), columns, reduction="none")


def saturating_ascent(nlls: Float[Tensor, " row"], threshold: Float[Tensor, " row"], sharpness: float) -> Float[Tensor, ""]:
    """Mean of (2 / sharpness) log(1 + exp(sharpness (threshold - nll))): rises where an answer is likely, and fades once it is not.

    The gradient is that of `-nll`, times 2 / (1 + exp(sharpness (nll - threshold))): 2 for an answer far likelier than its threshold
    says, 1 at the threshold, 0 far behind it.

    Args:
        nlls: Negative log-likelihoods of the forgotten answers, nats.
        threshold: Where the push has half of its greatest strength, nats: what the original gives, or a margin.
        sharpness: How quickly it fades, > 0, 1 / nats; towards 0 it becomes plain ascent. Paper: beta.

    Returns:
        A loss above 0, in nats.

    Source: NPO (Zhang et al., arXiv 2404.05868) with the original's nll as the threshold; SimNPO (Fan et al.,
    arXiv 2410.07163) with gamma / beta as the threshold and answers of one token.

    >>> saturating_ascent(torch.tensor([1.0]), torch.tensor([1.0]), 2.0)  # log 2
    tensor(0.6931)
    """
    return (2 / sharpness) * torch.nn.functional.softplus(sharpness * (threshold - nlls)).mean()


def lowered_answer(original: Float[Tensor, "row support"], columns: Int[Tensor, " row"], strength: float) -> Float[Tensor, "row support"]:
    """The original's logits with the answer's own lowered by `strength`; all other words keep their proportions.

    Args:
        original: Logits of the model that still remembers.
        columns: In which column the answer of each row stands.
        strength: How far it is lowered, >= 0, in logits.

    Returns:
        Logits, nowhere above `original`.

    Source: UNDIAL (Dong et al., arXiv 2402.10052).

    >>> lowered_answer(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), 2.5)
    tensor([[0.5000, 1.0000]])
    """
    return original.scatter_add(1, columns[:, None], original.new_full((len(columns), 1), -strength))


def negated(original: Float[Tensor, "*shape"], tuned: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """A weight as far on the other side of the original as further training took it to this one, times `scale`.

    original - scale * (tuned - original), element by element.

    Args:
        original: Weight before training on the forgotten rows.
        tuned: The same weight after it.
        scale: Length of the step back, >= 0, no unit; 0 gives the original. Paper: lambda.

    Returns:
        The negated weight.

    Source: Task arithmetic (Ilharco et al., arXiv 2212.04089).

    >>> negated(torch.tensor([1.0]), torch.tensor([1.5]), 2.0)
    tensor([0.])
    """
    return original - scale * (tuned - original)
