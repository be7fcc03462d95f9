"""A recommender made of several: one for each shard of the users, and what puts their answers together.

Either every shard has a network of its own, whose logits meet, or all share one network under an adapter each, whose products are
weighted anew for every row. A saved ensemble has a folder for each network, saved as any other; `ensemble.json` says how they meet, and
`combiner.safetensors` holds the tensors that this takes. What members share is in one of these folders only.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from e2urec_core.data.places import ENSEMBLE
from e2urec_core.ops.answers import narrow
from e2urec_core.ops.shards import gate_weights, mean_probability, neighbours_errors, sample_weights, stacked_adapters, weighted
from e2urec_core.reader import AnswerReader
from e2urec_core.recommender import Recommender, load
from e2urec_core.settings import Lora, Settings

COMBINER = "combiner.safetensors"
Aggregation = Literal["nondecomposed", "decomposed"]


class Combining(Settings):
    """How an ensemble's members meet."""

    how: Literal["logits", "probabilities", "gate", "adapters"]
    """Mean of the logits, mean of the probabilities, logits weighted by a gate, or adapters weighted for every row."""
    num_members: int = Field(ge=1)
    """Members, one a shard."""
    aggregation: Aggregation = "nondecomposed"
    """Of adapters: the sum of their products, or the product of their factors' sums."""
    temperature: float = Field(0.0, ge=0)
    """How sharply a row's weights follow its neighbours' errors."""
    num_neighbours: int = Field(1, ge=1)
    """Known prompts that a row is compared with."""
    scale: float = Field(1.0, gt=0)
    """What an adapter's product is multiplied with: alpha / rank."""
    places: tuple[str, ...] = ()
    """Names of the layers that carry adapters, in the order of the adapters."""


class MemberNetworks(torch.nn.Module):
    """A network for each shard, and the gate's weights where a gate weighs them."""

    def __init__(self, members: Sequence[torch.nn.Module], directions: Tensor | None = None, offsets: Tensor | None = None) -> None:
        """Hold `members`; the gate is (shard, width) and (shard,), see `gate_weights`."""
        super().__init__()
        self.members = torch.nn.ModuleList(members)
        self.directions = None if directions is None else torch.nn.Parameter(directions)
        self.offsets = None if offsets is None else torch.nn.Parameter(offsets)


class StackedAdapter(torch.nn.Module):
    """The shards' adapters of one layer."""

    def __init__(self, factors: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Hold the factors A, (rank, width), and B, (out, rank), of each shard."""
        super().__init__()
        self.down = torch.nn.ParameterList([torch.nn.Parameter(down) for down, _ in factors])
        self.up = torch.nn.ParameterList([torch.nn.Parameter(up) for _, up in factors])

    def added(self, inputs: Tensor, weights: Tensor, combining: Combining) -> Tensor:
        """What is added to the layer's outputs; rows may lie flat, token after token."""
        rows = inputs.reshape(len(weights), -1, inputs.shape[-1])
        added = stacked_adapters(rows, torch.stack([*self.down]), torch.stack([*self.up]), weights, combining.aggregation)
        return combining.scale * added.reshape(*inputs.shape[:-1], added.shape[-1])


class AdaptedNetwork(torch.nn.Module):
    """One frozen network, the shards' adapters for some of its layers, and what is known of prompts whose answers are known."""

    def __init__(self, base: torch.nn.Module, adapters: Sequence[StackedAdapter], known: Tensor, errors: Tensor) -> None:
        """Hold them; `known` are the base's hidden states, (prompt, width), `errors` the shards' errors there, (prompt, shard)."""
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapters = torch.nn.ModuleList(adapters)
        self.register_buffer("known", known)
        self.register_buffer("errors", errors)


@dataclass
class Ensemble(Recommender):
    """Several recommenders as one.

    Args:
        combining: How the members meet; `network` holds them.
    """

    combining: Combining

    def reader(self) -> AnswerReader:
        """Runs all members at the answer position; see `AnswerReader`."""
        return AdaptedReader(self) if self.combining.how == "adapters" else MembersReader(self)

    def parts(self) -> dict[str, Recommender]:
        """The recommenders of which it is made, by the name of their folder."""
        if isinstance(self.network, AdaptedNetwork):
            return {"base": self._part(self.network.base)}
        assert isinstance(self.network, MemberNetworks)
        return {f"member-{number}": self._part(member) for number, member in enumerate(self.network.members)}

    def save(self, folder: Path) -> None:
        """Write the ensemble as safetensors and JSON; `folder` must exist."""
        from safetensors.torch import save_file

        for name, part in self.parts().items():
            (folder / name).mkdir()
            part.save(folder / name)
        tensors = {name: each.detach() for name, each in self.network.state_dict().items() if not name.startswith(("members.", "base."))}
        save_file({name: each.cpu().contiguous() for name, each in tensors.items()}, folder / COMBINER)
        (folder / ENSEMBLE).write_text(json.dumps(self.combining.canonical(), sort_keys=True))

    def _part(self, network: torch.nn.Module) -> Recommender:
        return Recommender(network, self.tokenizer, self.answers)


def of_members(members: Sequence[Recommender], how: Literal["logits", "probabilities"]) -> Ensemble:
    """The ensemble of whole networks whose logits or probabilities are averaged."""
    first = members[0]
    network = MemberNetworks([member.network for member in members])
    return Ensemble(network.eval(), first.tokenizer, first.answers, Combining(how=how, num_members=len(members)))


def gated(ensemble: Ensemble, directions: Float[Tensor, "shard width"], offsets: Float[Tensor, " shard"]) -> Ensemble:
    """The same networks with their logits weighted by a gate; see `gate_weights`."""
    assert isinstance(ensemble.network, MemberNetworks)
    network = MemberNetworks([*ensemble.network.members], directions, offsets)
    return dataclasses.replace(ensemble, network=network.eval(), combining=ensemble.combining.model_copy(update={"how": "gate"}))


def of_adapters(
    base: Recommender, adapters: Sequence[Mapping[str, Tensor]], trained: Sequence[bool], lora: Lora, **combining: Any
) -> Ensemble:
    """The ensemble of adapters on one network, which knows no prompts yet; see `Combining` for the other settings.

    Args:
        base: The network, which is taken over and frozen.
        adapters: Of each shard, the weights that peft calls `lora_A` and `lora_B`, by their names there.
        trained: Of each shard, whether its weights count as trained.
        lora: Of every adapter.
    """
    inside, first, second = "base_model.model.", ".lora_A.default.weight", ".lora_B.default.weight"
    places = [name.removeprefix(inside).removesuffix(first) for name in adapters[0] if name.endswith(first)]
    stacked = []
    for place in places:
        names = f"{inside}{place}{first}", f"{inside}{place}{second}"
        stacked.append(StackedAdapter([(weights[names[0]], weights[names[1]]) for weights in adapters]))
        for part in (stacked[-1].down, stacked[-1].up):
            for factor, counts in zip(part, trained, strict=True):
                factor.requires_grad_(counts)
    device, number = next(base.network.parameters()).device, len(adapters)
    network = AdaptedNetwork(base.network, stacked, torch.empty(0, 0), torch.empty(0, number)).to(device)
    how = Combining(how="adapters", num_members=number, scale=lora.alpha / lora.rank, places=tuple(places), **combining)
    return Ensemble(network.eval(), base.tokenizer, base.answers, how)


def load_ensemble(folder: Path, device: torch.device | str) -> Ensemble:
    """The ensemble that `Ensemble.save` wrote into `folder`; nothing in it is unpickled or run."""
    from safetensors.torch import load_file

    combining = Combining.model_validate_json((folder / ENSEMBLE).read_bytes())
    held, network = load_file(folder / COMBINER), torch.nn.Module()
    if combining.how == "adapters":
        first = load(folder / "base", device)
        network = AdaptedNetwork(first.network, [_adapter(held, at, combining) for at in range(len(combining.places))], *_known(held))
    else:
        parts = [load(folder / f"member-{number}", device) for number in range(combining.num_members)]
        first = parts[0]
        network = MemberNetworks([part.network for part in parts], held.get("directions"), held.get("offsets"))
    return Ensemble(network.to(device).eval(), first.tokenizer, first.answers, combining)


def _known(held: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    return held["known"], held["errors"]


def _adapter(held: Mapping[str, Tensor], at: int, combining: Combining) -> StackedAdapter:
    return StackedAdapter([(held[f"adapters.{at}.down.{k}"], held[f"adapters.{at}.up.{k}"]) for k in range(combining.num_members)])


class _EnsembleReader(AnswerReader):
    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__(ensemble.network, ())
        self.combining = ensemble.combining
        self.readers = torch.nn.ModuleList([part.reader() for part in ensemble.parts().values()])

    def forward(
        self,
        token_ids: Int[Tensor, "row token"],
        mask: Bool[Tensor, "row token"],
        support: Int[Tensor, "row kept"] | None = None,
        remainder: str = "none",
        states: Float[Tensor, "row token width"] | None = None,
    ) -> Float[Tensor, "row words"]:
        """See `AnswerReader.forward`."""
        assert states is None, "every member's encoder is run"
        return self.together(token_ids, mask, support, remainder)

    def together(self, token_ids: Tensor, mask: Tensor, support: Tensor | None, remainder: str) -> Tensor:
        """What the members say together, (row, words)."""
        raise NotImplementedError

    def encode(self, token_ids: Int[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row token width"]:
        raise AssertionError("an ensemble's encoders have no states in common")


class MembersReader(_EnsembleReader):
    """The logits of whole networks, put together."""

    def together(self, token_ids: Tensor, mask: Tensor, support: Tensor | None, remainder: str) -> Tensor:
        """See `_EnsembleReader.together`."""
        seen, logits = self.members_say(token_ids, mask)
        if self.combining.how == "gate":
            network: Any = self.network
            met = weighted(logits, gate_weights(seen, network.directions, network.offsets))
        else:
            met = mean_probability(logits) if self.combining.how == "probabilities" else logits.mean(dim=0)
        return met if support is None else narrow(met, support, remainder)

    def members_say(self, token_ids: Tensor, mask: Tensor) -> tuple[Float[Tensor, "row shard width"], Float[Tensor, "shard row vocab"]]:
        """Every member's hidden state at the answer position, and its logits, in 32-bit floats."""
        readers: list[Any] = [*self.readers]
        seen = [reader.state(token_ids, mask).float() for reader in readers]
        logits = [reader.said(state) for reader, state in zip(readers, seen, strict=True)]
        return torch.stack(seen, dim=1), torch.stack(logits)


class AdaptedReader(_EnsembleReader):
    """One network under all adapters at once, weighted row by row."""

    def together(self, token_ids: Tensor, mask: Tensor, support: Tensor | None, remainder: str) -> Tensor:
        """See `_EnsembleReader.together`. The bare network is run first: from what it makes of a row come the row's weights."""
        return self.under(self.weights(self.state(token_ids, mask)), token_ids, mask, support, remainder)

    def state(self, token_ids: Tensor, mask: Tensor, states: Tensor | None = None) -> Float[Tensor, "row width"]:
        """What the bare network makes of the prompts; see `AnswerReader.state`."""
        base: Any = self.readers[0]
        state: Tensor = base.state(token_ids, mask, states)
        return state

    def weights(self, states: Float[Tensor, "row width"]) -> Float[Tensor, "row shard"]:
        """Weights of the adapters for rows of which the bare network makes `states`."""
        network: Any = self.network
        errors = neighbours_errors(states, network.known, network.errors, self.combining.num_neighbours)
        return sample_weights(errors, self.combining.temperature)

    def under(self, weights: Float[Tensor, "row shard"], *read: Any) -> Float[Tensor, "row words"]:
        """What the network says under adapters of the given weights; `read` as for `AnswerReader.forward`."""
        with self._adding(weights):
            said: Tensor = self.readers[0](*read)
        return said

    @contextmanager
    def _adding(self, weights: Tensor) -> Iterator[None]:
        network: Any = self.network

        def hook(adapter: StackedAdapter) -> Any:
            return lambda layer, inputs, outputs: outputs + adapter.added(inputs[0], weights, self.combining)

        layers = zip(self.combining.places, network.adapters, strict=True)
        hooks = [network.base.get_submodule(place).register_forward_hook(hook(adapter)) for place, adapter in layers]
        try:
            yield
        finally:
            for each in hooks:
                each.remove()
