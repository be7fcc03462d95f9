"""report.json: what is kept, what is refused, and that its description is fresh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from e2urec_core.report import CurvePoint, Histogram, MethodRow, ReportDocument, SeedFloor, Spread
from e2urec_core.report.reference import refreshed, schema_table

PAGE = Path(__file__).parents[2] / "docs" / "report.md"
numbers = st.none() | st.floats(0, 0.69)
rows = st.builds(
    MethodRow,
    method=st.text(min_size=1),
    auc=numbers,
    log_loss=numbers,
    forget_auc=numbers,
    jsd=numbers,
    residual=numbers,
    total_parameters=st.none() | st.integers(0, 10**12),
)
documents = st.builds(
    ReportDocument,
    run=st.text(min_size=1),
    rows=st.lists(rows, max_size=4, unique_by=lambda row: row.method),
    counts=st.dictionaries(st.text(), st.integers(0, 10**9), max_size=3),
    settings=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
    notes=st.lists(st.text(), max_size=2),
)


@given(documents)
@settings(max_examples=50, deadline=None)
def test_a_document_survives_the_way_through_json(document: ReportDocument) -> None:
    assert ReportDocument.from_json(document.to_json()) == document


def test_every_field_is_written_even_when_it_is_undefined() -> None:
    written = json.loads(ReportDocument(run="r", rows=[MethodRow(method="original")]).to_json())
    assert set(written) == set(ReportDocument.model_fields)
    assert set(written["rows"][0]) == set(MethodRow.model_fields)
    assert written["rows"][0]["auc"] is None


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("place", ['"rows": [{"method": "original", "auc": %s}]', '"rows": [], "settings": {"a": {"b": [%s]}}'])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(place: str, text: str) -> None:
    with pytest.raises(ValidationError, match="finite"):
        ReportDocument.from_json('{"run": "r", %s}' % (place % text))


@pytest.mark.parametrize(("field", "value"), [("auc", 1.01), ("jsd", 0.7), ("l2", 1.5), ("log_loss", -0.1), ("total_parameters", -1)])
def test_a_number_out_of_its_bounds_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        MethodRow.model_validate({"method": "original", field: value})


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="auk"):
        MethodRow.model_validate({"method": "original", "auk": 0.5})


def test_two_rows_of_one_method_are_refused() -> None:
    with pytest.raises(ValidationError, match="two rows"):
        ReportDocument(run="r", rows=[MethodRow(method="original"), MethodRow(method="original")])


def test_a_subject_without_a_row_is_refused() -> None:
    with pytest.raises(ValidationError, match="no row"):
        ReportDocument(run="r", subject="sisa", rows=[MethodRow(method="original")])


def test_the_subject_is_the_last_row_that_is_no_pole_unless_it_is_named() -> None:
    methods = [MethodRow(method=word) for word in ("original", "sisa", "e2urec", "retrain")]
    last, named = ReportDocument(run="r", rows=methods).subject_row(), ReportDocument(run="r", rows=methods, subject="sisa").subject_row()
    assert last is not None
    assert named is not None
    assert (last.method, named.method) == ("e2urec", "sisa")
    assert ReportDocument(run="r", rows=methods[:1]).subject_row() is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_a_spread_can_be_taken_of_any_numbers(values: list[float]) -> None:
    spread = Spread.of(values)
    assert (spread.low, spread.high) == (min(values), max(values))


def test_a_spread_whose_mean_lies_outside_is_refused() -> None:
    with pytest.raises(ValidationError, match="outside"):
        Spread(mean=0.6, low=0.1, high=0.5)


def test_a_histogram_counts_every_row_once_and_one_in_the_last_bin() -> None:
    # Four bins of a quarter: 0 and 0.1 | 0.25 | none | 0.75 and 1.
    histogram = Histogram.of({"original": [0.0, 0.1, 0.25, 0.75, 1.0]}, num_bins=4)
    assert histogram.edges == [0, 0.25, 0.5, 0.75, 1]
    assert histogram.series == {"original": [2, 1, 0, 2]}


@pytest.mark.parametrize("edges", [[0.0, 0.5, 0.5, 1.0], [0.1, 0.2, 0.5, 1.0], [0.0, 1.0]])
def test_a_histogram_whose_bins_do_not_fit_is_refused(edges: list[float]) -> None:
    with pytest.raises(ValidationError):
        Histogram(edges=edges, series={"original": [1, 2, 3]})


def test_every_field_of_the_report_has_a_sentence() -> None:
    for model in (ReportDocument, MethodRow, SeedFloor, Spread, CurvePoint, Histogram):
        for name, field in model.model_fields.items():
            assert (field.description or "").endswith("."), f"{model.__name__}.{name}"


def test_the_documented_schema_is_the_present_one() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert schema_table() in page
    assert refreshed(page) == page, "run the command that docs/report.md names"
