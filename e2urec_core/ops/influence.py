"""What rows have done to a network's weights, to first order: curvature of the loss, and a linear system solved with products alone.

`row` counts prompts, `vocab` the tokenizer's entries, `weight` all weights that may change, one after another, `slice` the rows of
their tensors. No matrix over the weights is ever made: a `Product` multiplies with it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class Product(Protocol):
    """Multiplies a symmetric matrix over the weights with a direction."""

    def __call__(self, direction: Tensor) -> Tensor:
        """The matrix times `direction`, (weight,)."""


@runtime_checkable
class Told(Protocol):
    """Told of every iteration."""

    def __call__(self, iteration: int, value: float) -> None:
        """Iteration, counted from 1, and what it found."""


class Solved(NamedTuple):
    """A linear system's solution.

    Args:
        solution: (weight,).
        residuals: What was left of the right side after each iteration, as a share of its length.
    """

    solution: Tensor
    residuals: tuple[float, ...]


def softmax_curvature(logits: Float[Tensor, "row vocab"], moved: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
    """Second derivative of each row's negative log-likelihood by its logits, times `moved`.

    It is diag(p) - p p' for the probabilities p, whatever the right answer.

    >>> softmax_curvature(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # 1/2 - 1/4, and 0 - 1/4
    tensor([[ 0.2500, -0.2500]])
    """
    shares = torch.softmax(logits, dim=1)
    return shares * (moved - (shares * moved).sum(dim=1, keepdim=True))


def gauss_newton_product(logits: Float[Tensor, "row vocab"], weights: list[Tensor], direction: list[Tensor]) -> list[Tensor]:
    """Gauss-Newton matrix of the rows' summed negative log-likelihood, times `direction`.

    The matrix is J' C J: J the derivative of the logits by the weights, C `softmax_curvature`. It has no negative eigenvalue. J times
    the direction is taken as the derivative of u -> (J'u) . direction, which is linear in u, so that ordinary backward passes do.

    Args:
        logits: With the graph that leads to `weights`.
        weights: Tensors that may change.
        direction: One tensor for each of them, in its shape.

    Source: Schraudolph, Fast curvature matrix-vector products for second-order gradient descent (2002).

    >>> weight = torch.tensor([2.0], requires_grad=True)
    >>> gauss_newton_product(torch.stack([0 * weight, 0 * weight], dim=1) + weight * torch.tensor([1.0, 0.0]), [weight], [torch.ones(1)])
    [tensor([0.1050])]
    """
    probe = torch.zeros_like(logits, requires_grad=True)
    pulled = torch.autograd.grad(logits, weights, probe, create_graph=True, materialize_grads=True)
    along = torch.stack([(one * other).sum() for one, other in zip(pulled, direction, strict=True)]).sum()
    (moved,) = torch.autograd.grad(along, probe, retain_graph=True)
    return list(torch.autograd.grad(logits, weights, softmax_curvature(logits.detach(), moved), materialize_grads=True))


def largest_eigenvalue(product: Product, start: Float[Tensor, " weight"], iterations: int, told: Told) -> float:
    """Largest eigenvalue of a matrix without negative ones, from below, by the power method.

    Args:
        product: Multiplies with the matrix.
        start: Any direction that no eigenvector is orthogonal to, such as a drawn one.
        iterations: Products to take.
        told: Told of the estimate after each.

    >>> round(largest_eigenvalue(lambda v: torch.tensor([3.0, 1.0]) * v, torch.ones(2), 20, lambda *_: None), 4)
    3.0
    """
    direction, value = start / start.norm(), 0.0
    for iteration in range(1, iterations + 1):
        moved = product(direction)
        value = _dot(direction, moved)
        direction = moved / moved.norm()
        told(iteration, value)
    return value


def conjugate_gradient(product: Product, wanted: Float[Tensor, " weight"], max_iterations: int, tolerance: float, told: Told) -> Solved:
    """Solve matrix . x = `wanted` for a positive definite matrix, from x = 0.

    Args:
        product: Multiplies with the matrix.
        wanted: The right side, not all zero.
        max_iterations: Products at most.
        tolerance: Residual, as a share of the right side's length, at which it is solved.
        told: Told of the residual after each iteration.

    Source: Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems (1952).

    >>> conjugate_gradient(lambda v: torch.tensor([2.0, 4.0]) * v, torch.tensor([2.0, 8.0]), 5, 1e-6, lambda *_: None).solution
    tensor([1., 2.])
    """
    solution, left = torch.zeros_like(wanted), wanted.clone()
    direction, whole = wanted.clone(), _dot(wanted, wanted)
    size, residuals = whole, [1.0]
    # A residual that is no number ends it too.
    while residuals[-1] > tolerance and len(residuals) <= max_iterations:
        moved = product(direction)
        step = size / _dot(direction, moved)
        solution, left = solution + step * direction, left - step * moved
        before, size = size, _dot(left, left)
        direction = left + size / before * direction
        residuals.append((size / whole) ** 0.5)
        told(len(residuals) - 1, residuals[-1])
    return Solved(solution, tuple(residuals[1:]))


def slice_importance(gradient: Tensor) -> Float[Tensor, " slice"]:
    """Mean square of a gradient over each row of its tensor: of an embedding a word, of a layer an output, of a vector an entry.

    >>> slice_importance(torch.tensor([[1.0, 1.0], [0.0, 2.0]]))
    tensor([1., 2.])
    """
    return gradient.reshape(len(gradient), -1).square().mean(dim=1)


def most_important(importance: Float[Tensor, " slice"], keep_share: float) -> Bool[Tensor, " slice"]:
    """True for the most important slices; of equal ones the first.

    Args:
        importance: At least one.
        keep_share: Share that is kept, above 0, at most 1; at least one slice is.

    >>> most_important(torch.tensor([1.0, 3.0, 2.0]), 0.67)
    tensor([False,  True,  True])
    """
    kept = torch.zeros_like(importance, dtype=torch.bool)
    order = importance.argsort(descending=True, stable=True)
    kept[order[: max(1, round(keep_share * len(importance)))]] = True
    return kept


def _dot(one: Tensor, other: Tensor) -> float:
    return torch.dot(one.double(), other.double()).item()
