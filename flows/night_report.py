"""Puts a night's report together, beside its run and into MLflow and Prefect."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from e2urec_core.deletion.drift import Drift
from e2urec_core.ledger.request_records import CLOSED, RequestRecord
from e2urec_core.receipts.folder import links_of
from e2urec_core.release.verdict import VerdictDocument
from e2urec_core.report.night.page import render
from e2urec_core.report.night.schema import Attempt, NightDocument, RequestLine
from e2urec_core.report.night.wording import results_table, text
from flows.night_forgetting import Night
from tasks._notices import NIGHT_ENDED, emit
from tasks._shown import show_results

NIGHT_JSON, NIGHT_PAGE = "night.json", "night.html"


def write_night(night: Night, *, failed: bool = False) -> Path:
    """Write `night.json` and `night.html` beside the run, and show them; returns their folder. A night that failed has a report too."""
    document = _document(night)
    said = text(document)
    folder = night.room.reports
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NIGHT_JSON).write_text(document.to_json(said))
    (folder / NIGHT_PAGE).write_text(render(document))
    night.room.tracker.files(folder / NIGHT_PAGE, "report")
    used = document.drift.used(document.budget)
    night.room.tracker.metrics({f"drift.{name}.used": share for name, share in used.items()})
    show_results(night.room, results_table(document), folder / NIGHT_PAGE)
    ended = {name: document.counted(name) for name in ("certified", "promoted", "no_data", "queued", "needs_human")}
    ended |= {"waiting": document.waiting, "overdue": document.overdue, "attempts": len(document.attempts)}
    emit(NIGHT_ENDED, document.run, {**ended, "champion": document.champion, "new_champion": document.promoted, "failed": failed})
    return folder


def _document(night: Night) -> NightDocument:
    champion, journal = night.champion(), night.room.journal.record
    everything = night.requests.requests()
    mine = [each for each in everything if each.run == journal.run]
    receipts = {path.stem.split("-", 1)[1]: path.name for path in links_of(night.room.workspace / "receipts").values()}
    now = datetime.fromisoformat(night.desk.ledger.now()).astimezone(UTC)
    drift: Drift = night.drift(night.snapshot())
    return NightDocument(
        run=journal.run,
        started_at=journal.started_at,
        requests=tuple(_line(each, receipts) for each in mine),
        waiting=sum(each.state == "queued" and each not in mine for each in everything),
        overdue=sum(each.state not in CLOSED and each.due_at < now for each in everything),
        attempts=tuple(Attempt(**asdict(each)) for each in night.tried),
        validation_auc=night.validation_auc,
        champion=champion.registry_version or 0,
        promoted=champion.bundle != night.before,
        verdict=VerdictDocument.model_validate(champion.verdict) if champion.bundle != night.before else None,
        drift=drift,
        budget=night.run.night.drift,
        erased=dict(night.erased),
        seconds={label: entry.seconds for label, entry in journal.stages.items() if entry.state == "completed"},
        total_seconds=max(0.0, (now - datetime.fromisoformat(journal.started_at)).total_seconds()),
        settings=night.run.canonical(),
    )


def _line(request: RequestRecord, receipts: dict[str, str]) -> RequestLine:
    from e2urec_core.receipts.chain import receipt_id

    return RequestLine(
        id=request.id,
        scope=request.scope,
        state=request.state,
        due_at=request.due_at.isoformat(),
        receipt=receipts.get(receipt_id(request.id), "") if request.receipt else "",
    )
