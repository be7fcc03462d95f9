"""The three figures of a report, drawn from a `ReportDocument` alone, each with the exact table of what it draws.

Grey for every method, one colour for the subject, Retrain as a band where further Retrains were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from e2urec_core.report.canvas import GREY, INK, PALE, SUBJECT, canvas, printable, svg_text
from e2urec_core.report.labels import Label, place_at_ends, place_labels
from e2urec_core.report.looks import Drawing, colour_of, exact, line_of, marker_of, sizes
from e2urec_core.report.measures import SeedFloor
from e2urec_core.report.schema import RETRAIN, CurvePoint, Histogram, ReportDocument
from e2urec_core.report.wording import floor_title, title, whole

MAX_POINTS = 150
"""Points of one loss curve that are drawn and tabled; report.json holds them all."""


def drawings(document: ReportDocument) -> tuple[Drawing, Drawing, Drawing]:
    """The three figures in the order of the page."""
    return forgetting_against_utility(document), loss_curves(document), forgotten_probabilities(document)


def forgetting_against_utility(document: ReportDocument) -> Drawing:
    """Where each method lies between Original and Retrain: what it still knows of the forgotten rows, against test AUC."""
    points = [(row.method, row.forget_auc, row.auc) for row in document.rows if row.forget_auc is not None and row.auc is not None]
    name, heading = "forgetting-against-utility", "Forgetting against utility"
    floor = document.seed_floor
    table = [("Method", "Forget AUC", "Test AUC"), *((title(document, method), exact(x), exact(y)) for method, x, y in points)]
    if floor is not None and floor.forget_auc is not None and floor.auc is not None:
        for word in ("low", "high"):
            table.append((f"{floor_title(floor)}, {word}", exact(getattr(floor.forget_auc, word)), exact(getattr(floor.auc, word))))
    caption = f"The aim is Retrain, not the left edge. {sizes(document)}"
    if not points:
        return Drawing(name, heading, (), caption, tuple(table))
    with canvas(370, 285, name=name) as figure:
        axes = figure.add_subplot()
        banded = floor is not None and _draw_floor(axes, floor)
        for method, x, y in points:
            axes.plot(x, y, linestyle="none", marker="o", clip_on=False, zorder=4, **marker_of(document, method))
        xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
        if banded and floor is not None and floor.forget_auc is not None and floor.auc is not None:
            xs, ys = [*xs, floor.forget_auc.low, floor.forget_auc.high], [*ys, floor.auc.low, floor.auc.high]
        axes.set_xlim(*_limits(xs))
        axes.set_ylim(*_limits(ys))
        axes.set_xlabel("AUC on the forgotten rows (no unit)")
        axes.set_title("AUC on test rows of users who were not forgotten (no unit)", pad=10)
        figure.draw_without_rendering()
        names = {RETRAIN: f"{title(document, RETRAIN)}, {floor.num_retrains + 1} seeds"} if banded and floor is not None else {}
        labels = [Label(names.get(method) or title(document, method), x, y, colour_of(document, method)) for method, x, y in points]
        place_labels(axes, labels, axes.transData.transform(np.array([(x, y) for _, x, y in points])))
        return Drawing(name, heading, (svg_text(figure, name=name, title=heading),), caption, tuple(table))


def loss_curves(document: ReportDocument) -> Drawing:
    """The training loss of each trained thing, a small panel each, with the named parts of the loss."""
    panels, table = [], [("Trained", "Step", "Loss, nats", "Parts, nats")]
    for number, (word, points) in enumerate(document.curves.items()):
        if not points:
            continue
        drawn = _thinned(points)
        panels.append(_loss_panel(document, word, drawn, f"loss-curves-{number}"))
        for point in drawn:
            parts = ", ".join(f"{part} {exact(value)}" for part, value in point.parts.items())
            table.append((title(document, word), whole(point.step), exact(point.loss), parts))
    caption = f"One training each; at most {MAX_POINTS} points of a curve are drawn. The panels have their own scales."
    return Drawing("loss-curves", "Loss curves", tuple(panels), caption, tuple(table))


def forgotten_probabilities(document: ReportDocument) -> Drawing:
    """How p(Yes) is spread over the forgotten rows, one outline a method and Retrain filled."""
    name, heading = "forgotten-probabilities", "Distribution of p(Yes) on the forgotten rows"
    histogram = document.probabilities
    if histogram is None or not histogram.series:
        return Drawing(name, heading, (), sizes(document), (("From", "To"),))
    methods = list(histogram.series)
    table = [("From", "To", *(title(document, method) for method in methods))]
    for index, (left, right) in enumerate(zip(histogram.edges[:-1], histogram.edges[1:], strict=True)):
        table.append((exact(left), exact(right), *(whole(histogram.series[method][index]) for method in methods)))
    rows = max(sum(counts) for counts in histogram.series.values())
    caption = f"n = {whole(rows)} forgotten rows in {len(histogram.edges) - 1} bins; one seed."
    with canvas(370, 285, name=name) as figure:
        axes = figure.add_subplot()
        for method in methods:
            counts, style = histogram.series[method], line_of(document, method)
            if method == RETRAIN:
                axes.stairs(counts, histogram.edges, fill=True, color=PALE, zorder=1)
            axes.stairs(counts, histogram.edges, baseline=None, zorder=3 if style["color"] == SUBJECT else 2, **style)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.25 * max(1, *(max(counts) for counts in histogram.series.values())))
        axes.set_xlabel("p(Yes), the predicted probability (no unit)")
        axes.set_title("Forgotten rows in a bin (rows)", pad=10)
        figure.draw_without_rendering()
        outlines = np.concatenate([_outline(axes, histogram, method) for method in methods])
        place_labels(axes, [_peak_label(document, histogram, method) for method in methods], outlines)
        return Drawing(name, heading, (svg_text(figure, name=name, title=heading),), caption, tuple(table))


def _loss_panel(document: ReportDocument, word: str, points: Sequence[CurvePoint], name: str) -> str:
    with canvas(230, 165, name=name) as figure:
        axes = figure.add_subplot()
        steps = [point.step for point in points]
        style = {"color": colour_of(document, word), "linewidth": 1.6}
        parts = list(dict.fromkeys(part for point in points for part in point.parts))
        lines = [("loss", [point.loss for point in points], style)]
        for part, dashes in zip(parts if len(parts) > 1 else (), ("--", ":", "-.", (0, (1, 3))) * len(parts), strict=False):
            values = [point.parts.get(part, np.nan) for point in points]
            lines.append((part, values, {"color": GREY, "linewidth": 1.1, "linestyle": dashes}))
        for _, values, look in reversed(lines):
            axes.plot(steps, values, marker="o" if len(points) == 1 else None, markersize=4, **look)
        axes.margins(x=0)
        axes.set_xlabel("Optimiser steps")
        axes.set_title(printable(f"{title(document, word)}: loss (nats)"), pad=8)
        ends = [(text, [y for y in zip(steps, values, strict=True) if np.isfinite(y[1])], look) for text, values, look in lines]
        labels = [Label(text, *seen[-1], SUBJECT if look["color"] == SUBJECT else INK) for text, seen, look in ends if seen]
        if len(labels) > 1:
            place_at_ends(axes, labels)
        return svg_text(figure, name=name, title=f"Loss of {title(document, word)}")


def _draw_floor(axes: Any, floor: SeedFloor) -> bool:
    """Retrain's spread as a vertical and a horizontal band; where they cross, a model is Retrain for all that seeds can tell."""
    if floor.forget_auc is None or floor.auc is None:
        return False
    look = {"color": "black", "alpha": 0.08, "linewidth": 0, "zorder": 0}
    axes.axvspan(floor.forget_auc.low, floor.forget_auc.high, **look)
    axes.axhspan(floor.auc.low, floor.auc.high, **look)
    return True


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Room around the values; never so near that a difference without meaning fills the axis."""
    low, high = min(values), max(values)
    room = max(0.18 * (high - low), (0.02 - (high - low)) / 2, 0.004)
    return low - room, high + room


def _thinned(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """At most `MAX_POINTS` of the points, evenly taken, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return list(points)
    return [points[index] for index in np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int)]


def _outline(axes: Any, histogram: Histogram, method: str) -> np.ndarray:
    """Pixels along one method's steps, treads and risers."""
    corners = np.column_stack([np.repeat(histogram.edges, 2)[1:-1], np.repeat(histogram.series[method], 2)])
    along = np.linspace(0, 1, 12)[:, None, None]
    pixels: np.ndarray = axes.transData.transform((corners[:-1] + along * (corners[1:] - corners[:-1])).reshape(-1, 2))
    return pixels


def _peak_label(document: ReportDocument, histogram: Histogram, method: str) -> Label:
    """The label stands where the method's outline rises the most above the others."""
    own = np.array(histogram.series[method], dtype=float)
    others = [counts for other, counts in histogram.series.items() if other != method]
    at = int(np.argmax(own - np.max(others, axis=0))) if others else int(np.argmax(own))
    return Label(title(document, method), (histogram.edges[at] + histogram.edges[at + 1]) / 2, own[at], colour_of(document, method))
