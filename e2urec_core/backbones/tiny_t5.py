"""A small T5 from random weights, with a tokenizer trained on the training prompts.

Source: the architecture of T5 (Raffel et al., 2020) in transformers, far smaller than its smallest published size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from e2urec_core.backbones.base import TinyBackbone, answer_ids, train_tokenizer
from e2urec_core.seeding import seeded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from e2urec_core.recommender import Recommender


class TinyT5(TinyBackbone):
    """Encoder-decoder with relative positions; the answer is the decoder's first output."""

    kind: Literal["tiny_t5"] = "tiny_t5"
    """Name of the backbone."""

    def tokenizer(self, prompts: Iterable[str]) -> Tokenizer:
        """See `Backbone.tokenizer`."""
        return train_tokenizer(prompts, self.vocabulary, ("<pad>", "</s>", "<unk>"), "$A </s>", self.max_tokens)

    def build(self, tokenizer: Tokenizer, seed: int) -> Recommender:
        """See `Backbone.build`."""
        from transformers import T5Config, T5ForConditionalGeneration

        from e2urec_core.recommender import Answers, Recommender

        yes, no = answer_ids(tokenizer)
        config = T5Config(
            vocab_size=tokenizer.get_vocab_size(),
            d_model=self.width,
            d_kv=max(8, self.width // self.num_heads),
            d_ff=self.inner_width,
            num_layers=self.num_layers,
            num_decoder_layers=self.num_decoder_layers,
            num_heads=self.num_heads,
            dropout_rate=self.dropout,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
            use_cache=False,
        )
        with seeded(seed, "initial-weights"):
            network = T5ForConditionalGeneration(config)
        answers = Answers(
            yes_id=yes,
            no_id=no,
            decoder_prefix=(0,),
            attention_targets=("q", "v"),
            linear_targets=("q", "k", "v", "o", "wi", "wo"),
        )
        return Recommender(network, tokenizer, answers)
