"""Tokenising by pieces gives what tokenising whole texts gives, whatever the wording, the titles and the tokenizer."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from e2urec_core.backbones.base import train_tokenizer
from e2urec_core.data.encoding import PromptEncoder
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.pieces import MOST_RATINGS, PieceTokenizer
from e2urec_core.data.prompts import Catalogue, PromptRule, texts
from e2urec_core.errors import BadInput
from tests.told import Rating, examples_of, stored

CORPUS = [
    "The user is a farmer. Watched so far, oldest first: Red Canyon (5*), Blue (3.5*). Will the user like Emma? Answer Yes or No:"
] * 3


def byte_level(template: str = "$A </s>", max_tokens: int = 512) -> Tokenizer:
    """Ours, of the tiny backbones."""
    return train_tokenizer(CORPUS, 330, ("<pad>", "</s>", "<unk>"), template, max_tokens)


def like_t5() -> Tokenizer:
    """A unigram model over words that begin with a mark, as T5 has."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def like_bart() -> Tokenizer:
    """Byte-level BPE with the pattern of GPT-2 and a special token on both sides, as BART has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<s>", "<pad>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def like_llama() -> Tokenizer:
    """BPE over the whole text without a split at spaces: pieces need not give what the whole gives."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=160, special_tokens=["<s>", "<unk>"], show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


TOKENIZERS = {"byte level": byte_level(), "t5": like_t5(), "bart": like_bart(), "llama": like_llama()}


def batch_of(folder: Path, history: HistoryRule) -> pa.RecordBatch:
    return examples_of(folder, history).combine_chunks().to_batches()[0]


def both_ways(folder: Path, history: HistoryRule, rule: PromptRule, tokenizer: Tokenizer) -> tuple[list[list[int]], list[list[int]], bool]:
    """Token ids by the encoder and by the tokenizer itself, and whether pieces were used to the end."""
    batch = batch_of(folder, history)
    encoder = PromptEncoder(tokenizer, Catalogue(folder, rule), rule)
    made, left_out = encoder.encode(batch)
    whole = tokenizer.encode_batch(texts(batch, Catalogue(folder, rule), rule, left_out).to_pylist())
    ids = [made.flat[made.starts[row] : made.starts[row + 1]].tolist() for row in range(batch.num_rows)]
    return ids, [row.ids for row in whole], encoder.is_quick


TITLE = st.text(alphabet="aB é,.'(Yes)No*<>/s1", min_size=1, max_size=9).filter(str.strip)
RULES = [
    PromptRule(),
    PromptRule(template="paper"),
    PromptRule(text="A: {candidate} ({profile})? B: {history}!", event="{rating}-{title}"),
    PromptRule(text="({history}) {candidate}"),
    PromptRule(text="{candidate} is it {history}"),
]


@st.composite
def random_case(draw: st.DrawFn) -> tuple[list[Rating], dict[str, str | None], dict[str, str], HistoryRule, PromptRule]:
    keys = draw(
        st.lists(st.tuples(st.sampled_from("uv"), st.sampled_from("abcd"), st.integers(0, 9)), min_size=4, max_size=16, unique=True)
    )
    stars = st.none() | st.sampled_from([1.0, 3.5, 5.0])
    ratings = [(user, item, draw(stars), second) for user, item, second in keys]
    profiles = {user: draw(st.none() | TITLE.map(str.strip)) for user in "uv"}
    titles = {item: " ".join(draw(TITLE).split()) for item in "abcd"}
    return ratings, profiles, titles, HistoryRule(length=draw(st.integers(1, 5)), at_least=1), draw(st.sampled_from(RULES))


@settings(max_examples=40)
@pytest.mark.parametrize("name", list(TOKENIZERS))
@given(case=random_case())
def test_pieces_give_what_whole_texts_give(
    name: str, case: tuple[list[Rating], dict[str, str | None], dict[str, str], HistoryRule, PromptRule]
) -> None:
    ratings, profiles, titles, history, rule = case
    with tempfile.TemporaryDirectory() as place:
        folder = stored(Path(place), ratings, profiles=profiles, titles=titles)
        if not examples_of(folder, history).num_rows:
            return
        made, whole, _ = both_ways(folder, history, rule, TOKENIZERS[name])
    assert made == whole


@pytest.mark.parametrize("name", ["byte level", "t5", "bart"])
def test_tokenizers_that_split_at_spaces_stay_on_the_quick_way(tmp_path: Path, name: str) -> None:
    folder = stored(tmp_path, [("u", f"i{at}", 1.0 + at % 5, at) for at in range(30)], titles={"i3": "Red Canyon"})
    made, whole, quick = both_ways(folder, HistoryRule(at_least=3), PromptRule(), TOKENIZERS[name])
    assert made == whole
    assert quick


def test_a_tokenizer_that_joins_words_is_given_whole_texts(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], show_progress=False)
    folder = stored(tmp_path, [("u", f"i{at}", 1.0 + at % 5, at) for at in range(30)])
    history = HistoryRule(at_least=3)
    tokenizer.train_from_iterator(texts(batch_of(folder, history), Catalogue(folder, PromptRule()), PromptRule()).to_pylist(), trainer)
    made, whole, quick = both_ways(folder, history, PromptRule(), tokenizer)
    assert made == whole
    assert not quick


def long_history(place: Path, count: int = 12) -> Path:
    """Each item's title is one word more than the one before."""
    ratings: list[Rating] = [("u", f"i{at:02}", 1.0 + at % 5, at) for at in range(count)]
    return stored(place, ratings, titles={f"i{at:02}": " ".join(["word"] * (1 + at)) for at in range(count)}, profiles={"u": "A farmer."})


@pytest.mark.parametrize("by_pieces", [True, False], ids=["pieces", "whole"])
@pytest.mark.parametrize("limit", [96, 110, 150, 200, 512])
def test_a_long_prompt_loses_the_oldest_items_and_no_more_than_it_must(tmp_path: Path, limit: int, by_pieces: bool) -> None:
    folder, rule = long_history(tmp_path), PromptRule()
    tokenizer = byte_level(max_tokens=limit)
    batch, catalogue = batch_of(folder, HistoryRule(length=12, at_least=5)), Catalogue(folder, rule)
    made, left_out = PromptEncoder(tokenizer, catalogue, rule, by_pieces=by_pieces).encode(batch)
    untruncated = Tokenizer.from_str(tokenizer.to_str())
    untruncated.no_truncation()
    lengths = batch["history"].value_lengths().to_pylist()
    for row, dropped in enumerate(left_out.tolist()):
        # The oracle: leave out one item after the other until the text fits.
        for tried in range(lengths[row] + 1):
            (text,) = texts(batch.slice(row, 1), catalogue, rule, left_out[row : row + 1] * 0 + tried).to_pylist()
            ids = untruncated.encode(text).ids
            if len(ids) <= limit:
                break
        assert dropped == tried
        assert made.flat[made.starts[row] : made.starts[row + 1]].tolist() == ids
        assert text.endswith("Answer Yes or No:")
    assert bool((left_out > 0).any()) == (limit < 512)


@pytest.mark.parametrize("by_pieces", [True, False], ids=["pieces", "whole"])
def test_a_prompt_that_is_too_long_without_any_history_is_refused_with_the_numbers(tmp_path: Path, by_pieces: bool) -> None:
    folder, rule = long_history(tmp_path), PromptRule()
    encoder = PromptEncoder(byte_level(max_tokens=20), Catalogue(folder, rule), rule, by_pieces=by_pieces)
    with pytest.raises(BadInput, match=r"of \d+ prompts have more than 20 tokens without any history; the longest has \d+") as refused:
        encoder.encode(batch_of(folder, HistoryRule(at_least=5)))
    assert "--backbone.max-tokens" in refused.value.hint


def test_the_tokenizer_that_was_handed_over_keeps_its_limit(tmp_path: Path) -> None:
    tokenizer = byte_level(max_tokens=60)
    PromptEncoder(tokenizer, Catalogue(long_history(tmp_path), PromptRule()), PromptRule())
    assert tokenizer.truncation["max_length"] == 60


def test_ratings_that_hardly_repeat_are_tokenised_whole(tmp_path: Path) -> None:
    count = MOST_RATINGS + 40
    folder = stored(tmp_path, [("u", f"i{at}", round(at / 10, 1), at) for at in range(count)])
    made, whole, quick = both_ways(folder, HistoryRule(at_least=1), PromptRule(), TOKENIZERS["byte level"])
    assert made == whole
    assert not quick


@pytest.mark.parametrize(
    ("text", "can"),
    [("{profile} {history} {candidate}", False), ("So: {history} {candidate}", True), ("So: ({history}) {candidate}", False)],
)
def test_a_history_that_opens_a_prompt_or_touches_a_word_is_tokenised_whole(text: str, can: bool) -> None:
    assert PieceTokenizer.can(PromptRule(text=text)) is can
