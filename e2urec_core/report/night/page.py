"""A night as one page that needs nothing else: a single HTML file without a script."""

from __future__ import annotations

from pathlib import Path

from e2urec_core.report.night import wording
from e2urec_core.report.night.schema import NightDocument
from e2urec_core.report.page import flat, templates


def render(night: NightDocument) -> str:
    """The page; equal documents give equal bytes."""
    gates = [(row[0].replace("_", " "), *row[1:]) for row in night.verdict.table()] if night.verdict else []
    tables = [
        ("Drift budget", ("What", "Value", "Budget", "Used"), wording.budget_table(night)),
        ("Attempts", ("Method", "Gates", "Validation AUC", "Why"), wording.attempts_table(night)),
        ("Gates of the new champion", tuple(word.capitalize() for word in gates[0]) if gates else (), gates[1:]),
        ("Requests", ("Request", "Scope", "State", "Due, UTC", "Receipt"), wording.requests_table(night)),
        ("Erased", ("What", "How many"), wording.erased_table(night)),
        ("Seconds", ("Stage", "Seconds"), wording.seconds_table(night)),
    ]
    return (
        templates(Path(__file__).parent)
        .get_template("night.html")
        .render(
            run=night.run,
            sizes=[f"began {night.started_at[:16].replace('T', ' ')} UTC", wording.counted(len(night.requests), "request")],
            headline=wording.headline(night),
            sentences=wording.sentences(night),
            tables=[table for table in tables if table[2]],
            folded={"Settings": dict(flat(night.settings))},
        )
    )
