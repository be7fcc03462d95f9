"""Where and how a backbone answers, and which tokenizers it refuses.

Tolerance `FLOAT32`: the same network run with another number of decoder positions sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers

from e2urec_core.backbones.base import Backbone, answer_id, answer_ids, train_tokenizer
from e2urec_core.data.batches import Prompts
from e2urec_core.errors import BadBackbone
from e2urec_core.recommender import Recommender

FLOAT32 = 1e-5
KINDS = ["tiny_t5", "tiny_bart"]


def words(**vocabulary: int) -> Tokenizer:
    """A tokenizer that knows the given words, split at spaces."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, **vocabulary}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_both_answers_are_found_where_they_are_one_token_each() -> None:
    assert answer_ids(words(Yes=5, No=3)) == (5, 3)


def test_an_answer_of_several_tokens_is_refused_with_their_number() -> None:
    letters = Tokenizer(models.BPE({"Y": 0, "e": 1, "s": 2, "N": 3, "o": 4, "<unk>": 5}, [], unk_token="<unk>"))
    with pytest.raises(BadBackbone, match="the answer `Yes` is 3 tokens instead of one") as refused:
        answer_ids(letters)
    assert refused.value.facts == {"tokens": "Y e s"}


def test_an_answer_that_the_tokenizer_does_not_know_is_refused() -> None:
    with pytest.raises(BadBackbone, match="does not know the answer `No`"):
        answer_ids(words(Yes=1))


def test_an_answer_that_is_an_unknown_token_of_another_name_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "Yes": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(BadBackbone, match="does not know the answer `No`"):
        answer_ids(tokenizer)


def test_an_answer_of_no_token_at_all_is_refused() -> None:
    with pytest.raises(BadBackbone, match="is 0 tokens"):
        answer_id(Tokenizer(models.BPE({}, [])), "Yes")


def test_answers_that_are_the_same_token_are_refused() -> None:
    with pytest.raises(BadBackbone, match="both answers are the token 7"):
        answer_ids(words(Yes=7, No=7))


@pytest.mark.parametrize("kind", KINDS)
def test_a_built_backbone_answers_with_its_tokenizers_words(build_tiny: Callable[..., Recommender], kind: str) -> None:
    recommender = build_tiny(kind)
    for word, token in (("Yes", recommender.answers.yes_id), ("No", recommender.answers.no_id)):
        assert recommender.tokenizer.encode(word, add_special_tokens=False).ids == [token]


@pytest.mark.parametrize(("kind", "position"), [("tiny_t5", 0), ("tiny_bart", 1)])
def test_the_answer_is_read_where_a_full_decoder_run_on_the_target_predicts_it(
    build_tiny: Callable[..., Recommender], rows_of: Callable[[Recommender, str], Prompts], kind: str, position: int
) -> None:
    recommender = build_tiny(kind)
    batch = rows_of(recommender, "forgotten").batch(numpy.arange(3))
    target = recommender.tokenizer.encode("Yes").ids
    # T5's target is `Yes </s>`, BART's is `<s> Yes </s>`: the place of Yes in it is the answer position.
    assert target.index(recommender.answers.yes_id) == position
    recommender.network.eval()
    with torch.inference_mode():
        # Given labels, transformers itself shifts them right and starts the decoder as the architecture demands.
        full = recommender.network(
            input_ids=batch.token_ids, attention_mask=batch.mask.long(), labels=torch.tensor([target] * 3), use_cache=False
        ).logits
        read = recommender.logits(batch)
    assert read.shape == (3, recommender.tokenizer.get_vocab_size())
    assert torch.allclose(read, full[:, position], atol=FLOAT32)
    others = [place for place in range(len(target)) if place != position]
    assert not any(torch.allclose(read, full[:, place], atol=1e-3) for place in others)


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_answer_of_a_row_is_yes_for_one_and_no_for_zero(
    build_tiny: Callable[..., Recommender], rows_of: Callable[[Recommender, str], Prompts], kind: str
) -> None:
    recommender = build_tiny(kind)
    rows = rows_of(recommender, "retained")
    expected = [recommender.answers.yes_id if label else recommender.answers.no_id for label in rows.labels]
    assert recommender.answer_ids(rows.batch(numpy.arange(len(rows)))).tolist() == expected
    assert len(set(expected)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_is_too_long_loses_its_oldest_end(build_tiny: Callable[..., Recommender], kind: str) -> None:
    tokenizer = build_tiny(kind, max_tokens=16).tokenizer
    text = "Watched so far: " + "Silent Saddle (5*), " * 30 + "Golden Vault. Will the user like Lonely Orbit? Answer Yes or No:"
    ids = tokenizer.encode(text).ids
    assert len(ids) == 16
    assert ids[-1] == tokenizer.token_to_id("</s>")
    assert tokenizer.decode(ids, skip_special_tokens=False).removesuffix("</s>").endswith("or No:")


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_prompt_has_a_position(build_tiny: Callable[..., Recommender], kind: str) -> None:
    recommender = build_tiny(kind, max_tokens=64)
    rows = recommender.prompts(numpy.array([0]), numpy.array([1]), ["Silent Saddle (5*), " * 100])
    assert rows.lengths.tolist() == [64]
    assert 0 <= recommender.score(rows)[0] <= 1


def test_a_tokenizer_keeps_every_text_whatever_it_was_trained_on() -> None:
    tokenizer = train_tokenizer(["Silent Saddle (5*)"], 300, ("<pad>", "</s>", "<unk>"), "$A </s>", 512)
    for text in ("Amélie", "七人の侍", "emoji 🎬 and {braces}"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_a_title_that_begins_like_an_answer_is_not_taken_for_the_answer() -> None:
    tokenizer = train_tokenizer(["Silent Saddle (5*)"], 300, ("<pad>", "</s>", "<unk>"), "$A </s>", 512)
    yes, no = answer_ids(tokenizer)
    for title in ("Nosferatu", "Yesterday", "Casino No1s"):
        ids = tokenizer.encode(title, add_special_tokens=False).ids
        assert not {yes, no} & set(ids), title


@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_do_not_share_the_width_are_refused(kind: str) -> None:
    with pytest.raises(ValidationError, match="width 16 is not a multiple of num_heads 3"):
        Backbone.model_validate({"kind": kind, "width": 16, "num_heads": 3})
