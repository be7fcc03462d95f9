"""How users are spread over shards and how shards' answers meet, in small numbers."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from e2urec_core.ops.shards import (
    balanced_clusters,
    centres,
    gate_weights,
    mean_probability,
    nearest_with_room,
    neighbours_errors,
    sample_weights,
    stacked_adapters,
    weighted,
)


def pair_by_pair(distances: torch.Tensor, capacity: int) -> list[int]:
    """The same choice as the papers write it: every pair of user and shard, the nearest first."""
    users, shards = distances.shape
    pairs = sorted((distances[user, shard].item(), user, shard) for user in range(users) for shard in range(shards))
    chosen, room = [-1] * users, [capacity] * shards
    for _, user, shard in pairs:
        if chosen[user] < 0 and room[shard]:
            chosen[user], room[shard] = shard, room[shard] - 1
    return chosen


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 4), st.integers(0, 10_000), st.booleans())
def test_users_go_where_a_walk_through_all_pairs_puts_them(users: int, shards: int, spare: int, seed: int, ties: bool) -> None:
    random = numpy.random.default_rng(seed)
    # With so few different distances, most pairs are as near as another.
    drawn = random.integers(0, 4, (users, shards)).astype(float) if ties else random.random((users, shards))
    capacity = -(-users // shards) + spare
    assert nearest_with_room(torch.from_numpy(drawn), capacity).tolist() == pair_by_pair(torch.from_numpy(drawn), capacity)


def test_shards_without_room_for_everybody_are_refused() -> None:
    with pytest.raises(AssertionError, match="2 shards of 1 do not hold 3 users"):
        nearest_with_room(torch.zeros(3, 2), 1)


def test_a_centre_is_a_mean_in_every_dimension() -> None:
    # RecEraser's public code takes one number for all: 3 here.
    points = torch.tensor([[0.0, 4.0], [2.0, 6.0], [9.0, 9.0]])
    assert centres(points, torch.tensor([0, 0, 1]), torch.zeros(2, 2)).tolist() == [[1.0, 5.0], [9.0, 9.0]]


def test_clusters_are_found_and_none_is_too_large() -> None:
    random = torch.Generator().manual_seed(1)
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = torch.cat([middle + torch.randn(20, 2, generator=random) for middle in middles])
    # Begun with two centres in one cluster.
    found = balanced_clusters(points, points[torch.tensor([0, 1, 25])], 24, 50)
    assert [len(set(found[start : start + 20].tolist())) for start in (0, 20, 40)] == [1, 1, 1]
    tight = balanced_clusters(torch.zeros(10, 2), torch.zeros(3, 2), 4, 50)
    assert sorted(torch.bincount(tight).tolist()) == [2, 4, 4]


def test_clustering_ends_when_nobody_moves_or_after_its_rounds() -> None:
    points, first = torch.tensor([[0.0], [1.0], [5.0], [6.0]]), torch.tensor([[0.0], [1.0]])
    one, settled = balanced_clusters(points, first, 3, 1), balanced_clusters(points, first, 3, 50)
    # At first 1, 5 and 6 are nearer to the centre at 1; then it moves to 4, and 1 changes.
    assert (one.tolist(), settled.tolist()) == ([0, 1, 1, 1], [0, 0, 1, 1])


def test_the_mean_of_probabilities_is_not_that_of_logits() -> None:
    logits = torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 0.0, 8.0]]])
    expected = logits.softmax(dim=2).mean(dim=0)
    assert torch.allclose(mean_probability(logits).exp(), expected)
    assert not torch.allclose(logits.mean(dim=0).softmax(dim=1), expected, atol=0.1)


def test_weights_are_each_rows_own() -> None:
    logits = torch.tensor([[[1.0], [1.0]], [[5.0], [5.0]]])
    # Row 0 hears shard 0 alone, row 1 a quarter of it: 0.25 * 1 + 0.75 * 5 = 4.
    assert weighted(logits, torch.tensor([[1.0, 0.0], [0.25, 0.75]])).tolist() == [[1.0], [4.0]]


def test_a_gate_listens_to_the_shard_whose_state_reaches_furthest() -> None:
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    # Scores 3 and 0 + log 2: weights e^3 and 2 over their sum.
    weights = gate_weights(states, torch.tensor([[3.0, 0.0], [3.0, 0.0]]), torch.tensor([0.0, 2.0]).log1p() * torch.tensor([0.0, 0.63093]))
    assert weights.tolist()[0] == pytest.approx([0.9094, 0.0906], abs=1e-3)
    assert gate_weights(states, torch.zeros(2, 2), torch.zeros(2)).tolist() == [[0.5, 0.5]]


def test_neighbours_are_found_by_direction_and_not_by_length() -> None:
    known = torch.tensor([[100.0, 0.0], [0.1, 0.1], [0.0, 1.0]])
    errors = torch.tensor([[0.2, 0.6], [0.4, 0.2], [1.0, 1.0]])
    assert neighbours_errors(torch.tensor([[2.0, 0.1]]), known, errors, 1).tolist()[0] == pytest.approx([0.2, 0.6])
    # The two nearest: (0.2 + 0.4) / 2 and (0.6 + 0.2) / 2.
    assert neighbours_errors(torch.tensor([[2.0, 0.1]]), known, errors, 2).tolist()[0] == pytest.approx([0.3, 0.4])
    assert neighbours_errors(torch.tensor([[2.0, 0.1]]), known, errors, 99).tolist()[0] == pytest.approx(errors.mean(dim=0).tolist())


def test_at_temperature_0_all_weigh_the_same_and_at_a_high_one_the_best_alone() -> None:
    errors = torch.tensor([[0.30, 0.31, 0.4]])
    assert sample_weights(errors, 0.0).tolist()[0] == pytest.approx([1 / 3] * 3)
    assert sample_weights(errors, 1000.0).tolist()[0] == pytest.approx([1, 0, 0], abs=1e-4)


@pytest.mark.parametrize("aggregation", ["nondecomposed", "decomposed"])
def test_the_stacked_pass_is_the_aggregated_matrix_of_every_row(aggregation: str) -> None:
    random = torch.Generator().manual_seed(4)
    inputs, down, up = (torch.randn(*shape, generator=random) for shape in ((5, 3, 7), (4, 2, 7), (4, 6, 2)))
    weights = torch.rand(5, 4, generator=random).softmax(dim=1)
    added = stacked_adapters(inputs, down, up, weights, aggregation)
    for row, mine in enumerate(weights):
        if aggregation == "nondecomposed":
            matrix = sum(weight * b @ a for weight, a, b in zip(mine, down, up, strict=True))
        else:
            matrix = sum(weight * b for weight, b in zip(mine, up, strict=True)) @ sum(w * a for w, a in zip(mine, down, strict=True))
        assert torch.allclose(added[row], inputs[row] @ matrix.T, atol=1e-5)
