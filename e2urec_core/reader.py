"""Runs a network at the answer position alone: one position a row, and only the words that are asked for.

The networks are those of transformers, with or without an adapter of peft; nothing of them is changed.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from e2urec_core.errors import BadSetting
from e2urec_core.ops.answers import some_words


class AnswerReader(torch.nn.Module):
    """A network's outputs at the answer position."""

    def __init__(self, network: torch.nn.Module, prefix: tuple[int, ...]) -> None:
        """Read `network`, whose decoder is given `prefix`; the answer stands after its last token."""
        super().__init__()
        self.network = network
        self.register_buffer("prefix", torch.tensor([prefix]), persistent=False)

    def forward(
        self,
        token_ids: Int[Tensor, "row token"],
        mask: Bool[Tensor, "row token"],
        support: Int[Tensor, "row kept"] | None = None,
        remainder: str = "none",
        states: Float[Tensor, "row token width"] | None = None,
    ) -> Float[Tensor, "row words"]:
        """Logits of every word, or of those in `support` and what all others weigh together; see `some_words`.

        With `states`, what `encode` gave before, the encoder is not run.
        """
        return self.said(self.state(token_ids, mask, states), support, remainder)

    def state(
        self,
        token_ids: Int[Tensor, "row token"],
        mask: Bool[Tensor, "row token"],
        states: Float[Tensor, "row token width"] | None = None,
    ) -> Float[Tensor, "row width"]:
        """What the last layer gives at the answer position: what the logits are read off, and what the network makes of a prompt."""
        base, attention = self._base, mask.to(torch.int64)
        states = self.encode(token_ids, mask) if states is None else states
        given: Tensor = self.prefix.expand(len(states), -1)  # type: ignore[operator]
        decoded = base.get_decoder()(
            input_ids=given, encoder_hidden_states=states, encoder_attention_mask=attention, use_cache=False
        ).last_hidden_state[:, -1]
        if getattr(base.config, "scale_decoder_outputs", False):
            decoded = decoded * base.config.d_model**-0.5
        there: Tensor = decoded
        return there

    def encode(self, token_ids: Int[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row token width"]:
        """What the encoder gives for every token."""
        states: Tensor = self._base.get_encoder()(input_ids=token_ids, attention_mask=mask.to(torch.int64)).last_hidden_state
        return states

    def said(
        self, decoded: Float[Tensor, "row width"], support: Int[Tensor, "row kept"] | None = None, remainder: str = "none"
    ) -> Float[Tensor, "row words"]:
        """Logits that are read off `state`; see `forward`."""
        words, bias = self._base.get_output_embeddings().weight, self._bias
        # One position a row is cheap in 32 bits, and 16 would round p(Yes) in its second digit.
        with torch.autocast(decoded.device.type, enabled=False):
            if support is not None:
                return some_words(decoded.float(), words.float(), None if bias is None else bias.reshape(-1).float(), support, remainder)
            logits: Tensor = decoded.float() @ words.float().T
            return logits if bias is None else logits + bias

    @property
    def _bias(self) -> Tensor | None:
        bias: Tensor | None = getattr(self._base, "final_logits_bias", None)
        return bias

    @property
    def _base(self) -> Any:
        network: Any = self.network
        return network.get_base_model() if hasattr(network, "peft_config") else network


class NextTokenReader(AnswerReader):
    """A network without an encoder: the answer is what follows each row's last token."""

    def __init__(self, network: torch.nn.Module) -> None:
        """Read `network`; there is no decoder to give anything to."""
        super().__init__(network, ())

    def state(
        self,
        token_ids: Int[Tensor, "row token"],
        mask: Bool[Tensor, "row token"],
        states: Float[Tensor, "row token width"] | None = None,
    ) -> Float[Tensor, "row width"]:
        """See `AnswerReader.state`.

        Rows are padded at the end, so every token stands at its own position, and none looks ahead to the padding.
        """
        assert states is None, "there is no encoder whose states could be given"
        base = self._base
        hidden = base.base_model(input_ids=token_ids, attention_mask=mask.to(torch.int64), use_cache=False).last_hidden_state
        last: Tensor = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
        return last

    @property
    def _bias(self) -> Tensor | None:
        bias: Tensor | None = getattr(self._base.get_output_embeddings(), "bias", None)
        return bias

    def encode(self, token_ids: Int[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row token width"]:
        """Refused: there is no encoder.

        Raises:
            BadSetting: Always.
        """
        raise BadSetting("`--cache.encoder-states true` is refused: this network has no encoder", hint="leave it out")
