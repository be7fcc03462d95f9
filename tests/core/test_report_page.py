"""report.html and its words: safe, self-contained, the same bytes for the same numbers, and true to the rows."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from e2urec_core.report import (
    CurvePoint,
    ForgottenTestRow,
    Histogram,
    MethodRow,
    ReportDocument,
    SeedFloor,
    Spread,
    StageTime,
    render,
    summary,
    text_table,
)
from e2urec_core.report.wording import can_be_measured
from tests.html_page import Page

HOSTILE = '<script>alert(\'x\')</script>" onload="x" $\\frac$ {{ 7 * 7 }} \x07 ]]>'


def document(**changes: Any) -> ReportDocument:
    rng = np.random.default_rng(0)
    points = [CurvePoint(step=n, loss=2 / (1 + n), parts={"retain": 1.2 / (1 + n), "forget": 0.8 / (1 + n)}) for n in range(400)]
    whole: dict[str, Any] = {
        "run": "sample-tiny-t5-e2urec",
        "rows": [
            MethodRow(method="original", auc=0.71, forget_auc=0.91, residual=1, seconds=31.25, total_parameters=605066),
            MethodRow(method="retrain", auc=0.715, forget_auc=0.45, residual=0, jsd=0, seconds=1234.56, total_parameters=605066),
            MethodRow(method="e2urec", title="E2URec", auc=0.71239, forget_auc=0.48, residual=0.34, jsd=0.00004321, seconds=6.2),
        ],
        "seed_floor": SeedFloor(
            num_retrains=2, jsd=Spread.of([0.01, 0.02]), auc=Spread.of([0.71, 0.72]), forget_auc=Spread.of([0.43, 0.47])
        ),
        "forgotten_test": [ForgottenTestRow(method="e2urec", num_rows=1204, accuracy=0.6)],
        "counts": {"forgotten": 2400, "test": 3712},
        "curves": {"original": points, "e2urec": points[:1]},
        "probabilities": Histogram.of({word: rng.random(50) for word in ("original", "retrain", "e2urec")}),
        "stages": [StageTime(stage="ingest", seconds=1.26)],
        "settings": {"method": {"suppression": 2.0, "lora": {"rank": 16}}},
    }
    return ReportDocument(**(whole | changes))


def without_floor() -> ReportDocument:
    return document(seed_floor=None)


def with_nothing_defined() -> ReportDocument:
    rows = [MethodRow(method=word) for word in ("original", "retrain", "e2urec")]
    return ReportDocument(run="r", rows=rows, seed_floor=SeedFloor(num_retrains=1), curves={"original": []})


def with_poles_only() -> ReportDocument:
    return document(rows=document().rows[:2])


def with_a_flat_histogram() -> ReportDocument:
    return document(probabilities=Histogram.of({"original": []}))


def with_twelve_methods_at_one_spot() -> ReportDocument:
    return document(rows=[MethodRow(method=f"method_{n}", auc=0.7, forget_auc=0.5) for n in range(12)])


CASES = [document, without_floor, with_nothing_defined, with_poles_only, with_a_flat_histogram, with_twelve_methods_at_one_spot]


@pytest.mark.parametrize("case", CASES)
def test_a_page_needs_nothing_from_the_network_and_runs_no_script(case: Any) -> None:
    html = render(case())
    page = Page(html)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "action", "data")]
    assert all(link.startswith("#") for link in links)
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    assert not re.search(r"@import|url\((?!['\"]?#)", html)


def test_equal_documents_give_equal_bytes_also_by_way_of_json() -> None:
    assert render(document()) == render(ReportDocument.from_json(document().to_json()))


def test_every_id_of_a_page_stands_once_and_every_reference_finds_one() -> None:
    html = render(document())
    page = Page(html)
    ids = [value for name, value in page.attributes if name == "id"]
    wanted = [value[1:] for name, value in page.attributes if name == "xlink:href"] + re.findall(r"url\(#([^)]+)\)", html)
    assert len(set(ids)) == len(ids)
    assert set(wanted) <= set(ids)


def test_hostile_names_are_shown_as_text() -> None:
    rows = [*document().rows, MethodRow(method=HOSTILE, title=HOSTILE, auc=0.6, forget_auc=0.6)]
    curves = {HOSTILE: [CurvePoint(step=1, loss=1, parts={HOSTILE: 1, "b": 2})]}
    histogram = Histogram(edges=[0, 1], series={HOSTILE: [3]})
    words = {name: {HOSTILE: HOSTILE} for name in ("settings", "versions", "digests", "verdict")}
    html = render(document(run=HOSTILE, rows=rows, curves=curves, probabilities=histogram, notes=[HOSTILE], **words))
    page = Page(html)
    assert "script" not in page.tags
    assert "onload" not in [name for name, _ in page.attributes]
    assert "<script" not in html
    assert "{{ 7 * 7 }}" in page.text


def test_undefined_numbers_are_dashes_that_say_so() -> None:
    html = render(with_nothing_defined())
    assert '<td title="auc is undefined here">–</td>' in html
    assert not re.search(r"\b(nan|None|inf)\b", Page(html).text)


def test_the_table_rounds_each_number_in_its_own_way() -> None:
    header, original, retrain, subject, floor = text_table(document())
    by_heading = [dict(zip(header, line, strict=True)) for line in (original, retrain, subject, floor)]
    assert by_heading[0]["Method"] == "Original"
    assert by_heading[0]["All parameters"] == "605,066"
    assert by_heading[1]["Seconds"] == "1,234.6"
    assert by_heading[2]["AUC"] == "0.7124"
    assert by_heading[2]["JSD, nats"] == "4.3e-05"
    assert by_heading[2]["Attack AUC"] == "–"
    assert by_heading[3]["Forget AUC"] == "0.4300–0.4700"
    assert by_heading[3]["Attack AUC"] == "–"
    assert by_heading[3]["Seconds"] == ""


def test_the_page_shows_the_table_that_the_command_prints() -> None:
    text = re.sub(r"<[^>]+>", "|", render(document()))
    for line in text_table(document())[1:]:
        assert re.search(r"\|+".join(re.escape(cell) for cell in line if cell), text)


def test_without_further_retrains_there_is_no_floor_row_and_the_summary_says_that_noise_is_unknown() -> None:
    assert len(text_table(without_floor())) == 1 + 3
    assert "noise is not known" in summary(without_floor())


@pytest.mark.parametrize(("forget_auc", "place"), [(0.48, "above"), (0.45, "inside"), (0.40, "below")])
def test_the_summary_says_where_the_subject_lies_to_the_seed_floor(forget_auc: float, place: str) -> None:
    *poles, subject = document().rows
    assert f"E2URec lies {place} the seed floor of 0.4300 to 0.4700" in summary(
        document(rows=[*poles, subject.model_copy(update={"forget_auc": forget_auc})])
    )


@pytest.mark.parametrize(("jsd", "measurable"), [(0.0201, True), (0.02, False), (0.001, False), (None, None)])
def test_a_set_up_in_which_the_original_is_like_another_retrain_is_told_first(jsd: float | None, measurable: bool | None) -> None:
    # Retrains of other seeds lie 0.01 and 0.02 nats from the paired one.
    original, *others = document().rows
    judged = document(rows=[original.model_copy(update={"jsd": jsd}), *others])
    assert can_be_measured(judged) is measurable
    said = summary(judged)
    assert said.startswith("No forgetting can be measured in this set-up") == (measurable is False)
    if measurable is False:
        assert "up to 0.0200." in said
        assert "--training.num-epochs" in said
        assert "--forget.share" in said
    assert can_be_measured(without_floor()) is None


def test_every_number_of_the_summary_stands_in_the_table() -> None:
    cells = " ".join(cell for line in text_table(document()) for cell in line)
    numbers = re.findall(r"\d\.\d+", summary(document()))
    assert len(numbers) == 8
    assert all(number in cells for number in numbers)


@pytest.mark.parametrize("case", CASES)
def test_a_summary_is_made_of_whole_sentences(case: Any) -> None:
    said = summary(case())
    assert said.endswith(".")
    assert "None" not in said
