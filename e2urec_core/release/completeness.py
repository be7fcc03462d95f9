"""The gates on what is released: that the stored candidate is whole, is the one that was evaluated, and was made from sound data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy
import torch
from safetensors import SafetensorError, safe_open

from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.recommender import load
from e2urec_core.release.evidence import CANDIDATE, FORGOTTEN, TEST, Evidence
from e2urec_core.release.gates import CompletenessGates, ContractGates, Handed
from e2urec_core.release.verdict import Gate, shown
from e2urec_core.scoring import yes_probabilities
from e2urec_core.seeding import numpy_generator

PROBED = (TEST, FORGOTTEN)


def completeness_gates(
    candidate: Path | None, evidence: Evidence, rows: Mapping[str, Prompts], rule: CompletenessGates, handed: Handed, bench: Bench
) -> list[Gate]:
    """Whether the stored candidate is whole and answers as it did.

    Args:
        candidate: Its folder; None where its bytes are damaged, as nothing is read from it then.
        evidence: What it answered when it was evaluated.
        rows: The rows, by group.
        rule: The bounds.
        handed: How many artifacts are damaged.
        bench: Seed and device.
    """
    unread, unlooked = "" if candidate else "the candidate is damaged", "" if handed.damaged is not None else "nobody looked"
    broken, held = _weights(candidate) if candidate else (None, 0)
    unread = unread or ("" if held else "no weights were found")
    probed, apart, fault = _probe(candidate, evidence, rows, rule.num_probed, bench) if not unread and candidate else (0, None, unread)
    return [
        Gate.of(
            "damaged_artifacts",
            "completeness",
            handed.damaged,
            f"{shown(handed.damaged)} artifacts hold other bytes than were published.",
            at_most=rule.damaged,
            remark=unlooked,
        ),
        Gate.of(
            "non_finite_weights",
            "completeness",
            broken if held else None,
            f"{shown(broken)} of {held:,} weights are no finite numbers.",
            at_most=rule.non_finite,
            remark=unread,
        ),
        Gate.of(
            "probe_difference",
            "completeness",
            apart,
            f"Asked {probed:,} rows again, the stored candidate answers up to {shown(apart)} apart from what was evaluated.",
            at_most=rule.probe_difference,
            remark=fault,
        ),
    ]


def contract_gates(rule: ContractGates, handed: Handed) -> list[Gate]:
    """Whether the data that the candidate was made from keep their contracts."""
    broken, share = handed.broken_rules, handed.quarantined_share
    return [
        Gate.of(
            "broken_rules",
            "contracts",
            broken,
            f"Interactions, examples and tokens break {shown(broken)} rules.",
            at_most=rule.broken_rules,
            remark="" if broken is not None else "nobody looked",
        ),
        Gate.of(
            "quarantined_share",
            "contracts",
            share,
            f"Of the rows read, a share of {shown(share)} lies in quarantine.",
            at_most=rule.quarantined_share,
            remark="" if share is not None else "nobody looked",
        ),
    ]


def _weights(folder: Path) -> tuple[int | None, int]:
    """How many weights are no finite numbers, and how many there are, in every file of weights; none where a file cannot be read."""
    broken = held = 0
    for file in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 - no mapping
                    weights = stored.get_tensor(name)
                    held += weights.numel()
                    broken += int((~torch.isfinite(weights)).sum())
        except SafetensorError:
            return None, 0
    return broken, held


def _probe(candidate: Path, evidence: Evidence, rows: Mapping[str, Prompts], most: int, bench: Bench) -> tuple[int, float | None, str]:
    """Rows asked again, the largest difference of p(Yes), and why there is none."""
    # Where nobody is forgotten, there are no such rows; test rows there must be.
    asked = [group for group in PROBED if group == TEST or len(rows[group])]
    fault = next((told for group in asked if (told := evidence.fault(group, CANDIDATE))), "")
    if fault:
        return 0, None, fault
    together = functools.reduce(Prompts.joined, [rows[group] for group in asked])
    answers = numpy.concatenate([evidence.groups[group].yes[CANDIDATE] for group in asked])
    chosen = numpy.sort(numpy_generator(bench.seed, "probe-rows").permutation(len(answers))[:most])
    again = yes_probabilities(load(candidate, bench.device), together.select(chosen), bench)
    return len(chosen), float(numpy.abs(again - answers[chosen]).max()), ""
