"""What the three figures share: what a figure is, grey for every method and one colour for the subject, and the words of captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from e2urec_core.report.canvas import GREY, INK, SUBJECT
from e2urec_core.report.schema import ORIGINAL, RETRAIN, ReportDocument
from e2urec_core.report.wording import whole


@dataclass(frozen=True)
class Drawing:
    """One figure: its panels as SVG text, what to know about it, and the table of what it draws (header first)."""

    name: str
    title: str
    panels: tuple[str, ...]
    caption: str
    table: tuple[tuple[str, ...], ...]


def colour_of(document: ReportDocument, method: str) -> str:
    """The subject's colour for the subject, ink for all else."""
    subject = document.subject_row()
    return SUBJECT if subject is not None and method == subject.method else INK


def marker_of(document: ReportDocument, method: str) -> dict[str, Any]:
    """A filled point; Retrain's is hollow."""
    colour = colour_of(document, method)
    colour = colour if colour == SUBJECT else GREY
    return {"markersize": 8, "markeredgecolor": colour, "markeredgewidth": 1.6, "markerfacecolor": "white" if method == RETRAIN else colour}


def line_of(document: ReportDocument, method: str) -> dict[str, Any]:
    """A grey outline, dashed unless it is a pole; the subject's is coloured and thicker."""
    colour = colour_of(document, method)
    dashes = "-" if method in (ORIGINAL, RETRAIN) or colour == SUBJECT else "--"
    return {"color": colour if colour == SUBJECT else GREY, "linewidth": 1.8 if colour == SUBJECT else 1.2, "linestyle": dashes}


def sizes(document: ReportDocument) -> str:
    """n and the number of seeds, as a caption says them."""
    rows = [f"{whole(document.counts[key])} {words}" for key, words in _COUNTED if key in document.counts]
    floor = document.seed_floor
    seeds = f"{floor.num_retrains + 1} seeds of Retrain (grey bands: their range), one seed of the others" if floor else "one seed"
    return f"n = {', '.join(rows)}; {seeds}." if rows else f"{seeds.capitalize()}."


_COUNTED = (("forgotten", "forgotten rows"), ("test", "test rows"))


def exact(value: float) -> str:
    """A number of a plot's table: six digits, as many as anyone can use."""
    return f"{value:.6g}"
