"""Puts a recommender together for release: one folder that MLflow's own tools serve, with its card and its probe."""

from __future__ import annotations

from e2urec_core.artifacts import Bundle, Examples, Interactions, Model, Tokens, Verdict
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.prompts import PromptRule
from e2urec_core.release.card import CardFacts, GateRow, ModelCard
from e2urec_core.settings import Seat
from tasks._servable import Serving, write_servable
from tasks._stage import Work, stage


@stage("bundle", writes=Bundle)
def bundle(
    work: Work,
    model: Model,
    verdict: Verdict | None,
    rows: Interactions,
    examples: Examples,
    tokens: Tokens,
    prompt: PromptRule,
    history: HistoryRule,
    facts: CardFacts,
    gates: list[GateRow],
    served: Serving,
    seat: Seat,
) -> int:
    """Write the recommender's files, its probe and its card, and what MLflow serves them with."""
    from e2urec_core import stages
    from e2urec_core.release.bundle import write_bundle

    # One thread of a CPU, so that whoever checks the probe later finds the same bits.
    alone = seat.model_copy(update={"device": "cpu", "threads": 1, "processes": 1, "precision": "fp32"})
    folder = work.open(model)
    probed = work.perform(alone, "probe", interactions=work.open(rows), model=folder, prompt=prompt, history=history)
    card = ModelCard(
        **dict(facts),
        model=model.digest,
        parameters=stages.facts(folder)["total_parameters"],
        interactions=rows.digest,
        examples=examples.digest,
        tokens=tokens.digest,
        gates=tuple(gates),
        seed=seat.seed,
        versions=dict(requirement.split("==") for requirement in served.requirements),
    )
    write_bundle(folder, prompt, history, card, work.place)
    with work.room.store.workplace() as scratch:
        write_servable(work.place, model.digest, served, scratch)
    return probed
