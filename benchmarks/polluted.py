"""How well `e2urec find-polluted` finds the sample's planted polluted users, beside simpler rivals, and what the search costs.

Cohorts are the truth here, and nowhere else. Precision at a recall of one half is that of the shortest ranking that holds half of the
polluted users. Single interactions are judged on labels that are turned around here, for one in twenty training rows of users who are
neither polluted nor without a taste.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measuring import clock, emit, machine, progress, ready
from benchmarks.ours import rounded
from benchmarks.problem import Inputs, flags_of, parser_of, workspace
from e2urec_core.data.places import TOKENS, USERS
from e2urec_core.data.tokens import prompts_of_split, user_numbers
from e2urec_core.pollution.evidence import HeldOut, evidence
from e2urec_core.pollution.proposal import find
from e2urec_core.pollution.rule import FindRule, NoHistory
from e2urec_core.pollution.scoring import fold_scores, read_held_out
from e2urec_core.recommender import load
from e2urec_core.scoring import yes_probabilities
from e2urec_core.seeding import numpy_generator
from flows.finding import Finding, build_finding

POLLUTED, ORDINARY, TURNED = "polluted", "steady", 0.05
QUICK = {"dataset.num_users": "150", "folds.training.num_epochs": "2"}


def precision_at_half(score: numpy.ndarray, truth: numpy.ndarray) -> float:
    """Precision of the shortest ranking by falling score that holds half of the true ones.

    >>> precision_at_half(numpy.array([4.0, 3.0, 2.0, 1.0]), numpy.array([True, False, True, True]))  # two of the first three
    0.6666666666666666
    """
    hits = truth[numpy.argsort(-score, kind="stable")].cumsum()
    needed = int(numpy.ceil(truth.sum() / 2))
    return needed / (int(numpy.searchsorted(hits, needed)) + 1)


def searched(plan: Finding, tokens: Path, root: Path) -> tuple[list[HeldOut], float]:
    """The rows of every round, and the seconds of all."""
    before: Path | None = None
    started, rounds = clock(), []
    for number in range(plan.folds.num_rounds):
        place = root / f"round-{number}"
        place.mkdir(parents=True)
        fold_scores(tokens, before, plan.run.backbone, plan.folds, Inputs(plan.run, root).bench(), place)
        rounds.append(read_held_out(place))
        before = place
    return rounds, clock() - started


def by_users(plan: Finding, hidden: Inputs, shown: Inputs, cohorts: Mapping[int, str], root: Path) -> dict[str, Any]:
    """Precision of rankings of users, and of the proposal."""
    rounds, seconds = searched(plan, hidden.tokens, root / "hidden")
    held, told = rounds[-1], evidence(rounds[-1], plan.folds.quality)
    truth = numpy.array([cohorts[user] == POLLUTED for user in told.users.tolist()])

    def ranked(rows: HeldOut, values: numpy.ndarray) -> float:
        users, whose, counts = numpy.unique(rows.users, return_inverse=True, return_counts=True)
        assert numpy.array_equal(users, told.users)
        return precision_at_half(numpy.bincount(whose, values) / counts, truth)

    alone = plan.model_copy(update={"folds": plan.folds.model_copy(update={"num_rounds": 1, "history": "shown"})})
    seen = searched(alone, shown.tokens, root / "shown")[0][0]
    prompts = prompts_of_split(shown.tokens, "train")
    original = HeldOut(prompts.example_ids, seen.users, prompts.labels, yes_probabilities(load(shown.original), prompts, shown.bench()))
    found = find(held, plan.folds, plan.finder)
    hits = int(truth[found.users].sum())
    return {
        "precision_at_half": {
            "ours": precision_at_half(-told.score, truth),
            "by_q": precision_at_half(-told.q, truth),
            "mean_own_probability": ranked(held, -held.own),
            "mean_held_out_loss": ranked(held, _loss(held)),
            "first_round": precision_at_half(-evidence(rounds[0], plan.folds.quality).score, truth),
            "history_shown_first_round": precision_at_half(-evidence(seen, plan.folds.quality).score, truth),
            "original_in_sample_loss": ranked(original, _loss(original)),
        },
        "proposal": {
            "users": len(found.users),
            "precision": hits / max(1, len(found.users)),
            "recall": hits / truth.sum(),
            "expected_precision": float(1 - told.q[found.users].mean()) if len(found.users) else None,
            "precision_by_q_alone": float(truth[told.q < plan.finder.level].mean()) if (told.q < plan.finder.level).any() else None,
            "recall_by_q_alone": float((told.q < plan.finder.level)[truth].mean()),
        },
        "polluted_users": int(truth.sum()),
        "seconds": seconds,
    }


def _loss(rows: HeldOut) -> numpy.ndarray:
    return -numpy.log(rows.own.clip(min=1e-9))


def by_interactions(plan: Finding, tokens: Path, cohorts: Mapping[int, str], root: Path) -> dict[str, Any]:
    """Precision of the single interactions that are proposed, after labels of ordinary users were turned around."""
    turned = root / "turned"
    shutil.copytree(tokens, turned)
    table = pq.read_table(turned / TOKENS)
    ordinary = numpy.array([cohorts[user] == ORDINARY for user in table["user"].to_pylist()])
    able = numpy.flatnonzero(ordinary & (table["split"].to_numpy() == "train"))
    chosen = numpy_generator(plan.run.seed, "turned-labels").permutation(able)[: round(TURNED * len(able))]
    labels = table["label"].to_numpy().copy()
    labels[chosen] = 1 - labels[chosen]
    at = table.schema.get_field_index("label")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(labels)), turned / TOKENS)
    rounds, _ = searched(plan, turned, root / "interactions")
    found = find(rounds[-1], plan.folds, FindRule(propose="both"))
    steady = numpy.array([cohorts[user] == ORDINARY for user in rounds[-1].users.tolist()])
    truth = numpy.isin(rounds[-1].example_ids, table["example_id"].to_numpy()[chosen])
    hits = int(truth[found.interactions].sum())
    among = found.interactions[steady[found.interactions]]
    return {
        "turned": len(chosen),
        "interactions": len(found.interactions),
        "precision": hits / max(1, len(found.interactions)),
        "precision_among_ordinary": float(truth[among].mean()) if len(among) else None,
        "recall": hits / len(chosen),
        "share_turned": float(truth[steady].mean()),
    }


def one_seed(flags: Mapping[str, str], seed: int, kept: Path, scratch: Path) -> dict[str, Any]:
    """Everything on one seed."""
    # Only the rival's original is trained by the schedule of the run.
    original = {name: value for name, value in flags.items() if name.startswith("training.")}
    plan = build_finding("sample", "tiny-t5", "demo", {**{name: flags[name] for name in flags.keys() - original.keys()}, "seed": str(seed)})
    training = plan.run.training.model_validate({**plan.run.training.canonical(), **{name.split(".")[1]: flags[name] for name in original}})
    bare = plan.run.model_copy(update={"history": NoHistory(at_least=plan.run.history.at_least)})
    hidden, shown = Inputs(bare, kept), Inputs(plan.run.model_copy(update={"training": training}), kept)
    users = pq.read_table(hidden.interactions / USERS, columns=["user_id", "cohort"])
    numbers = user_numbers(users["user_id"].combine_chunks().cast(pa.string())).to_pylist()
    cohorts = dict(zip(numbers, users["cohort"].to_pylist(), strict=True))
    told = {
        "seed": seed,
        **by_users(plan, hidden, shown, cohorts, scratch),
        "interactions": by_interactions(plan, hidden.tokens, cohorts, scratch),
    }
    progress(f"  seed {seed}: {told}")
    return told


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    told = parser_of("polluted", "Precision of the search for polluted users, beside simpler rivals.").parse_args(arguments)
    ready()
    with workspace(told.workspace) as kept, workspace(None) as scratch:
        seeds = [one_seed(flags_of(told, QUICK), seed, kept, scratch / str(seed)) for seed in told.seeds or [0]]
    medians = {name: statistics.median(seed["precision_at_half"][name] for seed in seeds) for name in seeds[0]["precision_at_half"]}
    emit(rounded({"precision_at_half": medians, "seeds": seeds, "quick": told.quick, "machine": machine()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
