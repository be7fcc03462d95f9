"""How users are put into shards, and how what the shards' networks say is put together.

`user` counts users, `row` prompts, `prompt` prompts that are kept for comparison, `shard` shards, `width` the entries of a hidden state,
`rank` those of an adapter, `out` the outputs of an adapted layer, `vocab` the tokenizer's entries.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def nearest_with_room(distances: Float[Tensor, "user shard"], capacity: int) -> Int[Tensor, " user"]:
    """A shard for every user: all pairs of user and shard are gone through from the nearest on, and a pair is made while there is room.

    Args:
        distances: From each user to each shard, any unit.
        capacity: Most users of a shard; times the shards, at least the users.

    Source: RecEraser (Chen et al., arXiv 2201.06820), balanced partition. Not pair by pair: until the next shard is full, every user
    goes to the nearest one that has room, which is the same.

    >>> nearest_with_room(torch.tensor([[0.1, 0.9], [0.2, 0.9], [0.3, 0.4]]), 2)
    tensor([0, 0, 1])
    """
    num_users, num_shards = distances.shape
    assert capacity * num_shards >= num_users, f"{num_shards} shards of {capacity} do not hold {num_users} users"
    chosen = torch.full((num_users,), -1, dtype=torch.int64, device=distances.device)
    left, room = distances.clone(), torch.full((num_shards,), capacity, device=distances.device)
    while bool((chosen < 0).any()):
        waiting = torch.nonzero(chosen < 0).flatten()
        # Sorted, because of equal numbers the smallest shard is to be taken.
        nearest, shards = (each[:, 0] for each in left[waiting].sort(dim=1, stable=True))
        order = nearest.argsort(stable=True)
        users, shards = waiting[order], shards[order]
        arrived = torch.nn.functional.one_hot(shards, num_shards).cumsum(dim=0)
        full = torch.nonzero((arrived >= room).any(dim=1)).flatten()
        stop = int(full[0]) + 1 if len(full) else len(users)
        chosen[users[:stop]] = shards[:stop]
        room = room - arrived[stop - 1]
        left[:, room == 0] = torch.inf
    return chosen


def centres(points: Float[Tensor, "user width"], shards: Int[Tensor, " user"], before: Float[Tensor, "shard width"]) -> Tensor:
    """Mean of each shard's points, dimension by dimension, (shard, width); a shard without a user keeps its centre.

    >>> centres(torch.tensor([[0.0, 2.0], [4.0, 2.0]]), torch.tensor([0, 0]), torch.ones(2, 2))
    tensor([[2., 2.],
            [1., 1.]])
    """
    counts = torch.bincount(shards, minlength=len(before)).to(points)[:, None]
    sums = torch.zeros_like(before).index_add(0, shards, points)
    return torch.where(counts > 0, sums / counts.clamp(min=1), before)


def balanced_clusters(
    points: Float[Tensor, "user width"], first: Float[Tensor, "shard width"], capacity: int, num_iterations: int
) -> Int[Tensor, " user"]:
    """Balanced k-means: the shard of every user, none with more than `capacity` of them.

    Args:
        points: A point for each user.
        first: Centres to begin with.
        capacity: Most users of a shard.
        num_iterations: Most rounds; it ends before when no user changes the shard.

    >>> balanced_clusters(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[0.0], [1.0]]), 2, 10)
    tensor([0, 0, 1])
    """
    middle, shards = first, torch.full((len(points),), -1, device=points.device)
    for _ in range(num_iterations):
        moved = nearest_with_room(torch.cdist(points, middle), capacity)
        if torch.equal(moved, shards):
            break
        shards, middle = moved, centres(points, moved, middle)
    return shards


def mean_probability(logits: Float[Tensor, "shard row vocab"]) -> Float[Tensor, "row vocab"]:
    """Log of the mean of the shards' probabilities among all words.

    >>> mean_probability(torch.tensor([[[0.0, 0.0]], [[9.0, -9.0]]])).exp()  # halves of 0.5 and 1, and of 0.5 and 0
    tensor([[0.7500, 0.2500]])
    """
    return logits.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))


def weighted(logits: Float[Tensor, "shard row *vocab"], weights: Float[Tensor, "row shard"]) -> Float[Tensor, row * vocab]:
    """Sum of the shards' logits, each row's weighted by its own weights."""
    return torch.einsum("kn...,nk->n...", logits, weights.to(logits))


def gate_weights(
    states: Float[Tensor, "row shard width"], directions: Float[Tensor, "shard width"], offsets: Float[Tensor, " shard"]
) -> Float[Tensor, "row shard"]:
    """Attention over the shards: softmax of how far each shard's own hidden state reaches in its direction. Rows sum to 1.

    >>> gate_weights(torch.ones(1, 2, 3), torch.zeros(2, 3), torch.zeros(2))
    tensor([[0.5000, 0.5000]])
    """
    return (torch.einsum("nkw,kw->nk", states, directions) + offsets).softmax(dim=1)


def neighbours_errors(
    states: Float[Tensor, "row width"], known: Float[Tensor, "prompt width"], errors: Float[Tensor, "prompt shard"], num_neighbours: int
) -> Float[Tensor, "row shard"]:
    """Mean error of each shard on the prompts that are nearest to a row by cosine.

    Args:
        states: What the untrained network makes of the rows.
        known: The same of the prompts whose answers are known.
        errors: Of each shard on each of these prompts, any unit.
        num_neighbours: Prompts that are looked at; all where there are fewer.

    Source: APA (arXiv 2404.10327), sample-adaptive attention.

    >>> neighbours_errors(torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([[0.1, 0.4], [0.9, 0.0]]), 1)
    tensor([[0.1000, 0.4000]])
    """
    cosines = torch.nn.functional.normalize(states.float(), dim=1) @ torch.nn.functional.normalize(known, dim=1).T
    nearest = cosines.topk(min(num_neighbours, len(known)), dim=1).indices
    return errors[nearest].mean(dim=1)


def sample_weights(errors: Float[Tensor, "row shard"], temperature: float) -> Float[Tensor, "row shard"]:
    """Weight of each shard, the larger the smaller its error: softmax(-temperature * error). At 0 all weigh the same.

    >>> sample_weights(torch.tensor([[0.2, 0.3]]), 0.0)
    tensor([[0.5000, 0.5000]])
    """
    return (-temperature * errors).softmax(dim=1)


def stacked_adapters(
    inputs: Float[Tensor, "row token width"],
    down: Float[Tensor, "shard rank width"],
    up: Float[Tensor, "shard out rank"],
    weights: Float[Tensor, "row shard"],
    aggregation: str,
) -> Float[Tensor, "row token out"]:
    """What the shards' adapters together add to a layer's outputs, every row with weights of its own; nothing is merged.

    Args:
        inputs: Of the layer.
        down: First factors A of the adapters.
        up: Second factors B.
        weights: Of each row.
        aggregation: `nondecomposed` adds up the products, sum of w B A; `decomposed` multiplies the sums, (sum of w B)(sum of w A).

    Source: APA (arXiv 2404.10327), its two ways to aggregate parameters; the stacking is ours.

    >>> stacked_adapters(torch.ones(1, 1, 1), torch.ones(2, 1, 1), torch.ones(2, 1, 1), torch.tensor([[0.5, 0.5]]), "nondecomposed")
    tensor([[[1.]]])
    """
    scale = weights[:, None, :, None]
    low = torch.einsum("ntw,krw->ntkr", inputs, down) * scale
    if aggregation == "decomposed":
        low = low.sum(dim=2, keepdim=True) * scale
    return torch.einsum("ntkr,kor->nto", low, up)
