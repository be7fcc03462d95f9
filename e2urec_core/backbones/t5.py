"""A published T5 or Flan-T5 with its own tokenizer.

Source: Raffel et al., 2020, and Chung et al., 2022; the network is that of transformers.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from e2urec_core.backbones.base import CheckpointBackbone


class T5(CheckpointBackbone):
    """Encoder-decoder with relative positions; the answer is the decoder's first output."""

    model_types: ClassVar[tuple[str, ...]] = ("t5", "mt5", "umt5")
    # Its published `n_positions` is what it was trained on; positions are relative.
    has_longest_input: ClassVar[bool] = False
    dropouts: ClassVar[tuple[tuple[str, ...], ...]] = (("dropout_rate",),)
    projections: ClassVar[tuple[tuple[str, ...], ...]] = (("q", "v"),)

    kind: Literal["t5"] = "t5"
    """Name of the backbone."""
