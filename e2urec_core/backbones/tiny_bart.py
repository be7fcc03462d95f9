"""A small BART from random weights, with a tokenizer trained on the training prompts.

Source: the architecture of BART (Lewis et al., 2020) in transformers, far smaller than its smallest published size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from e2urec_core.backbones.base import TinyBackbone, answer_ids, train_tokenizer
from e2urec_core.seeding import seeded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from e2urec_core.recommender import Recommender


class TinyBart(TinyBackbone):
    """Encoder-decoder with learned positions; targets begin with `<s>`, so the answer is the decoder's second output."""

    kind: Literal["tiny_bart"] = "tiny_bart"
    """Name of the backbone."""

    def tokenizer(self, prompts: Iterable[str]) -> Tokenizer:
        """See `Backbone.tokenizer`."""
        # The ids that BART's own tokenizer gives: <s> 0, <pad> 1, </s> 2.
        return train_tokenizer(prompts, self.vocabulary, ("<s>", "<pad>", "</s>", "<unk>"), "<s> $A </s>", self.max_tokens)

    def build(self, tokenizer: Tokenizer, seed: int) -> Recommender:
        """See `Backbone.build`."""
        from transformers import BartConfig, BartForConditionalGeneration

        from e2urec_core.recommender import Answers, Recommender

        yes, no = answer_ids(tokenizer)
        config = BartConfig(
            vocab_size=tokenizer.get_vocab_size(),
            d_model=self.width,
            encoder_layers=self.num_layers,
            decoder_layers=self.num_decoder_layers,
            encoder_attention_heads=self.num_heads,
            decoder_attention_heads=self.num_heads,
            encoder_ffn_dim=self.inner_width,
            decoder_ffn_dim=self.inner_width,
            max_position_embeddings=self.max_tokens,
            dropout=self.dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            use_cache=False,
        )
        with seeded(seed, "initial-weights"):
            network = BartForConditionalGeneration(config)
        answers = Answers(
            yes_id=yes,
            no_id=no,
            decoder_prefix=(2, 0),
            attention_targets=("q_proj", "v_proj"),
            linear_targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        )
        return Recommender(network, tokenizer, answers)
