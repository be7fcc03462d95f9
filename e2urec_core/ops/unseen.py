"""What a recommender would say of rows that it never saw, guessed from rows that stay, without training a network.

The guess is a kernel ridge regression on words. Two prompts are alike where they share words, where their questions share words, and
most where both hold. `row` counts prompts to judge, `known` prompts whose answers are learned, `word` counted words, `support` the
columns over which teachers and student are compared: Yes and No first.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Standard deviations beyond which a rare word weighs no more.
MOST_DEVIATIONS = 8.0


def standardised(counts: Float[Tensor, "row word"], known: Float[Tensor, "known word"]) -> Float[Tensor, "row word"]:
    """Counts in standard deviations of the known rows, at most 8, divided by the root of the number of words.

    The product of two such rows is a mean over the words, whatever their number.

    Args:
        counts: How often each word stands in each row.
        known: The same for the known rows.

    Source: ours.

    >>> standardised(torch.tensor([[2.0]]), torch.tensor([[0.0], [2.0]]))  # mean 1, deviation 1
    tensor([[1.]])
    """
    deviation = known.std(dim=0, correction=0).clamp_min(1e-6)
    return ((counts - known.mean(dim=0)) / deviation).clamp(max=MOST_DEVIATIONS) / max(1, counts.shape[1]) ** 0.5


def likeness(alike: Float[Tensor, "row known"], alike_questions: Float[Tensor, "row known"]) -> Float[Tensor, "row known"]:
    """Likeness of prompts and of their questions, and of both at once: the sum of the two and of their product.

    The product is what tells taste: who asks, times what is asked about. It is a kernel where both are.

    >>> likeness(torch.tensor([[2.0]]), torch.tensor([[3.0]]))
    tensor([[11.]])
    """
    return alike + alike_questions + alike * alike_questions


def ridge_answers(
    among: Float[Tensor, "known known"], signs: Float[Tensor, " known"], across: Float[Tensor, "row known"], ridge: float
) -> Float[Tensor, " row"]:
    """Guessed answers of rows from those of known rows, about -1 for No to 1 for Yes: kernel ridge regression.

    Args:
        among: Likeness of the known rows to each other; symmetric, no eigenvalue below 0.
        signs: Answers of the known rows, 1 for Yes and -1 for No.
        across: Likeness of the rows to the known rows.
        ridge: How little single known rows are trusted, > 0, in the unit of the likeness.

    Source: Saunders, Gammerman and Vovk, 1998.

    >>> ridge_answers(torch.eye(2), torch.tensor([1.0, -1.0]), torch.eye(2), 1.0)
    tensor([ 0.5000, -0.5000])
    """
    mean = signs.mean()
    factor = torch.linalg.cholesky(among + ridge * torch.eye(len(among), dtype=among.dtype, device=among.device))
    return across @ torch.cholesky_solve((signs - mean)[:, None], factor)[:, 0] + mean


def label_slope(margins: Float[Tensor, " row"], guessed: Float[Tensor, " row"], signs: Float[Tensor, " row"]) -> Float[Tensor, ""]:
    """How far margins follow the right answers beyond what was guessed: the third weight of margin ~ 1 + guess + answer, logits.

    On rows of the training it holds skill and memory, on rows that were never trained on it holds skill alone.

    Args:
        margins: Logit of Yes less logit of No.
        guessed: Answers that were guessed without the rows.
        signs: Right answers, 1 for Yes and -1 for No.

    Source: ours.

    >>> guessed, signs = torch.tensor([0.0, 1.0, 0.0, 2.0]), torch.tensor([1.0, -1.0, -1.0, 1.0])
    >>> round(label_slope(3 * guessed + 2 * signs + 1, guessed, signs).item(), 4)
    2.0
    """
    design = torch.stack([torch.ones_like(guessed), guessed, signs], dim=1)
    # Ridged, as all answers may be the same.
    normal = design.T @ design + 1e-6 * torch.eye(3, dtype=design.dtype, device=design.device)
    return torch.linalg.solve(normal, design.T @ margins)[2]


def mean_sureness(margins: Float[Tensor, " row"], signs: Float[Tensor, " row"]) -> Float[Tensor, ""]:
    """How sure of the right answers margins are on average, logits; below 0 they lean to the wrong ones.

    Args:
        margins: Logit of Yes less logit of No.
        signs: Right answers, 1 for Yes and -1 for No.

    >>> mean_sureness(torch.tensor([3.0, 1.0]), torch.tensor([1.0, -1.0]))
    tensor(1.)
    """
    return (signs * margins).mean()


def with_margin(original: Float[Tensor, "row support"], margins: Float[Tensor, " row"]) -> Float[Tensor, "row support"]:
    """The original's logits with Yes and No moved, equally far and against each other, until they differ by `margins`.

    Args:
        original: Logits, Yes and No in the first two columns.
        margins: Wanted logit of Yes less logit of No.

    >>> with_margin(torch.tensor([[1.0, 1.0, 5.0]]), torch.tensor([4.0]))
    tensor([[ 3., -1.,  5.]])
    """
    push = (margins - (original[:, 0] - original[:, 1])) / 2
    return torch.cat([(original[:, 0] + push)[:, None], (original[:, 1] - push)[:, None], original[:, 2:]], dim=1)
