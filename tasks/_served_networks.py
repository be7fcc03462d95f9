"""The networks of a released recommender, read from safetensors and JSON: token ids in, p(Yes) out.

The file is copied beside the weights and loaded by the served model, so it imports only published packages. It says again what
`recommender.py`, `reader.py` and `ensemble.py` of the core say, for scoring alone; tests hold the two against each other.
"""

import json
import threading
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

# Most tokens of one forward pass, padding included.
SCORED_TOKENS = 4096


def open_scorer(folder):
    """What scores prompts: the network in `folder`, or the ensemble of those in its folders."""
    if not (folder / "ensemble.json").is_file():
        return Alone(folder)
    combining = json.loads((folder / "ensemble.json").read_text())
    return (Adapters if combining["how"] == "adapters" else Members)(folder, combining)


def first_part(folder):
    """The folder that holds the tokenizer: the network's own, or that of an ensemble's first network."""
    return next(Path(folder) / name for name in ("", "base", "member-0") if (Path(folder) / name / "tokenizer.json").is_file())


class Network:
    """One network at its answer position."""

    def __init__(self, folder):
        """Read what `Recommender.save` wrote into `folder`."""
        answers = json.loads((folder / "answers.json").read_text())
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        self.network = auto.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        ).eval()
        self.answers = torch.tensor([answers["yes_id"], answers["no_id"]])
        self.prefix = answers["decoder_prefix"]
        head = self.network.get_output_embeddings()
        bias = getattr(self.network, "final_logits_bias", None) if self.prefix else getattr(head, "bias", None)
        self.words, self.bias = head.weight, torch.zeros(len(head.weight)) if bias is None else bias.reshape(-1)

    def state(self, ids, mask):
        """What the last layer gives at the answer position, (row, width)."""
        if not self.prefix:
            # Without a decoder apart, the answer follows each prompt's last token.
            hidden = self.network.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            return hidden[torch.arange(len(ids)), mask.sum(dim=1) - 1]
        encoded = self.network.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        given = torch.tensor([self.prefix]).expand(len(ids), -1)
        decoded = self.network.get_decoder()(
            input_ids=given, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state[:, -1]
        config = self.network.config
        return decoded * config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else decoded

    def answered(self, state):
        """Logits of Yes and No, (row, 2): no other word's are computed."""
        return state @ self.words[self.answers].T + self.bias[self.answers]

    def said(self, state):
        """Logits of every word, (row, word)."""
        return state @ self.words.T + self.bias


class Scorer:
    """Scores prompts in batches of near length; subclasses say what Yes and No weigh."""

    def scores(self, rows):
        """p(Yes) of each of `rows`, which are token ids; float64."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        order, scores, start = np.argsort(-lengths, kind="stable"), np.empty(len(rows)), 0
        with torch.inference_mode():
            while start < len(order):
                longest = int(lengths[order[start]])
                places = order[start : start + max(1, SCORED_TOKENS // longest)]
                ids = np.zeros((len(places), longest), dtype=np.int64)
                for line, place in zip(ids, places, strict=True):
                    line[: lengths[place]] = rows[place]
                mask = torch.from_numpy((np.arange(longest) < lengths[places][:, None]).astype(np.int64))
                yes, no = self.logits(torch.from_numpy(ids), mask).double().T
                scores[places] = torch.sigmoid(yes - no).numpy()
                start += len(places)
        return scores

    def logits(self, ids, mask):
        """What Yes and No weigh, (row, 2)."""
        raise NotImplementedError


class Alone(Scorer):
    """One network."""

    def __init__(self, folder):
        """Read the network in `folder`."""
        self.network = Network(folder)

    def logits(self, ids, mask):
        """See `Scorer.logits`."""
        return self.network.answered(self.network.state(ids, mask))


class Members(Scorer):
    """A network for each shard, whose logits or probabilities are averaged or whose logits are weighted by a gate."""

    def __init__(self, folder, combining):
        """Read the networks in the folders `member-0`, `member-1`, ..."""
        self.how = combining["how"]
        self.members = [Network(folder / f"member-{number}") for number in range(combining["num_members"])]
        self.held = load_file(folder / "combiner.safetensors")

    def logits(self, ids, mask):
        """See `Scorer.logits`."""
        states = [member.state(ids, mask) for member in self.members]
        pairs = list(zip(self.members, states, strict=True))
        if self.how == "probabilities":
            shares = torch.stack([member.said(state).log_softmax(dim=1)[:, member.answers] for member, state in pairs])
            return shares.logsumexp(dim=0)
        answered = torch.stack([member.answered(state) for member, state in pairs])
        if self.how == "logits":
            return answered.mean(dim=0)
        reach = torch.einsum("nkw,kw->nk", torch.stack(states, dim=1), self.held["directions"]) + self.held["offsets"]
        return torch.einsum("kna,nk->na", answered, reach.softmax(dim=1))


class Adapters(Scorer):
    """One network under an adapter of each shard, weighted anew for every row by how the shards do on prompts like it."""

    def __init__(self, folder, combining):
        """Read the network in the folder `base`, and hang the adapters on its layers for good."""
        self.network, self.combining = Network(folder / "base"), combining
        held = load_file(folder / "combiner.safetensors")
        self.known, self.errors = torch.nn.functional.normalize(held["known"], dim=1), held["errors"]
        # A server answers several requests at once: each of its threads has weights of its own.
        self.now = threading.local()
        for number, place in enumerate(combining["places"]):
            down, up = (
                torch.stack([held[f"adapters.{number}.{side}.{shard}"] for shard in range(combining["num_members"])])
                for side in ("down", "up")
            )
            self.network.network.get_submodule(place).register_forward_hook(self.hook(down, up))

    def hook(self, down, up):
        """What adds a layer's adapters, (shard, rank, width) and (shard, out, rank), to its outputs."""

        def add(_, inputs, outputs):
            weights = getattr(self.now, "weights", None)
            if weights is None:
                return outputs
            rows = inputs[0].reshape(len(weights), -1, inputs[0].shape[-1])
            low = torch.einsum("ntw,krw->ntkr", rows, down) * weights[:, None, :, None]
            if self.combining["aggregation"] == "decomposed":
                low = low.sum(dim=2, keepdim=True) * weights[:, None, :, None]
            return outputs + self.combining["scale"] * torch.einsum("ntkr,kor->nto", low, up).reshape(outputs.shape)

        return add

    def logits(self, ids, mask):
        """See `Scorer.logits`. The bare network is run first: from what it makes of a row come the row's weights."""
        cosines = torch.nn.functional.normalize(self.network.state(ids, mask), dim=1) @ self.known.T
        nearest = cosines.topk(min(self.combining["num_neighbours"], len(self.known)), dim=1).indices
        self.now.weights = (-self.combining["temperature"] * self.errors[nearest].mean(dim=1)).softmax(dim=1)
        try:
            return self.network.answered(self.network.state(ids, mask))
        finally:
            self.now.weights = None
