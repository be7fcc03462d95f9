"""A published BART with its own tokenizer.

Source: Lewis et al., 2020; the network is that of transformers.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from e2urec_core.backbones.base import CheckpointBackbone


class Bart(CheckpointBackbone):
    """Encoder-decoder with learned positions; targets begin with `<s>`, so the answer is the decoder's second output."""

    model_types: ClassVar[tuple[str, ...]] = ("bart",)
    dropouts: ClassVar[tuple[tuple[str, ...], ...]] = (("dropout",),)
    projections: ClassVar[tuple[tuple[str, ...], ...]] = (("q_proj", "v_proj"),)

    kind: Literal["bart"] = "bart"
    """Name of the backbone."""
