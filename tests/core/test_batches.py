"""Batches: every row once, in an order of seed and pass alone, padded so that padding changes nothing.

Tolerance `PADDED`: a padded row is summed in another order by 32-bit kernels; the scores of these networks then differ by some 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from e2urec_core.data.batches import BATCHES_IN_A_POOL, Batch, Prompts, join, pass_order, tokenise
from e2urec_core.recommender import Recommender

PADDED = 1e-5
KINDS = ["tiny_t5", "tiny_bart"]


def prompts(*rows: list[int]) -> Prompts:
    """Prompts with the given token ids; row n has example id 10 n and label n % 2."""
    starts = numpy.concatenate([[0], numpy.cumsum([len(row) for row in rows])]).astype(numpy.int64)
    flat = numpy.array([token for row in rows for token in row], dtype=numpy.int32)
    count = numpy.arange(len(rows))
    return Prompts(count * 10, count % 2, flat, starts)


def lengths(*numbers: int) -> numpy.ndarray:
    return numpy.array(numbers, dtype=numpy.int64)


LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=200).map(lambda numbers: lengths(*numbers))


@given(LENGTHS, st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_every_row_is_drawn_once_a_pass_in_batches_of_the_asked_size(rows: numpy.ndarray, size: int, seed: int, number: int) -> None:
    batches = pass_order(rows, size, seed, number)
    assert sorted(numpy.concatenate(batches).tolist()) == list(range(len(rows)))
    # ceil(rows / size) batches, of which one may be short
    assert len(batches) == -(-len(rows) // size)
    assert sorted(len(batch) for batch in batches)[1:] == [size] * (len(batches) - 1)


def test_the_order_depends_on_seed_pass_and_purpose_alone() -> None:
    rows = lengths(*range(1, 101))

    def order(seed: int, number: int, purpose: str = "row-order") -> list[list[int]]:
        return [batch.tolist() for batch in pass_order(rows, 8, seed, number, purpose)]

    first = order(1, 0)
    numpy.random.seed(99)
    torch.manual_seed(99)
    assert order(1, 0) == first
    assert order(1, 1) != first
    assert order(2, 0) != first
    assert order(1, 0, "other") != first


def test_rows_of_near_equal_length_share_a_batch() -> None:
    size = 4
    rows = numpy_lengths = numpy.random.default_rng(0).integers(1, 100, size=size * BATCHES_IN_A_POOL)
    spread = [int(numpy.ptp(numpy_lengths[batch])) for batch in pass_order(rows, size, 0, 0)]
    # 64 lengths over 1 to 99, sorted: four neighbours lie some 5 apart, while four at random lie some 60 apart.
    assert numpy.mean(spread) < 15


def test_a_batch_holds_the_prompts_tokens_and_masks_the_padding() -> None:
    batch = prompts([7, 8], [9], [4, 5, 6]).batch(numpy.array([2, 0, 1]))
    assert batch.mask.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    assert batch.token_ids[batch.mask].tolist() == [4, 5, 6, 7, 8, 9]
    assert batch.token_ids[~batch.mask].tolist() == [0, 0, 0]
    assert batch.labels.tolist() == [0, 0, 1]
    assert batch.index.tolist() == [2, 0, 1]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=12), st.integers(1, 30), st.integers(1, 3))
def test_scoring_order_visits_every_prompt_once_longest_first_with_its_own_tokens(rows: list[list[int]], budget: int, world: int) -> None:
    source, seen = prompts(*rows), []
    for rank in range(world):
        batches = list(source.in_order(budget, rank, world))
        seen += [place for batch in batches for place in batch.index.tolist()]
        drawn = [length for batch in batches for length in batch.mask.sum(1).tolist()]
        assert drawn == sorted(drawn, reverse=True)
        assert all(len(batch.labels) == 1 or batch.token_ids.numel() <= budget for batch in batches)
        for batch in batches:
            for tokens, mask, place in zip(batch.token_ids, batch.mask, batch.index.tolist(), strict=True):
                assert tokens[mask].tolist() == rows[place]
    assert sorted(seen) == list(range(len(rows)))


def test_a_batch_is_cut_without_a_look_at_all_other_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    # With millions of prompts, a pass over their lengths for every batch would cost more than the batch.
    monkeypatch.setattr(Prompts, "lengths", property(lambda self: pytest.fail("all lengths were asked for")))
    assert prompts([7, 8], [9], [4, 5, 6]).batch(numpy.array([2])).token_ids.tolist() == [[4, 5, 6]]


def test_prompts_are_found_by_their_numbers_in_whatever_order_both_stand() -> None:
    source = prompts([7], [9], [4], [5]).select(numpy.array([2, 0, 3, 1]))
    asked = numpy.array([10, 30, 0, 10])
    assert source.example_ids[source.places_of(asked)].tolist() == asked.tolist()


def test_joined_batches_keep_their_rows_and_pad_the_shorter_one() -> None:
    source = prompts([1], [2, 3, 4], [5, 6])
    joined = join([source.batch(numpy.array([0, 2])), source.batch(numpy.array([1]))])
    assert joined.index.tolist() == [0, 2, 1]
    assert joined.mask.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert joined.token_ids.tolist() == [[1, 0, 0], [5, 6, 0], [2, 3, 4]]
    assert joined.labels.tolist() == [0, 0, 1]


def test_a_batch_whose_parts_do_not_fit_is_refused() -> None:
    with pytest.raises(TypeCheckError):
        Batch(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2).long(), torch.zeros(2).long())


@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_are_those_of_the_tokenizer_prompt_by_prompt(build_tiny: Callable[..., Recommender], kind: str) -> None:
    tokenizer = build_tiny(kind).tokenizer
    texts = ["Silent Saddle (5*).", "", "Will the user like Golden Vault? Answer Yes or No:"]
    made = tokenise(tokenizer, numpy.array([4, 5, 6]), numpy.array([1, 0, 1]), texts)
    for place, text in enumerate(texts):
        assert made.flat[made.starts[place] : made.starts[place + 1]].tolist() == tokenizer.encode(text).ids
    assert made.lengths.tolist() == [len(tokenizer.encode(text).ids) for text in texts]
    assert (len(made), made.example_ids.tolist(), made.labels.tolist()) == (3, [4, 5, 6], [1, 0, 1])


@pytest.fixture(params=KINDS)
def sensitive(request: pytest.FixtureRequest, build_tiny: Callable[..., Recommender]) -> Recommender:
    """A network whose answers depend on every token, other than one fresh from its small initial weights."""
    recommender = build_tiny(request.param)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in recommender.network.named_parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=random) * (0.3 if "relative" not in name else 1.0))
    return recommender


def test_scores_do_not_depend_on_the_batch_size(sensitive: Recommender, rows_of: Callable[[Recommender, str], Prompts]) -> None:
    rows = rows_of(sensitive, "forgotten")
    assert rows.lengths.min() < rows.lengths.max(), "without padding there is nothing to test"
    # A budget of one token leaves every row by itself.
    alone = sensitive.score(rows, token_budget=1)
    assert alone.std() > 100 * PADDED, "answers must depend on the prompt"
    assert sensitive.score(rows, token_budget=16 * int(rows.lengths.max())) == pytest.approx(alone, abs=PADDED)
    assert sensitive.score(rows) == pytest.approx(alone, abs=PADDED)


def test_scores_do_not_depend_on_padding_and_would_without_the_mask(
    sensitive: Recommender, rows_of: Callable[[Recommender, str], Prompts]
) -> None:
    rows = rows_of(sensitive, "forgotten")
    plain = rows.batch(numpy.arange(4))
    padding = torch.zeros(4, 30, dtype=torch.int64)
    token_ids, mask = torch.cat([plain.token_ids, padding], dim=1), torch.cat([plain.mask, padding.bool()], dim=1)
    sensitive.network.eval()
    with torch.inference_mode():
        expected = sensitive.logits(plain)
        padded = sensitive.logits(Batch(token_ids, mask, plain.labels, plain.index))
        seen = sensitive.logits(Batch(token_ids, torch.ones_like(mask), plain.labels, plain.index))
        other_padding = sensitive.logits(Batch(token_ids + 3 * (~mask).long(), mask, plain.labels, plain.index))
    assert torch.allclose(padded, expected, atol=1e-4)
    assert torch.allclose(other_padding, expected, atol=1e-4)
    assert not torch.allclose(seen, expected, atol=1e-2)
