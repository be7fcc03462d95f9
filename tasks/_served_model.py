"""The recommender as MLflow serves it: a model made from code, which reads safetensors and JSON and needs nothing of this project.

The file is copied beside the weights when a model is logged, so it imports only published packages. MLflow reads type hints of
`predict` as the model's signature, so there are none: the signature is logged beside it.
"""

import json
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

BATCH_SIZE = 64


class Recommender(PythonModel):
    """p(Yes) for prompts: a frame with the column `prompt` in, one number a row out."""

    def load_context(self, context):
        folder = Path(context.artifacts["bundle"])
        self.answers = json.loads((folder / "answers.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        self.network = auto.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        ).eval()

    def predict(self, context, model_input, params=None):
        prompts = list(model_input["prompt"])
        encoded = [row.ids for row in self.tokenizer.encode_batch_fast(prompts)]
        scores = np.empty(len(encoded))
        pair = [self.answers["yes_id"], self.answers["no_id"]]
        order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_SIZE):
                places = order[start : start + BATCH_SIZE]
                longest = max(len(encoded[place]) for place in places)
                ids = torch.tensor([encoded[place] + [0] * (longest - len(encoded[place])) for place in places])
                mask = torch.tensor([[1] * len(encoded[place]) + [0] * (longest - len(encoded[place])) for place in places])
                logits = self.logits(ids, mask)[:, pair]
                scores[places] = torch.sigmoid(logits[:, 0].double() - logits[:, 1].double()).numpy()
        return scores

    def logits(self, ids, mask):
        """What the network says at the answer position, (row, word)."""
        prefix = self.answers["decoder_prefix"]
        if prefix:
            given = torch.tensor([prefix]).expand(len(ids), -1)
            return self.network(input_ids=ids, attention_mask=mask, decoder_input_ids=given, use_cache=False).logits[:, -1]
        # Without a decoder apart, the answer follows each prompt's last token.
        hidden = self.network.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return self.network.get_output_embeddings()(hidden[torch.arange(len(ids)), mask.sum(dim=1) - 1])


mlflow.models.set_model(Recommender())
