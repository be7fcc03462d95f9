"""Judges tries of a method's knobs, and writes and hands out the report of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from e2urec_core.artifacts import ForgetRequest, Model, Report, Scores, Tokens
from e2urec_core.report.comparison.plan import ComparisonPlan, label
from e2urec_core.tuning import Tried
from tasks._room import Room
from tasks._shown import show_results
from tasks._stage import Work, stage

COMPARISON_JSON, COMPARISON_PAGE = "comparison.json", "report.html"


@stage("compare", writes=Report, aside=("run", "seconds"))
def write_comparison(
    work: Work,
    run: str,
    plan: ComparisonPlan,
    scores: list[Scores],
    models: list[Model],
    tokens: list[Tokens],
    requests: list[ForgetRequest],
    seconds: Mapping[str, Mapping[str, float]],
) -> int:
    """Measure every method on the same draws of seeds and users, and write comparison.json and report.html."""
    from e2urec_core.report.comparison import render
    from e2urec_core.report.comparison.assemble import Opened, assemble

    digests = {label(plan.seeds[at], name): table.digest for (at, name), table in zip(plan.scored, scores, strict=True)}
    opened = [[work.open(handle) for handle in handles] for handles in (scores, models, tokens, requests)]
    # What is opened here is checked against no parents: the tables were when they were made.
    work.opened.clear()
    document = assemble(run, plan, Opened(*opened), seconds, digests)
    (work.place / COMPARISON_JSON).write_text(document.to_json())
    (work.place / COMPARISON_PAGE).write_text(render(document))
    return len(document.rows)


def judge(room: Room, model: Scores, original: Scores, retrained: Scores) -> Tried:
    """How near a try comes to the tuning seed's Retrain on the forgotten rows, and its AUC on validation rows."""
    from e2urec_core.judging import SCORED
    from e2urec_core.metrics.forgetting import residual
    from e2urec_core.metrics.utility import auc
    from e2urec_core.scoring import read_scores

    told = [read_scores(room.store.open(handle), [SCORED], ("validation", "forgotten")) for handle in (model, original, retrained)]
    own, first, aim = (groups["forgotten"].yes[SCORED] for groups in told)
    rows = told[0]["validation"]
    return Tried(residual(own, aim, first), auc(rows.labels, rows.yes[SCORED]))


def hand_out_comparison(room: Room, report: Report) -> Path:
    """Put the comparison where people look for it: the run's folder, MLflow with a child run a method, Prefect; returns the folder."""
    from e2urec_core.report.comparison import ComparisonDocument, render, text_table

    name = room.journal.record.run
    document = ComparisonDocument.from_json((room.store.open(report) / COMPARISON_JSON).read_text())
    document = document.model_copy(update={"run": name})
    room.reports.mkdir(parents=True, exist_ok=True)
    (room.reports / COMPARISON_JSON).write_text(document.to_json())
    (room.reports / COMPARISON_PAGE).write_text(render(document))
    for row in document.rows:
        means = {measure: told.mean for measure, told in row.measures.items()}
        room.tracker.metrics({f"{row.method}.{measure}": value for measure, value in means.items()})
        with room.tracker.stage(f"method {row.method}", document.chosen.get(row.method, {})) as (metrics, _):
            for at in range(len(document.seeds)):
                metrics.step(at, {measure: told.values[at] for measure, told in row.measures.items() if at < len(told.values)})
    room.tracker.files(room.reports, "report")
    show_results(room, text_table(document), room.reports / COMPARISON_PAGE)
    return room.reports
