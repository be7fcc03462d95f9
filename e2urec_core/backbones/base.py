"""A backbone makes a recommender: a network, a tokenizer, and the facts of how it answers.

One new backbone = one new file in this folder, which owns what differs between architectures: how the decoder is started, at which
position the answer stands, and which layers carry an adapter.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from e2urec_core.errors import BadBackbone
from e2urec_core.plugins import word
from e2urec_core.settings import Plugin

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from e2urec_core.recommender import Recommender

YES, NO = "Yes", "No"


class Backbone(Plugin):
    """Settings of one architecture."""

    package: ClassVar[str] = "e2urec_core.backbones"
    has_encoder: ClassVar[bool] = True
    """Whether it is an encoder-decoder; without an encoder there are no encoder states to keep, and no decoder's blocks apart."""

    def fingerprint(self) -> str:
        """Digest of what it depends on beside its settings: the bytes of a checkpoint's files, or the empty text.

        Raises:
            UserError: A checkpoint is not there, or cannot be read.
        """
        return ""

    def keyed(self) -> dict[str, Any]:
        """The settings that decide, together with the fingerprint, what it builds."""
        return self.canonical()

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


class CheckpointBackbone(Backbone):
    """A network with its tokenizer that somebody has published, as a folder or on the hub."""

    model_types: ClassVar[tuple[str, ...]] = ()
    """Architectures that it reads; none for all."""
    has_longest_input: ClassVar[bool] = True
    """Whether it has positions for so many tokens and no more."""
    dropouts: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """What the configuration may call its dropouts; the first group that is there is set."""
    projections: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """What query and value projections may be called."""

    checkpoint: str | None = None
    """Folder of the checkpoint, or its name on the Hugging Face hub; it must be given."""
    revision: str = Field("main", min_length=1)
    """Branch, tag or commit on the hub."""
    offline: Literal["auto", "on"] = "auto"
    """`auto` asks the hub for what its cache on this machine lacks; `on` never asks it."""
    max_tokens: int = Field(512, ge=16, le=1_048_576)
    """Longest prompt in tokens; the oldest end is cut."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of activations dropped while training; without a number, the checkpoint's own."""

    def fingerprint(self) -> str:
        """See `Backbone.fingerprint`."""
        from e2urec_core.pretrained.folders import fingerprint

        return fingerprint(self._folder())

    def keyed(self) -> dict[str, Any]:
        """See `Backbone.keyed`: where the files lie decides nothing, what is in them does."""
        return {name: value for name, value in self.canonical().items() if name not in ("checkpoint", "revision", "offline")}

    def tokenizer(self, prompts: Iterable[str]) -> Tokenizer:
        """See `Backbone.tokenizer`; nothing is trained."""
        from e2urec_core.pretrained.networks import refuse_too_long
        from e2urec_core.pretrained.words import open_tokenizer

        folder = self._folder()
        config = self._config(folder)
        if self.has_longest_input:
            refuse_too_long(config, self.max_tokens)
        tokenizer = open_tokenizer(folder, self.max_tokens)
        # Before anything is computed with it.
        self.answers_of(tokenizer)
        return tokenizer

    def build(self, tokenizer: Tokenizer, seed: int) -> Recommender:
        """See `Backbone.build`; the seed decides nothing of a whole checkpoint."""
        from e2urec_core.pretrained.networks import adapter_targets, open_network, refuse_too_long, set_dropout, try_out
        from e2urec_core.pretrained.words import refuse_uncovered
        from e2urec_core.recommender import Answers, Recommender

        folder = self._folder()
        config = self._config(folder)
        if self.has_longest_input:
            refuse_too_long(config, self.max_tokens)
        set_dropout(config, self.dropouts, self.dropout)
        yes, no = self.answers_of(tokenizer)
        network: Any = open_network(folder, config, seed)
        refuse_uncovered(tokenizer, network.get_input_embeddings().num_embeddings)
        attention, linear = adapter_targets(network, self.projections)
        answers = Answers(
            yes_id=yes,
            no_id=no,
            decoder_prefix=self.prefix_of(tokenizer, config),
            attention_targets=attention,
            linear_targets=linear,
        )
        recommender = Recommender(network, tokenizer, answers)
        try_out(recommender)
        return recommender

    def answers_of(self, tokenizer: Tokenizer) -> tuple[int, int]:
        """Token ids of Yes and of No where they are said: by themselves, as the decoder's target.

        Raises:
            BadBackbone: An answer is not one token, or both are the same one.
        """
        from e2urec_core.pretrained.words import choose_answers, target_spellings

        return choose_answers(tokenizer, target_spellings(tokenizer), (YES, NO))

    def prefix_of(self, tokenizer: Tokenizer, config: Any) -> tuple[int, ...]:
        """What the decoder is given before the answer: its start, and what the tokenizer puts before a text."""
        from e2urec_core.pretrained.words import frame

        start = config.decoder_start_token_id if config.decoder_start_token_id is not None else config.pad_token_id
        if start is None:
            raise BadBackbone("the checkpoint does not say with which token its decoder starts", hint="add `decoder_start_token_id`")
        return (int(start), *frame(tokenizer)[0])

    def _folder(self) -> Path:
        from e2urec_core.pretrained.folders import find

        return find(self.checkpoint, self.revision, self.offline)

    def _config(self, folder: Path) -> Any:
        from e2urec_core.pretrained.networks import config_of

        return config_of(folder, encoder=self.has_encoder, model_types=self.model_types, word=word(self.kind))


def answer_id(tokenizer: Tokenizer, answer: str) -> int:
    """Token id of an answer word.

    Raises:
        BadBackbone: The word is not exactly one known token.
    """
    encoded = tokenizer.encode(answer, add_special_tokens=False)
    if len(encoded.ids) != 1:
        raise BadBackbone(
            f"the answer `{answer}` is {len(encoded.ids)} tokens instead of one, so its probability cannot be read at one position",
            facts={"tokens": " ".join(encoded.tokens)},
            hint="take a tokenizer that knows both answers as words",
        )
    unknown = getattr(tokenizer.model, "unk_token", None)
    if encoded.tokens[0] in ("<unk>", unknown):
        raise BadBackbone(f"the tokenizer does not know the answer `{answer}`", hint="take a tokenizer that knows both answers as words")
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
        special_tokens=[*special, *(AddedToken(answer, single_word=True) for answer in (YES, NO))],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prompts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in special]
    )
    tokenizer.enable_truncation(max_tokens, direction="left")
    return tokenizer
