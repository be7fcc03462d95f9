"""One network that answers Yes or No to prompts, with everything it needs to be used again: weights, tokenizer, answer facts.

A saved recommender is a folder of safetensors and JSON: `config.json` and `model.safetensors` as transformers writes them,
`tokenizer.json`, and `answers.json` with the answer ids and the decoder's prefix.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from e2urec_core.data.batches import Batch, Prompts, tokenise
from e2urec_core.data.places import ENSEMBLE, TOKENIZER
from e2urec_core.data.tokens import load_tokenizer
from e2urec_core.errors import BadSetting
from e2urec_core.ops.answers import yes_probability
from e2urec_core.reader import AnswerReader, NextTokenReader
from e2urec_core.seeding import seeded
from e2urec_core.settings import Lora, Settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ANSWERS = "answers.json"
# Most tokens of one forward pass without gradients, padding included.
SCORED_TOKENS = 4096


class Answers(Settings):
    """Where and how a network answers."""

    yes_id: int
    """Token id of the answer Yes."""
    no_id: int
    """Token id of the answer No."""
    decoder_prefix: tuple[int, ...]
    """Token ids the decoder is given; the answer is read after the last of them. None where the answer follows the prompt itself."""
    attention_targets: tuple[str, ...]
    """Names of the query and value projections, which carry the paper's adapters."""
    linear_targets: tuple[str, ...]
    """Names of every linear layer of the blocks."""


@dataclass
class Recommender:
    """A network with its tokenizer and answer facts.

    Args:
        network: Network of transformers, with or without an adapter.
        tokenizer: Fast tokenizer.
        answers: Where and how the network answers.
    """

    network: torch.nn.Module
    tokenizer: Tokenizer
    answers: Answers

    def reader(self) -> AnswerReader:
        """Runs the network at the answer position alone."""
        prefix = self.answers.decoder_prefix
        return AnswerReader(self.network, prefix) if prefix else NextTokenReader(self.network)

    def logits(self, batch: Batch) -> Float[Tensor, "row vocab"]:
        """Outputs at the answer position, with gradients where the network has them."""
        outputs: Tensor = self.reader().to(batch.token_ids.device)(batch.token_ids, batch.mask)
        return outputs

    def answer_ids(self, batch: Batch) -> Tensor:
        """Token id of the right answer of each row."""
        return torch.where(batch.labels == 1, self.answers.yes_id, self.answers.no_id)

    def prompts(self, example_ids: numpy.ndarray, labels: numpy.ndarray, texts: list[str]) -> Prompts:
        """Tokenise `texts` with this recommender's tokenizer."""
        return tokenise(self.tokenizer, example_ids, labels, texts)

    def score(self, prompts: Prompts, token_budget: int = SCORED_TOKENS, each: Callable[[int], None] = lambda rows: None) -> numpy.ndarray:
        """p(Yes) of every prompt, float64, in the prompts' order; `each` is told how many rows were scored.

        For rows that fit in memory on one device; see `scoring.py` for more.
        """
        device = next(self.network.parameters()).device
        scores = numpy.empty(len(prompts))
        reader, pair = self.reader().to(device), torch.tensor([[self.answers.yes_id, self.answers.no_id]], device=device)
        self.network.eval()
        with torch.inference_mode():
            for batch in prompts.in_order(token_budget):
                there = batch.to(device)
                logits = reader(there.token_ids, there.mask, pair.expand(len(batch.labels), 2))
                scores[batch.index.numpy()] = yes_probability(logits).cpu().numpy()
                each(len(batch.labels))
        return scores

    def with_adapter(self, lora: Lora, seed: int) -> Recommender:
        """A copy whose only trainable weights are a fresh adapter drawn from the seed; this recommender is left as it is.

        Raises:
            BadSetting: The adapter is for the decoder alone, and there is no encoder beside it.
        """
        from peft import LoraConfig, get_peft_model
        from transformers.pytorch_utils import Conv1D

        if lora.layers == "decoder" and not self.answers.decoder_prefix:
            raise BadSetting("`lora.layers decoder` is refused: this network has no encoder", hint="take `lora.layers all`")
        targets = self.answers.attention_targets if lora.targets == "attention" else self.answers.linear_targets
        blocks = r".*\bdecoder\.(?:.*\.)?" if lora.layers == "decoder" else r"(?:.*\.)?"
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=f"{blocks}(?:{'|'.join(targets)})",
            bias="none",
            # GPT-2 keeps its linear layers the other way round.
            fan_in_fan_out=any(
                isinstance(layer, Conv1D) for name, layer in self.network.named_modules() if name.rsplit(".")[-1] in targets
            ),
        )
        with seeded(seed, "adapter-weights"):
            network = get_peft_model(copy.deepcopy(self.network), config)
        return Recommender(network, self.tokenizer, self.answers)

    @property
    def has_adapter(self) -> bool:
        """Whether the network carries an adapter that can be switched off."""
        return hasattr(self.network, "peft_config")

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter alone, as peft does: safetensors and JSON, without the weights it sits on."""
        network: Any = self.network
        for config in network.peft_config.values():
            config.base_model_name_or_path = None
        network.save_pretrained(folder, safe_serialization=True)
        # peft adds a model card that names the base by its path.
        (folder / "README.md").unlink(missing_ok=True)

    def merged(self) -> Recommender:
        """A copy with the adapter folded into the weights, so that it cannot be switched off; without an adapter, the same."""
        if not self.has_adapter:
            return self
        return Recommender(copy.deepcopy(self.network).merge_and_unload(), self.tokenizer, self.answers)  # type: ignore[operator]

    def trainable(self) -> Recommender:
        """A copy all of whose weights may change."""
        return dataclasses.replace(self, network=copy.deepcopy(self.network).requires_grad_(True))

    def count(self) -> dict[str, int]:
        """Numbers of weights: `trainable_parameters` and `total_parameters`."""
        weights = list(self.network.parameters())
        return {
            "trainable_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
            "total_parameters": sum(weight.numel() for weight in weights),
        }

    def save(self, folder: Path) -> None:
        """Write the recommender as safetensors and JSON; `folder` must exist. An adapter must be merged first."""
        from transformers.utils import logging

        logging.disable_progress_bar()
        network: Any = self.network
        assert not self.has_adapter, "merge the adapter before saving: its base is the model that still remembers"
        # One file of weights, whatever its size: what others name and hash.
        network.save_pretrained(folder, safe_serialization=True, max_shard_size="1000TB")
        (folder / TOKENIZER).write_text(self.tokenizer.to_str())
        (folder / ANSWERS).write_text(json.dumps(self.answers.canonical(), sort_keys=True))


def load(folder: Path, device: torch.device | str = "cpu") -> Recommender:
    """The recommender that `save` wrote into `folder`; nothing in it is unpickled or run."""
    if (folder / ENSEMBLE).is_file():
        from e2urec_core.ensemble import load_ensemble

        return load_ensemble(folder, device)
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    network = auto.from_pretrained(
        folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    )
    # Where the weights were read from is no business of what is made of them.
    network.name_or_path = network.config._name_or_path = ""
    answers = Answers.model_validate_json((folder / ANSWERS).read_bytes())
    return Recommender(network.to(device).eval(), load_tokenizer(folder), answers)
