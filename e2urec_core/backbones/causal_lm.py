"""A published network without an encoder, such as Llama, Qwen or GPT-2, with its own tokenizer.

The answer is the next token after the prompt; chat templates are not used.

Source: Radford et al., 2019; Touvron et al., 2023; the networks are those of transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from e2urec_core.backbones.base import NO, YES, CheckpointBackbone
from e2urec_core.errors import BadBackbone

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class CausalLm(CheckpointBackbone):
    """Network that says what comes next; the answer follows the prompt's last token."""

    has_encoder: ClassVar[bool] = False
    dropouts: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("resid_pdrop", "embd_pdrop"),
        ("hidden_dropout",),
        ("dropout",),
        ("attention_dropout",),
    )
    # Some architectures keep query, key and value in one layer, which then carries the adapter as a whole.
    projections: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("q_proj", "v_proj"),
        ("c_attn",),
        ("query_key_value",),
        ("qkv_proj",),
        ("Wqkv",),
        ("query", "value"),
    )

    kind: Literal["causal_lm"] = "causal_lm"
    """Name of the backbone."""

    def answers_of(self, tokenizer: Tokenizer) -> tuple[int, int]:
        """Token ids of Yes and of No where they go on from a prompt.

        Raises:
            BadBackbone: An answer is not one token, both are the same one, or the tokenizer ends every prompt with a token of its own.
        """
        from e2urec_core.pretrained.words import choose_answers, frame, next_spellings

        closing = frame(tokenizer)[1]
        if closing:
            raise BadBackbone(
                f"the tokenizer ends every prompt with `{tokenizer.id_to_token(closing[0])}`, so that no answer follows the prompt",
                hint="take a checkpoint whose tokenizer leaves the end of a text open",
            )
        return choose_answers(tokenizer, next_spellings(tokenizer), (YES, NO))

    def prefix_of(self, tokenizer: Tokenizer, config: Any) -> tuple[int, ...]:
        """Nothing: there is no decoder apart."""
        return ()
