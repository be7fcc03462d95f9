"""What was found as one page that needs nothing else: a single HTML file without a script."""

from __future__ import annotations

from pathlib import Path

from e2urec_core.report.page import flat, templates
from e2urec_core.report.pollution.plots import scores
from e2urec_core.report.pollution.schema import PollutionDocument
from e2urec_core.report.pollution.wording import counted, headline, sentences


def render(document: PollutionDocument) -> str:
    """The page; equal documents give equal bytes."""
    return (
        templates(Path(__file__).parent)
        .get_template("pollution.html")
        .render(
            sizes=[counted(document.num_users, "user"), counted(document.num_rows, "training row")],
            headline=headline(document),
            sentences=sentences(document),
            drawing=scores(document),
            folded={"Settings": dict(flat(document.settings))},
        )
    )
