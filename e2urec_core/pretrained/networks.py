"""Opens a checkpoint's network as transformers knows it, finds the layers that adapters go on, and tries out that it answers as we read it.

No code of a checkpoint is run, and no weight may be missing: what transformers would draw at random in its place is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from e2urec_core.errors import BadBackbone, BadInput, BadSetting
from e2urec_core.pretrained.folders import CONFIG, read_json, weights_of
from e2urec_core.seeding import seeded

if TYPE_CHECKING:
    from e2urec_core.recommender import Recommender

# Names of the longest input that a network has positions for.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
# Logits are the same where they differ by this share of their spread: kernels sum in different orders.
SAME = 1e-3
# The same kernels on the same shapes: what differs by more has seen the other token.
UNSEEN = 1e-5


def config_of(folder: Path, *, encoder: bool, model_types: Sequence[str], word: str) -> Any:
    """The configuration of a checkpoint.

    Args:
        folder: Of the checkpoint.
        encoder: Whether an encoder-decoder is wanted.
        model_types: Architectures that are wanted; none for all.
        word: The backbone, as the command spells it.

    Raises:
        BadInput: It cannot be read.
        BadBackbone: It is another architecture, one that transformers does not know, or its weights are quantised.
    """
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoConfig

    told = read_json(folder / CONFIG)
    kind = told.get("model_type")
    if kind not in CONFIG_MAPPING:
        more = ": it comes with code of its own (`auto_map`), which is never run" if "auto_map" in told else ""
        raise BadBackbone(f"transformers does not know the architecture `{kind}`{more}", hint="take a checkpoint of a known architecture")
    if "quantization_config" in told:
        raise BadBackbone("the checkpoint's weights are quantised and cannot be trained", hint="take the checkpoint it was made of")
    if model_types and kind not in model_types:
        raise BadBackbone(f"`{word}` reads {', '.join(model_types)}, and the checkpoint is `{kind}`", hint=_hint_for(kind))
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # Each architecture checks its own fields, with errors of its own.
        raise BadInput(f"`{CONFIG}` of the checkpoint is refused: {_first_line(error)}", hint="fetch the checkpoint again") from None
    known = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if encoder else MODEL_FOR_CAUSAL_LM_MAPPING
    if bool(config.is_encoder_decoder) != encoder or type(config) not in known:
        wanted = "with an encoder and a decoder" if encoder else "that say the next word"
        raise BadBackbone(f"`{word}` reads networks {wanted}, and the checkpoint is `{kind}`", hint=_hint_for(kind))
    if not isinstance(getattr(config, "vocab_size", None), int):
        raise BadBackbone(f"the architecture `{kind}` reads more than text", hint="take the checkpoint of its text part alone")
    if getattr(config, "final_logit_softcapping", None):
        # Far below the cap its effect is too small to be found by trying.
        raise BadBackbone(f"`{kind}` caps its logits after its output layer", hint="take a checkpoint of another architecture")
    return config


def refuse_too_long(config: Any, max_tokens: int) -> None:
    """Make sure that the longest prompt has positions.

    Raises:
        BadSetting: It has not.
    """
    found = [getattr(config, name, None) for name in POSITIONS]
    longest = min((length for length in found if isinstance(length, int) and length > 0), default=max_tokens)
    if max_tokens > longest:
        raise BadSetting(
            f"`--backbone.max-tokens {max_tokens}` is refused: the checkpoint has {longest:,} positions",
            hint=f"`--backbone.max-tokens {longest}`",
        )


def set_dropout(config: Any, names: Sequence[tuple[str, ...]], share: float | None) -> None:
    """Set the first group of dropouts that the architecture has.

    Raises:
        BadSetting: It has none.
    """
    if share is None:
        return
    group = next((group for group in names if any(hasattr(config, name) for name in group)), ())
    if not group and share:
        raise BadSetting(
            f"`--backbone.dropout {share}` is refused: the architecture `{config.model_type}` has no dropout", hint="leave it out"
        )
    for name in group:
        if hasattr(config, name):
            setattr(config, name, share)


def open_network(folder: Path, config: Any, seed: int) -> torch.nn.Module:
    """The network of a checkpoint, in 32-bit floats on the CPU.

    Raises:
        BadInput: The weights cannot be read.
        BadBackbone: Weights are missing, or transformers has no such network with an output over words.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    weights_of(folder)
    config.use_cache = False
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    how = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32}
    try:
        with seeded(seed, "initial-weights"):
            network, told = auto.from_pretrained(folder, config=config, output_loading_info=True, **how)
    except Exception as error:
        # Of transformers, safetensors and each architecture's own.
        raise BadInput(f"the checkpoint's weights are refused: {_first_line(error)}", hint="fetch the checkpoint again") from None
    finally:
        logging.set_verbosity(before)
    missing = sorted(told["missing_keys"])
    if missing:
        raise BadBackbone(
            f"the checkpoint lacks {len(missing)} weights of `{type(network).__name__}`, the first is `{missing[0]}`",
            hint="take a checkpoint that was trained to write text",
        )
    # Where the weights were read from is no business of what is made of them, and nothing is generated here.
    network.name_or_path = network.config._name_or_path = ""
    network.generation_config = GenerationConfig()
    opened: torch.nn.Module = network
    return opened


def adapter_targets(network: Any, attention: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the query and value projections, and of every linear layer of the blocks.

    Args:
        network: Of transformers.
        attention: What the projections may be called; the first group that is there is taken.

    Raises:
        BadBackbone: None of them is there.
    """
    from transformers.pytorch_utils import Conv1D

    head = network.get_output_embeddings()
    found: dict[str, None] = {}
    for name, module in network.named_modules():
        *path, last = name.split(".")
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head and any(part.isdigit() for part in path):
            found[last] = None
    for group in attention:
        if all(name in found for name in group):
            return group, tuple(found)
    raise BadBackbone(
        f"none of {len(attention)} known names of query and value projections is in `{type(network).__name__}`",
        facts={"looked for": "; ".join(" ".join(group) for group in attention), "linear layers": " ".join(found) or "none"},
        hint="take a checkpoint of another architecture",
    )


def try_out(recommender: Recommender) -> None:
    """Make sure that what we read is what the network itself says, and that it never looks ahead of the answer.

    Raises:
        BadBackbone: It does something with its logits, or with its input, that reading the answer alone leaves out.
    """
    network: Any = recommender.network
    yes, no = recommender.answers.yes_id, recommender.answers.no_id
    prefix = recommender.answers.decoder_prefix
    ids = torch.tensor([[yes, no, yes]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    more = {"decoder_input_ids": torch.tensor([prefix])} if prefix else {}
    network.eval()
    with torch.inference_mode():
        own = network(input_ids=ids, attention_mask=mask.long(), use_cache=False, **more).logits
        if not prefix:
            later = network(input_ids=torch.tensor([[yes, no, no]]), attention_mask=mask.long(), use_cache=False).logits
            if not _same(later[:, 1], own[:, 1], UNSEEN):
                raise BadBackbone(f"`{type(network).__name__}` looks ahead, so it does not say what comes next", hint=_hint_for(None))
        if not _same(recommender.reader()(ids, mask), own[:, -1]):
            raise BadBackbone(
                f"`{type(network).__name__}` changes its logits after its output layer, which reading the answer alone leaves out",
                hint="take a checkpoint of another architecture",
            )


def _same(one: torch.Tensor, other: torch.Tensor, share: float = SAME) -> bool:
    return bool((one - other).abs().max() <= share * max(float(other.abs().max()), 1e-3))


def _hint_for(kind: str | None) -> str:
    known = {"t5": "t5", "mt5": "t5", "umt5": "t5", "bart": "bart"}
    return f"take the backbone `{known[kind]}`" if kind in known else "`causal-lm` takes networks that say the next word, such as Llama"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
