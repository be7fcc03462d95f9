"""Puts a comparison together from scored tables and from what the models' stages noted about themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy
import pyarrow.parquet as pq

from e2urec_core.data.places import TOKENS
from e2urec_core.evaluation import GROUPS, ORIGINAL, RETRAIN, Scored
from e2urec_core.judging import SCORED
from e2urec_core.notes import facts
from e2urec_core.report.assemble import PACKAGES
from e2urec_core.report.comparison.compute import Comparison, OneSeed, estimate
from e2urec_core.report.comparison.plan import ComparisonPlan, Taking, label
from e2urec_core.report.comparison.schema import ComparedRow, ComparisonDocument
from e2urec_core.scoring import read_scores
from e2urec_core.seeding import numpy_generator

COST = ("seconds", "all_in_seconds")
POLES = (Taking(method=ORIGINAL, title="Original"), Taking(method=RETRAIN, title="Retrain"))


@dataclass(frozen=True)
class Opened:
    """Folders that a comparison is made from.

    Args:
        scores: Of each scored table, in the plan's order.
        models: Of each model, in the same order.
        tokens: Of each seed's tokens.
        requests: Of each seed's forget request.
    """

    scores: Sequence[Path]
    models: Sequence[Path]
    tokens: Sequence[Path]
    requests: Sequence[Path]


def assemble(
    run: str,
    plan: ComparisonPlan,
    opened: Opened,
    seconds: Mapping[str, Mapping[str, float]],
    digests: Mapping[str, str],
) -> ComparisonDocument:
    """The report of one comparison.

    Args:
        run: Name of the comparison.
        plan: Who takes part.
        opened: Folders of what it is made from.
        seconds: `seconds` and `all_in_seconds` by `label` of seed and model.
        digests: Digest of each scored table by `label`.
    """
    seeds = [_one_seed(place, plan, opened.scores, folder) for place, folder in enumerate(opened.tokens)]
    compared = Comparison(seeds, plan.num_draws, numpy_generator(plan.tuning_seed, "comparison-draws"))
    done = [taking for taking in plan.taking if not taking.fault]
    differences = {}
    if any(taking.method == plan.reference for taking in done):
        against = [taking.method for taking in (*POLES, *done) if taking.method != plan.reference]
        differences = compared.differences(against, plan.reference)
    rows = []
    for taking in (*POLES, *plan.taking):
        told: dict[str, object] = {"method": taking.method, "title": taking.title, "fault": taking.fault, "tries": taking.tries}
        if not taking.fault:
            folders = {at: opened.models[place] for place, (at, name) in enumerate(plan.scored) if name == taking.method}
            cost = [seconds[label(plan.seeds[at], taking.method)] for at in sorted(folders)]
            measures = {name: estimate(each[name] for each in cost) for name in COST}
            trained = estimate(facts(folders[at])["trainable_parameters"] for at in sorted(folders))
            told["measures"] = {**compared.estimates(taking.method), **measures, "trainable_parameters": trained}
            told["against"] = differences.get(taking.method, {})
        rows.append(ComparedRow.model_validate(told))
    return ComparisonDocument(
        run=run,
        reference=plan.reference,
        seeds=list(plan.seeds),
        tuning_seed=plan.tuning_seed,
        budget=plan.budget,
        num_retrains=len(seeds[0].further),
        num_draws=plan.num_draws,
        power=compared.power(),
        rows=rows,
        floor=compared.floor,
        counts=[_counts(folder) for folder in opened.requests],
        settings=plan.settings,
        chosen={taking.method: taking.settings for taking in done},
        published=list(plan.published),
        versions={package: version(package) for package in PACKAGES},
        digests=dict(digests),
        notes=list(plan.notes),
    )


def _one_seed(place: int, plan: ComparisonPlan, scores: Sequence[Path], tokens: Path) -> OneSeed:
    found = {name: read_scores(scores[at], [SCORED]) for at, (seed, name) in enumerate(plan.scored) if seed == place}
    groups = {}
    for group in GROUPS:
        first = found[ORIGINAL][group]
        assert all(numpy.array_equal(told[group].example_ids, first.example_ids) for told in found.values()), "other rows were scored"
        yes = {name: told[group].yes[SCORED] for name, told in found.items()}
        groups[group] = Scored(first.example_ids, first.labels, yes)
    table = pq.read_table(tokens / TOKENS, columns=["example_id", "user"])
    ids, users = table["example_id"].to_numpy(), table["user"].to_numpy()
    order = numpy.argsort(ids)
    users_of = {name: users[order[numpy.searchsorted(ids, rows.example_ids, sorter=order)]] for name, rows in groups.items()}
    return OneSeed(groups, users_of, [name for name in found if name.startswith(f"{RETRAIN}_")])


def _counts(request: Path) -> dict[str, int]:
    counts: dict[str, int] = facts(request)["counts"]
    return {**counts, "train": counts["retained"] + counts["forgotten"]}
