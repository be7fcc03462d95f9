"""The two figures of the page: how the change of p(Yes) is spread, and the calibration of both versions."""

from __future__ import annotations

from typing import Any

import numpy as np

from e2urec_core.report.canvas import GREY, INK, PALE, SUBJECT, canvas, svg_text
from e2urec_core.report.difference.schema import CalibrationCurve, Changes, DifferenceDocument
from e2urec_core.report.difference.wording import counted
from e2urec_core.report.labels import Label, place_labels
from e2urec_core.report.looks import Drawing, exact
from e2urec_core.report.wording import whole

WIDTH, HEIGHT = 370, 285


def drawings(document: DifferenceDocument) -> tuple[Drawing, Drawing]:
    """The figures in the order of the page."""
    return change_of_yes(document), calibration(document)


def change_of_yes(document: DifferenceDocument) -> Drawing:
    """How p_b - p_a is spread over the test rows, and over the forgotten ones in a panel of their own."""
    heading = "Change of p(Yes)"
    groups = [("test", "test row", document.test)]
    if document.forgotten is not None:
        groups.append(("forgotten", "forgotten row", document.forgotten))
    groups = [group for group in groups if group[2].num_rows]
    table: list[tuple[str, ...]] = [("Rows", "From", "To", "Number")]
    for name, _, changes in groups:
        edges = changes.histogram.edges
        bins = zip(edges[:-1], edges[1:], changes.histogram.counts, strict=True)
        table += [(name, exact(left), exact(right), whole(count)) for left, right, count in bins]
    sizes = " and ".join(counted(changes.num_rows, words) for _, words, changes in groups)
    caption = f"p(Yes) of version {document.b.version} less that of version {document.a.version}, on {sizes}."
    if any(changes.histogram.edges[1] > -0.9 for _, _, changes in groups):
        caption += " The outermost bars hold all rows that moved farther."
    panels = tuple(_spread(name, words, changes) for name, words, changes in groups)
    return Drawing("change-of-yes", heading, panels, caption, tuple(table))


def _spread(name: str, words: str, changes: Changes) -> str:
    edges, counts = np.array(changes.histogram.edges), np.array(changes.histogram.counts)
    # The outermost bins reach to -1 and 1; they are drawn as wide as the others.
    width = edges[len(edges) // 2] - edges[len(edges) // 2 - 1]
    drawn = np.array([edges[1] - width, *edges[1:-1], edges[-2] + width])
    with canvas(WIDTH, HEIGHT, name=f"change-of-yes-{name}") as figure:
        axes = figure.add_subplot()
        axes.stairs(counts / changes.num_rows, drawn, fill=True, color=PALE)
        axes.stairs(counts / changes.num_rows, drawn, color=SUBJECT, linewidth=1.4)
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        axes.set_xlim(drawn[0], drawn[-1])
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("Change of p(Yes) (no unit)")
        axes.set_title(f"Share of the {words}s in a bar (no unit)", pad=10)
        return svg_text(figure, name=f"change-of-yes-{name}", title=f"Change of p(Yes) on the {words}s")


def calibration(document: DifferenceDocument) -> Drawing:
    """Mean p(Yes) against the share of liked rows, bin by bin; on the line a version keeps what it promises."""
    name, heading = "calibration", "Calibration"
    versions = [(document.a.version, document.calibration_a), (document.b.version, document.calibration_b)]
    table: list[tuple[str, ...]] = [("Version", "Mean p(Yes)", "Share liked", "Rows")]
    for number, curve in versions:
        bins = zip(curve.told, curve.liked, curve.rows, strict=True)
        table += [(str(number), exact(told), exact(liked), whole(rows)) for told, liked, rows in bins]
    caption = (
        "Test rows in bins of about equally many by p(Yes)"
        + _rows_a_bin(document)
        + ". On the dotted line p(Yes) is the share that was liked."
    )
    if not document.test.num_rows:
        return Drawing(name, heading, (), caption, tuple(table))
    with canvas(WIDTH, HEIGHT, name=name) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        looks: list[dict[str, Any]] = [
            {"color": GREY, "linestyle": "--", "markerfacecolor": "white", "linewidth": 1.2},
            {"color": SUBJECT, "linewidth": 1.8},
        ]
        for (_, curve), look in zip(versions, looks, strict=True):
            axes.plot(curve.told, curve.liked, marker="o", markersize=5, clip_on=False, **look)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("Mean p(Yes) of a bin (no unit)")
        axes.set_title("Share of liked rows in it (no unit)", pad=10)
        figure.draw_without_rendering()
        labels = [_label(number, curve, colour) for (number, curve), colour in zip(versions, (INK, SUBJECT), strict=True)]
        paths = [_path(curve.told, curve.liked) for _, curve in versions] + [_path([0, 1], [0, 1])]
        place_labels(axes, labels, axes.transData.transform(np.concatenate(paths)))
        return Drawing(name, heading, (svg_text(figure, name=name, title=heading),), caption, tuple(table))


def _rows_a_bin(document: DifferenceDocument) -> str:
    rows = sorted({*document.calibration_a.rows, *document.calibration_b.rows})
    if not rows:
        return ""
    return f" ({whole(rows[0])} to {whole(rows[-1])} rows a bin)" if len(rows) > 1 else f" ({counted(rows[0], 'row')} a bin)"


def _label(number: int, curve: CalibrationCurve, colour: str) -> Label:
    """Version A's label stands at its first bin and version B's at its last, where curves are apart from one another."""
    at = len(curve.told) - 1 if colour == SUBJECT else 0
    return Label(f"Version {number}", curve.told[at], curve.liked[at], colour)


def _path(told: list[float], liked: list[float]) -> np.ndarray:
    """Places along a line through the points, in the units of the data."""
    along = np.linspace(0, max(len(told) - 1, 0), 40 * len(told))
    return np.column_stack([np.interp(along, range(len(told)), values) for values in (told, liked)])
