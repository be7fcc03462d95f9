"""The figures of a comparison: every method between forgetting, utility and time, with chance as a grey band."""

from __future__ import annotations

from typing import Any

import numpy as np

from e2urec_core.report.canvas import GREY, INK, SUBJECT, canvas, svg_text
from e2urec_core.report.comparison.schema import ComparedRow, ComparisonDocument
from e2urec_core.report.labels import Label, place_labels
from e2urec_core.report.looks import Drawing, exact
from e2urec_core.report.schema import RETRAIN

MOST_RESIDUAL = 1.6
"""Where the axis of the residual ends; what lies beyond is drawn at the end, with its number."""
BAND: dict[str, Any] = {"color": "black", "alpha": 0.08, "linewidth": 0, "zorder": 0}


def drawings(document: ComparisonDocument) -> tuple[Drawing, ...]:
    """The figures in the order of the page."""
    return forgetting_against_utility(document), side_by_side(document)


def _drawable(document: ComparisonDocument) -> list[ComparedRow]:
    return [row for row in document.rows if {"residual", "auc", "all_in_seconds"} <= row.measures.keys()]


def _colour(document: ComparisonDocument, row: ComparedRow) -> str:
    return SUBJECT if row.method == document.reference else INK


def forgetting_against_utility(document: ComparisonDocument) -> Drawing:
    """Residual against test AUC, the area of a point its all-in time."""
    rows, name, heading = _drawable(document), "forgetting-against-utility", "Forgetting against utility against time"
    table: list[tuple[str, ...]] = [("Method", "Residual", "Test AUC", "All-in seconds")]
    table += [(row.title, *(exact(row.measures[field].mean) for field in ("residual", "auc", "all_in_seconds"))) for row in rows]
    caption = (
        f"Means over {len(document.seeds)} seeds with standard errors; the area of a point is its all-in time. Grey: the range between "
        "Retrains of one seed. The best place is the upper left corner of the band."
    )
    if not rows:
        return Drawing(name, heading, (), caption, tuple(table))
    longest = max(row.measures["all_in_seconds"].mean for row in rows)
    with canvas(640, 380, name=name) as figure:
        axes = figure.add_subplot()
        for field, span in (("residual", axes.axvspan), ("auc", axes.axhspan)):
            if field in document.floor:
                span(document.floor[field].low, document.floor[field].high, **BAND)
        for row in rows:
            x, y = _end(row.measures["residual"].mean), row.measures["auc"].mean
            colour = _colour(document, row)
            errors = {"xerr": row.measures["residual"].error or 0, "yerr": row.measures["auc"].error or 0}
            axes.errorbar(x, y, **errors, color=GREY, linewidth=0.8, zorder=2)
            area = 12 + 260 * row.measures["all_in_seconds"].mean / longest
            face = "white" if row.method == RETRAIN else colour
            axes.scatter(x, y, s=area, facecolor=face, edgecolor=colour, linewidth=1.2, alpha=0.75, zorder=3, clip_on=False)
        axes.set_xlabel("Residual on the forgotten rows (0 = Retrain, 1 = nothing done)")
        axes.set_title("AUC on test rows of users who were not forgotten (no unit)", pad=10)
        axes.set_xlim(-0.06, min(MOST_RESIDUAL, 1.12 * max(1.0, *(row.measures["residual"].mean for row in rows))) + 0.02)
        axes.margins(y=0.12)
        figure.draw_without_rendering()
        labels = [Label(_named(row), _end(row.measures["residual"].mean), row.measures["auc"].mean, _colour(document, row)) for row in rows]
        drawn = [spot for row, label in zip(rows, labels, strict=True) for spot in _spots(row, label)]
        place_labels(axes, labels, axes.transData.transform(np.array(drawn)))
        return Drawing(name, heading, (svg_text(figure, name=name, title=heading),), caption, tuple(table))


def _spots(row: ComparedRow, label: Label) -> list[tuple[float, float]]:
    """Places that a point and its errors cover, in the units of the data."""
    across, up = (row.measures[field].error or 0.0 for field in ("residual", "auc"))
    along = np.linspace(-1, 1, 15)
    return [(label.x + share * across, label.y) for share in along] + [(label.x, label.y + share * up) for share in along]


def _end(residual: float) -> float:
    return min(residual, MOST_RESIDUAL)


def _named(row: ComparedRow) -> str:
    residual = row.measures["residual"].mean
    return row.title if residual <= MOST_RESIDUAL else f"{row.title} ({residual:.2f})"


def side_by_side(document: ComparisonDocument) -> Drawing:
    """A line a method: residual, test AUC less Retrain's and all-in time over Retrain's, each with its interval."""
    rows, name, heading = _drawable(document), "side-by-side", "Side by side, with intervals"
    table: list[tuple[str, ...]] = [("Method", "Residual", "from", "to", "Test AUC", "from", "to", "All-in seconds")]
    for row in rows:
        cells = []
        for field in ("residual", "auc"):
            told = row.measures[field]
            cells += [exact(told.mean), *("" if end is None else exact(end) for end in (told.low, told.high))]
        table.append((row.title, *cells, exact(row.measures["all_in_seconds"].mean)))
    caption = (
        "Points are means over the seeds; lines hold 95 % of the draws of seeds and users. Grey: the range between Retrains of one seed. "
        "Sorted by residual."
    )
    if not rows:
        return Drawing(name, heading, (), caption, tuple(table))
    ordered = sorted(rows, key=lambda row: -row.measures["residual"].mean)
    with canvas(640, 60 + 17 * len(rows), name=name) as figure:
        panels = figure.subplots(1, 3, sharey=True, width_ratios=[4, 4, 3])
        for axes, field, words in zip(
            panels,
            ("residual", "auc", "all_in_seconds"),
            ("Residual (0 = Retrain)", "Test AUC", "All-in seconds"),
            strict=True,
        ):
            if field in document.floor:
                axes.axvspan(document.floor[field].low, document.floor[field].high, **BAND)
            for place, row in enumerate(ordered):
                _line(axes, place, row, field, _colour(document, row))
            axes.set_title(words, pad=8)
            axes.grid(axis="y", color="#ececec", linewidth=0.6)
            axes.set_axisbelow(True)
        panels[0].set_xlim(-0.06, min(MOST_RESIDUAL, 1.12 * max(1.0, *(row.measures["residual"].mean for row in rows))))
        panels[2].set_xscale("log")
        panels[2].xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
        panels[2].xaxis.set_minor_formatter(lambda seconds, _: "")
        panels[0].set_yticks(range(len(ordered)), [row.title for row in ordered])
        for tick, row in zip(panels[0].get_yticklabels(), ordered, strict=True):
            tick.set_color(_colour(document, row))
        return Drawing(name, heading, (svg_text(figure, name=name, title=heading),), caption, tuple(table))


def _line(axes: Any, place: int, row: ComparedRow, field: str, colour: str) -> None:
    told = row.measures[field]
    value = _end(told.mean) if field == "residual" else told.mean
    if field == "all_in_seconds" and value <= 0:
        return
    if told.low is not None and told.high is not None:
        axes.plot([told.low, told.high], [place, place], color=colour, linewidth=1.0)
    axes.plot(value, place, marker="o", markersize=5, color=colour, markerfacecolor="white" if row.method == RETRAIN else colour)
