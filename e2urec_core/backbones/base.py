"""A backbone makes a recommender: a network, a tokenizer, and the facts of how it answers.

One new backbone = one new file in this folder, which owns what differs between architectures: how the decoder is started, at which
position the answer stands, and which layers carry an adapter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from e2urec_core.errors import BadBackbone
from e2urec_core.settings import Plugin

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from e2urec_core.recommender import Recommender

YES, NO = "Yes", "No"


class Backbone(Plugin):
    """Settings of one architecture."""

    package: ClassVar[str] = "e2urec_core.backbones"

    def tokenizer(self, prompts: Iterable[str]) -> Tokenizer:
        """The tokenizer of this backbone.

        Args:
            prompts: The training prompts, for backbones that train a tokenizer of their own.
        """
        raise AssertionError(f"{type(self).__name__} has no tokenizer")

    def build(self, tokenizer: Tokenizer, seed: int) -> Recommender:
        """A recommender that has not been trained on the task yet.

        Args:
            tokenizer: What `tokenizer` gave.
            seed: The run's seed; initial weights are drawn from it.

        Raises:
            BadBackbone: An answer is not one token, or both answers are the same.
        """
        raise AssertionError(f"{type(self).__name__} does not build")


class TinyBackbone(Backbone):
    """Sizes of a network that starts from random weights and trains its own tokenizer."""

    width: int = Field(64, ge=8, le=1024, multiple_of=8)
    """Size of the hidden states."""
    num_layers: int = Field(2, ge=1, le=24)
    """Blocks of the encoder."""
    num_decoder_layers: int = Field(1, ge=1, le=24)
    """Blocks of the decoder."""
    num_heads: int = Field(4, ge=1, le=32)
    """Attention heads."""
    inner_width: int = Field(128, ge=8, le=8192)
    """Size of the feed-forward layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations dropped while training."""
    vocabulary: int = Field(2000, ge=300, le=100_000)
    """Most entries of the tokenizer."""
    max_tokens: int = Field(512, ge=16, le=4096)
    """Longest prompt in tokens; the oldest end is cut."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> TinyBackbone:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        return self


def answer_id(tokenizer: Tokenizer, word: str) -> int:
    """Token id of an answer word.

    Raises:
        BadBackbone: The word is not exactly one known token.
    """
    encoded = tokenizer.encode(word, add_special_tokens=False)
    if len(encoded.ids) != 1:
        raise BadBackbone(
            f"the answer `{word}` is {len(encoded.ids)} tokens instead of one, so its probability cannot be read at one position",
            facts={"tokens": " ".join(encoded.tokens)},
            hint="take a tokenizer that knows both answers as words",
        )
    unknown = getattr(tokenizer.model, "unk_token", None)
    if encoded.tokens[0] in ("<unk>", unknown):
        raise BadBackbone(f"the tokenizer does not know the answer `{word}`", hint="take a tokenizer that knows both answers as words")
    return int(encoded.ids[0])


def answer_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Token ids of Yes and of No.

    Raises:
        BadBackbone: An answer is not one token, or both are the same one.
    """
    yes, no = answer_id(tokenizer, YES), answer_id(tokenizer, NO)
    if yes == no:
        raise BadBackbone(
            f"both answers are the token {yes}, so they cannot be told apart", hint="take a tokenizer that keeps Yes and No apart"
        )
    return yes, no


def train_tokenizer(prompts: Iterable[str], vocabulary: int, special: tuple[str, ...], template: str, max_tokens: int) -> Tokenizer:
    """A byte-level BPE tokenizer trained on `prompts`; the answers are tokens of their own.

    Args:
        prompts: Texts.
        vocabulary: Most entries, special ones included.
        special: Special tokens; each has its place in this tuple as its id.
        template: How a prompt is framed, in the notation of `tokenizers`, such as `$A </s>`.
        max_tokens: Longest prompt; the oldest end is cut.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    # Split at spaces alone, so that a frequent piece such as "(5*)," becomes one token: prompts shrink by a third.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", behavior="merged_with_next"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*special, *(AddedToken(word, single_word=True) for word in (YES, NO))],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prompts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in special]
    )
    tokenizer.enable_truncation(max_tokens, direction="left")
    return tokenizer
