"""Writes the report, and hands it to people, MLflow and Prefect."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2urec_core.artifacts import Artifact, Augmented, ForgetRequest, Model, Original, Report, Retrained, Scores, Unlearned
from tasks._room import Room
from tasks._shown import show_results
from tasks._stage import Work, stage

REPORT_JSON, REPORT_PAGE = "report.json", "report.html"


@stage("report", writes=Report, aside=("run", "seconds"))
def write_report(
    work: Work,
    run: str,
    method: str,
    title: str,
    scores: Scores,
    request: ForgetRequest,
    original: Original,
    retrained: Retrained,
    augmented: Augmented | None,
    unlearned: Unlearned,
    seconds: Mapping[str, float],
    settings: Mapping[str, Any],
) -> int:
    """Write report.json and report.html."""
    from e2urec_core.report import render
    from e2urec_core.report.assemble import assemble

    given: dict[str, Artifact | None] = {
        "scores": scores,
        "request": request,
        "original": original,
        "retrain": retrained,
        "augmented": augmented,
        method: unlearned,
    }
    folders = {name: work.open(handle) if handle else None for name, handle in given.items()}
    digests = {name: handle.digest for name, handle in given.items() if handle}
    document = assemble(run, method, title, folders, seconds, settings, digests)
    (work.place / REPORT_JSON).write_text(document.to_json())
    (work.place / REPORT_PAGE).write_text(render(document))
    return len(document.rows)


def hand_out(room: Room, report: Report, unlearned: Model) -> Path:
    """Put the report where people look for it: the run's folder, MLflow, Prefect; returns the folder.

    The report of an equal run may come from the store; the copies carry this run's name.
    """
    from e2urec_core.report import ReportDocument, render
    from e2urec_core.report.wording import text_table

    stored = room.store.open(report)
    document = ReportDocument.from_json((stored / REPORT_JSON).read_text())
    name = room.journal.record.run
    room.reports.mkdir(parents=True, exist_ok=True)
    if document.run == name:
        for file in (REPORT_JSON, REPORT_PAGE):
            shutil.copyfile(stored / file, room.reports / file)
    else:
        document = document.model_copy(update={"run": name})
        (room.reports / REPORT_JSON).write_text(document.to_json())
        (room.reports / REPORT_PAGE).write_text(render(document))
    measures = {
        f"{row.method}.{measure}": float(value)
        for row in document.rows
        for measure, value in row.canonical().items()
        if isinstance(value, int | float)
    }
    room.tracker.metrics(measures)
    room.tracker.files(room.reports, "report")
    folder = room.store.open(unlearned)
    if (folder / "adapter").is_dir():
        room.tracker.files(folder / "adapter", "adapter")
    show_results(room, text_table(document), room.reports / REPORT_PAGE)
    return room.reports
