"""The two teachers of E2URec as functions of tensors: what the forgetting teacher says, and how far a student is from a teacher.

`row` counts prompts, `support` the columns over which teachers and student are compared.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def suppressed_teacher(
    original: Float[Tensor, "row support"], augmented: Float[Tensor, "row support"], suppression: float
) -> Float[Tensor, "row support"]:
    """Take from `original` what extra training on the forgotten rows has added.

    original - suppression * relu(augmented - original), element by element.

    Args:
        original: Logits of the model that still remembers.
        augmented: Logits of the same model after further training on the forgotten rows.
        suppression: Size of the push, >= 0, no unit. 0 returns `original`. Paper: alpha.

    Returns:
        Logits, nowhere above `original`.

    Source: E2URec, equation 4.

    >>> suppressed_teacher(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-0.5, -3.0]]), 2.0)
    tensor([[-2., -2.]])
    """
    return original - suppression * torch.relu(augmented - original)


def centred(logits: Float[Tensor, "row support"], centring: str) -> Float[Tensor, "row support"]:
    """Fix the constant that logits carry at no meaning, so that two models' logits can be subtracted.

    Args:
        logits: Outputs of one model.
        centring: `none` leaves them, as the paper does; `mean` makes each row sum to 0; `log_softmax` gives log-probabilities.

    >>> centred(torch.tensor([[3.0, 1.0]]), "mean")
    tensor([[ 1., -1.]])
    """
    if centring == "mean":
        return logits - logits.mean(dim=1, keepdim=True)
    if centring == "log_softmax":
        return torch.log_softmax(logits, dim=1)
    assert centring == "none", centring
    return logits


def teacher_divergence(teacher: Float[Tensor, "row support"], student: Float[Tensor, "row support"]) -> Float[Tensor, ""]:
    """Mean Kullback-Leibler divergence KL(softmax teacher || softmax student), nats, >= 0. No gradient reaches the teacher.

    Source: E2URec, equation 5 and the second term of equation 6.

    >>> teacher_divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 2.0]])).item()
    0.0
    """
    target = torch.log_softmax(teacher.detach().float(), dim=1)
    return torch.nn.functional.kl_div(torch.log_softmax(student.float(), dim=1), target, reduction="batchmean", log_target=True)
