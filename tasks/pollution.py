"""Scores users with networks that never saw them, and proposes those whose labels are improbable."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2urec_core.artifacts import Examples, HeldOutScores, Proposal, Tokens
from e2urec_core.backbones.base import Backbone
from e2urec_core.pollution.rule import FindRule, FoldRule
from e2urec_core.settings import Seat
from tasks._room import Room
from tasks._shown import show_results
from tasks._stage import Work, stage

POLLUTION_JSON, POLLUTION_PAGE, DRAFT = "pollution.json", "report.html", "polluted.csv"


def _named_by_round(given: Mapping[str, Any]) -> str:
    return f"fold-scores round {given['number']}"


@stage("fold-scores", writes=HeldOutScores, aside=("number",), label=_named_by_round)
def fold_scores(
    work: Work, tokens: Tokens, before: HeldOutScores | None, backbone: Backbone, folds: FoldRule, seat: Seat, number: int
) -> int:
    """Score every training row with a network that never trained on its user."""
    return work.perform(seat, "fold_scores", **work.folders(tokens=tokens, before=before), backbone=backbone, folds=folds)


@stage("propose-polluted", writes=Proposal)
def propose_polluted(work: Work, examples: Examples, scores: HeldOutScores, folds: FoldRule, rule: FindRule) -> int:
    """Propose users and interactions, and write the page."""
    from e2urec_core import stages
    from e2urec_core.pollution.proposal import find, write_proposal
    from e2urec_core.pollution.scoring import read_held_out
    from e2urec_core.report.pollution import assemble, render

    scored = work.open(scores)
    held = read_held_out(scored)
    found = find(held, folds, rule)
    document = assemble(found, stages.facts(scored)["set_aside"], folds, rule)
    (work.place / POLLUTION_JSON).write_text(document.to_json())
    (work.place / POLLUTION_PAGE).write_text(render(document))
    return write_proposal(work.open(examples), held, found, work.place)


def hand_out_proposal(room: Room, proposal: Proposal) -> Path:
    """Put the page, and the draft that names users, where people look for them; MLflow is given the page. Returns the folder."""
    from e2urec_core.disk import write_whole
    from e2urec_core.report.pollution import PollutionDocument, text_table

    stored = room.store.open(proposal)
    room.reports.mkdir(parents=True, exist_ok=True)
    for name in (POLLUTION_JSON, POLLUTION_PAGE):
        shutil.copyfile(stored / name, room.reports / name)
        room.tracker.files(room.reports / name, "report")
    document = PollutionDocument.from_json((stored / POLLUTION_JSON).read_text())
    counts = document.model_dump(include={"num_users", "num_proposed_users", "num_proposed_rows", "num_proposed_interactions"})
    room.tracker.metrics({name: float(value) for name, value in counts.items()})
    before = os.umask(0o077)
    try:
        write_whole(room.reports / DRAFT, draft(stored, room.journal.record.run, datetime.now(UTC)))
    finally:
        os.umask(before)
    show_results(room, text_table(document), room.reports / POLLUTION_PAGE)
    return room.reports


def draft(proposal: Path, run: str, requested_at: datetime) -> str:
    """The proposals as a CSV file of the contract `draft_request`.

    Args:
        proposal: Folder of a Proposal artifact.
        run: Name of the run; the names of the requests begin with it.
        requested_at: When they were made.
    """
    import pyarrow.parquet as pq

    from data_contracts.draft_request import DRAFT_REQUEST
    from e2urec_core.data.places import PROPOSED

    file = io.StringIO()
    lines = csv.DictWriter(file, DRAFT_REQUEST.column_names, lineterminator="\n")
    lines.writeheader()
    for number, row in enumerate(pq.read_table(proposal / PROPOSED).to_pylist(), 1):
        told = {"request_id": f"{run}-{number:05}", "reason": "pollution", "requested_at": requested_at.isoformat(timespec="seconds")}
        lines.writerow({**row, **told, "score": f"{row['score']:.6f}", "q": f"{row['q']:.3g}"})
    return file.getvalue()
