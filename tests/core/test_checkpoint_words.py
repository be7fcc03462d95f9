"""Which tokens of a checkpoint's own tokenizer are the answers, and which tokenizers are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from e2urec_core.backbones.bart import Bart
from e2urec_core.backbones.base import CheckpointBackbone
from e2urec_core.backbones.causal_lm import CausalLm
from e2urec_core.backbones.t5 import T5
from e2urec_core.errors import BadBackbone, BadInput
from e2urec_core.recommender import Recommender

BY_KIND = {"t5": T5, "bart": Bart, "causal_lm": CausalLm}
PROMPT = "Watched so far, oldest first: Silent Saddle (5*). Will the user like Golden Vault? Answer Yes or No:"


def unigram(*pieces: str) -> Tokenizer:
    """T5's kind with the given pieces and single letters."""
    letters = sorted(set("▁YesNo" + PROMPT) - set(pieces))
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -1.0) for piece in pieces), *((each, -9.0) for each in letters)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def bytes_bpe(*words: str) -> Tokenizer:
    """GPT-2's kind that knows the given words (`Ġ` for a space), and single bytes."""
    entries = [*pre_tokenizers.ByteLevel.alphabet()]
    merges: list[tuple[str, str]] = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in entries:
                merges.append((word[: end - 1], word[end - 1]))
                entries.append(word[:end])
    tokenizer = Tokenizer(models.BPE({entry: number for number, entry in enumerate(entries)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def answers(kind: type[CheckpointBackbone], tokenizer: Tokenizer) -> list[str | None]:
    return [tokenizer.id_to_token(token) for token in kind().answers_of(tokenizer)]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("t5:plain", ["▁Yes", "▁No"]),
        ("t5:flan", ["▁Yes", "▁No"]),
        ("bart:plain", ["Yes", "No"]),
        ("causal_lm:gpt2", ["ĠYes", "ĠNo"]),
        ("causal_lm:qwen2", ["ĠYes", "ĠNo"]),
        ("causal_lm:llama", ["▁Yes", "▁No"]),
    ],
)
def test_each_kind_answers_as_its_tokenizer_writes_the_word_where_it_is_said(
    build_tiny: Callable[..., Recommender], variant: str, expected: list[str]
) -> None:
    recommender = build_tiny(variant)
    told = recommender.answers
    assert [recommender.tokenizer.id_to_token(token) for token in (told.yes_id, told.no_id)] == expected
    ending = recommender.tokenizer.encode(f"{PROMPT} Yes").ids
    if not told.decoder_prefix:
        # What a text says that goes on from the prompt.
        assert ending == [*recommender.tokenizer.encode(PROMPT).ids, told.yes_id]
    else:
        target = recommender.tokenizer.encode("Yes").ids
        assert target == [*told.decoder_prefix[1:], told.yes_id, target[-1]]


def test_the_decoder_is_given_its_start_and_what_stands_before_a_target(build_tiny: Callable[..., Recommender]) -> None:
    # T5's targets begin with the answer; BART's begin with <s> (0), after the decoder's own start </s> (2).
    assert build_tiny("t5:plain").answers.decoder_prefix == (0,)
    assert build_tiny("bart:plain").answers.decoder_prefix == (2, 0)
    assert build_tiny("causal_lm:llama").answers.decoder_prefix == ()


def test_entries_without_the_mark_of_a_space_are_taken_where_those_with_it_are_missing() -> None:
    assert answers(T5, unigram("▁Yes", "▁No", "Yes", "No")) == ["▁Yes", "▁No"]
    assert answers(T5, unigram("Yes", "No")) == ["Yes", "No"]
    # Both answers are spelled alike: not one with a mark and one without.
    assert answers(T5, unigram("▁Yes", "Yes", "No")) == ["Yes", "No"]


def test_a_target_is_written_after_a_space_where_it_is_no_word_without_one() -> None:
    assert answers(Bart, bytes_bpe("ĠYes", "ĠNo", "Yes", "No")) == ["Yes", "No"]
    assert answers(Bart, bytes_bpe("ĠYes", "ĠNo")) == ["ĠYes", "ĠNo"]


def test_a_text_goes_on_with_a_space_where_such_words_are_known_and_without_one_otherwise() -> None:
    assert answers(CausalLm, bytes_bpe("ĠYes", "ĠNo", "Yes", "No")) == ["ĠYes", "ĠNo"]
    assert answers(CausalLm, bytes_bpe("Yes", "No")) == ["Yes", "No"]


@pytest.mark.parametrize(("kind", "tokenizer"), [(T5, unigram("▁No")), (Bart, bytes_bpe("ĠNo")), (CausalLm, bytes_bpe("ĠNo", "No"))])
def test_an_answer_of_several_tokens_is_refused_and_its_tokens_are_shown(kind: type[CheckpointBackbone], tokenizer: Tokenizer) -> None:
    with pytest.raises(BadBackbone, match="`Yes` and `No` are not one known token each") as refused:
        kind().answers_of(tokenizer)
    assert any("Y e s / " in shown for shown in refused.value.facts.values())


def test_answers_that_are_the_same_token_are_refused() -> None:
    tokenizer = unigram("▁yes", "▁no")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("Yes", "yes"), normalizers.Replace("No", "yes")])
    with pytest.raises(BadBackbone, match="are the same token 3"):
        T5().answers_of(tokenizer)


def test_answers_that_the_tokenizer_does_not_know_are_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "Answer": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for kind in (T5, Bart, CausalLm):
        with pytest.raises(BadBackbone, match="are not one known token each"):
            kind().answers_of(tokenizer)


def test_a_tokenizer_that_closes_every_prompt_leaves_no_room_for_the_next_token() -> None:
    tokenizer = bytes_bpe("ĠYes", "ĠNo")
    tokenizer.add_special_tokens(["<|end|>"])
    end = tokenizer.token_to_id("<|end|>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", end)])
    with pytest.raises(BadBackbone, match=r"ends every prompt with `<\|end\|>`"):
        CausalLm().answers_of(tokenizer)


@pytest.mark.parametrize("variant", ["t5:plain", "bart:plain", "causal_lm:gpt2", "causal_lm:llama"])
def test_a_prompt_that_is_too_long_loses_its_oldest_end_and_keeps_its_frame(
    small_backbone: Callable[..., CheckpointBackbone], variant: str
) -> None:
    whole, cut = (small_backbone(variant, max_tokens=size).tokenizer([]) for size in (512, 24))
    text = "Silent Saddle (5*), " * 20 + PROMPT
    ids, kept = whole.encode(text).ids, cut.encode(text).ids
    lead = 1 if variant in ("bart:plain", "causal_lm:llama") else 0
    assert len(kept) == 24
    assert kept[:lead] == ids[:lead]
    assert kept[lead:] == ids[lead - 24 :]


def test_padding_and_truncation_that_a_checkpoint_comes_with_are_replaced(small_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_checkpoint("causal_lm:gpt2"), tmp_path / "gpt2"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=100)
    tokenizer.enable_truncation(7)
    tokenizer.save(str(folder / "tokenizer.json"))
    opened = CausalLm(checkpoint=str(folder), max_tokens=32).tokenizer([])
    assert opened.padding is None
    assert (opened.truncation["max_length"], opened.truncation["direction"]) == (32, "left")


def older(folder: Path, tokenizer: Tokenizer) -> None:
    """Leave the files of GPT-2's older tokenizer in the place of the fast one."""
    told: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(told["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in told["merges"])]))


def test_an_older_tokenizer_is_made_into_a_fast_one_of_the_same_tokens(small_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_checkpoint("causal_lm:gpt2"), tmp_path / "gpt2"))
    fast = CausalLm(checkpoint=str(folder)).tokenizer([])
    older(folder, fast)
    made = CausalLm(checkpoint=str(folder)).tokenizer([])
    assert made.encode(PROMPT).ids == fast.encode(PROMPT).ids
    assert made.truncation == fast.truncation


def test_no_tokenizer_is_refused_and_so_is_one_that_cannot_be_read(small_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_checkpoint("t5:plain"), tmp_path / "t5"))
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(BadInput, match=r"`tokenizer\.json` of the checkpoint cannot be read"):
        T5(checkpoint=str(folder)).tokenizer([])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"has no `tokenizer\.json`, and no older tokenizer"):
        T5(checkpoint=str(folder)).tokenizer([])
    (folder / "spiece.model").write_bytes(b"no sentencepiece at all")
    with pytest.raises(BadInput, match=r"none can be made of `spiece\.model` here"):
        T5(checkpoint=str(folder)).tokenizer([])
