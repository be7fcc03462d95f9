"""Ensembles of the smallest networks, untrained but far from doing nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch

from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.ensemble import Aggregation, Ensemble, gated, of_adapters, of_members
from e2urec_core.methods.apa import Apa
from e2urec_core.recommender import Recommender
from e2urec_core.settings import Lora
from e2urec_core.sharding.training import taken

Build = Callable[..., Recommender]


def whole(build_tiny: Build, how: str, variant: str = "tiny_t5") -> Ensemble:
    members = [build_tiny(variant, seed) for seed in (1, 2, 3)]
    if how != "gate":
        return of_members(members, how)  # type: ignore[arg-type]
    random = torch.Generator().manual_seed(5)
    return gated(of_members(members, "logits"), torch.randn(3, 16, generator=random), torch.randn(3, generator=random))


def adapted(
    build_tiny: Build,
    rows: Prompts,
    bench: Bench,
    variant: str = "tiny_t5",
    aggregation: Aggregation = "nondecomposed",
    targets: str = "all_linear",
) -> Ensemble:
    """Three adapters that were moved off their beginnings, on one network."""
    base, lora = build_tiny(variant, 1), Lora(rank=2, alpha=6, targets=targets)  # type: ignore[arg-type]
    adapters = []
    for seed in (1, 2, 3):
        student, random = base.with_adapter(lora, seed), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in student.network.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.randn(weight.shape, generator=random))
        adapters.append(taken(student))
    method = Apa(num_shards=3, lora=lora, aggregation=aggregation, temperature=20, num_neighbours=3)
    knobs = {"aggregation": aggregation, "temperature": 20.0, "num_neighbours": 3}
    ensemble = of_adapters(base, adapters, [True, False, True], lora, **knobs)
    method.learn(ensemble, rows, bench)
    return ensemble
