"""The plots: drawn from the document alone, with their tables, and with labels that can be read."""

from __future__ import annotations

import threading
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2urec_core.report import CurvePoint, Histogram, MethodRow, ReportDocument, SeedFloor, Spread
from e2urec_core.report.canvas import SUBJECT, canvas
from e2urec_core.report.labels import Label, place_labels, spread_apart
from e2urec_core.report.plots import MAX_POINTS, forgetting_against_utility, forgotten_probabilities, loss_curves

ROWS = [
    MethodRow(method="original", auc=0.71, forget_auc=0.91),
    MethodRow(method="retrain", auc=0.715, forget_auc=0.45),
    MethodRow(method="e2urec", auc=0.712, forget_auc=0.48),
]
FLOOR = SeedFloor(num_retrains=2, auc=Spread.of([0.71, 0.72]), forget_auc=Spread.of([0.43, 0.47]))


def test_forgetting_against_utility_leaves_out_a_method_without_either_auc() -> None:
    drawing = forgetting_against_utility(ReportDocument(run="r", rows=[*ROWS, MethodRow(method="sisa", auc=0.7)]))
    assert drawing.table == (
        ("Method", "Forget AUC", "Test AUC"),
        ("Original", "0.91", "0.71"),
        ("Retrain", "0.45", "0.715"),
        ("e2urec", "0.48", "0.712"),
    )
    assert "sisa" not in drawing.panels[0]


def test_the_seed_floor_is_drawn_tabled_and_counted_in_the_caption() -> None:
    drawing = forgetting_against_utility(ReportDocument(run="r", rows=ROWS, seed_floor=FLOOR, counts={"forgotten": 2400, "test": 12}))
    assert "Retrain, 3 seeds" in drawing.panels[0]
    assert drawing.table[-1] == ("Seed floor, 2 further Retrains, high", "0.47", "0.72")
    assert "n = 2,400 forgotten rows, 12 test rows; 3 seeds of Retrain" in drawing.caption


def test_only_the_subject_has_a_colour() -> None:
    coloured = forgetting_against_utility(ReportDocument(run="r", rows=ROWS)).panels[0]
    grey = forgetting_against_utility(ReportDocument(run="r", rows=ROWS[:2])).panels[0]
    assert SUBJECT in coloured
    assert SUBJECT not in grey


def test_loss_curves_draw_one_panel_each_and_name_the_parts() -> None:
    points = [CurvePoint(step=n, loss=1.0, parts={"retain": 0.6, "forget": 0.4}) for n in range(1000)]
    drawing = loss_curves(ReportDocument(run="r", rows=ROWS, curves={"original": points[:5], "e2urec": points, "retrain": []}))
    assert len(drawing.panels) == 2
    assert all(f">{part}<" in drawing.panels[1] for part in ("loss", "retain", "forget"))
    assert len(drawing.table) == 1 + 5 + MAX_POINTS
    assert drawing.table[-1] == ("e2urec", "999", "1", "retain 0.6, forget 0.4")


def test_a_part_that_appears_late_is_drawn_where_it_is() -> None:
    points = [CurvePoint(step=0, loss=1, parts={"a": 1}), CurvePoint(step=1, loss=1, parts={"a": 0.5, "b": 0.5})]
    assert ">b<" in loss_curves(ReportDocument(run="r", rows=ROWS, curves={"e2urec": points})).panels[0]


def test_the_histogram_tables_every_bin_of_every_method() -> None:
    histogram = Histogram.of({"original": [0.1, 0.9], "e2urec": [0.1, 0.2]}, num_bins=2)
    drawing = forgotten_probabilities(ReportDocument(run="r", rows=ROWS, probabilities=histogram))
    assert drawing.table == (("From", "To", "Original", "e2urec"), ("0", "0.5", "1", "2"), ("0.5", "1", "1", "0"))
    assert "n = 2 forgotten rows in 2 bins" in drawing.caption


def test_drawing_leaves_the_style_of_the_process_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    forgetting_against_utility(ReportDocument(run="r", rows=ROWS))
    assert dict(matplotlib.rcParams) == before


def test_the_style_of_the_process_does_not_reach_a_figure() -> None:
    document = ReportDocument(run="r", rows=ROWS)
    plain = forgetting_against_utility(document)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert forgetting_against_utility(document) == plain


def test_figures_can_be_drawn_in_a_thread() -> None:
    drawn: list[object] = []
    worker = threading.Thread(target=lambda: drawn.append(forgetting_against_utility(ReportDocument(run="r", rows=ROWS))))
    worker.start()
    worker.join()
    assert drawn == [forgetting_against_utility(ReportDocument(run="r", rows=ROWS))]


@pytest.mark.parametrize("num_points", [1, 3, 4, 12])
@pytest.mark.parametrize("apart", [0.0, 0.005, 0.3])
def test_labels_of_points_that_nearly_coincide_overlap_neither_each_other_nor_the_edge(num_points: int, apart: float) -> None:
    points = 0.5 + apart * (np.random.default_rng(3).random((num_points, 2)) - 0.5)
    with canvas(370, 285, name="labels") as figure:
        axes = figure.add_subplot()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        figure.draw_without_rendering()
        labels = [Label(f"method_{number}", x, y, "black") for number, (x, y) in enumerate(points)]
        place_labels(axes, labels, axes.transData.transform(points))
        figure.draw_without_rendering()
        # Not get_window_extent of the annotation, which includes its leader.
        boxes = [matplotlib.text.Text.get_window_extent(text) for text in axes.texts]
        frame = axes.get_window_extent()
    assert len(boxes) == num_points
    assert not any(one.overlaps(other) for one, other in combinations([box.padded(-1) for box in boxes], 2))
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=12).map(sorted))
@settings(max_examples=100, deadline=None)
def test_places_are_spread_apart_in_their_order_and_no_farther_than_needed(wanted: list[float]) -> None:
    placed = spread_apart(np.array(wanted), gap=10.0)
    assert np.all(np.diff(placed) >= 10 - 1e-9)
    assert np.isclose(placed.mean(), np.mean(wanted), atol=1e-6)
    if np.all(np.diff(wanted) >= 10):
        assert np.allclose(placed, wanted, atol=1e-9)
