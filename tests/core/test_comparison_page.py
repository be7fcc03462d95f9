"""The comparison's page and words: safe, self-contained, the same bytes for the same numbers, and true to the rows."""

from __future__ import annotations

from typing import Any

import pytest

from e2urec_core.report.comparison import ComparisonDocument, render, summary, text_table
from e2urec_core.report.comparison.schema import ComparedRow, Difference, Estimate, Floor, Power, Try
from tests.html_page import Page

HOSTILE = '<script>alert(\'x\')</script>" onload="x" {{ 7 * 7 }}'
MEASURES = (
    "auc",
    "accuracy",
    "log_loss",
    "forget_auc",
    "attack_auc",
    "jsd",
    "half_jeffreys",
    "l2",
    "residual",
    "seconds",
    "all_in_seconds",
)


def estimate(value: float, *, alone: bool = False) -> Estimate:
    if alone:
        return Estimate(mean=value, values=[value], low=value * 0.9, high=value * 1.1)
    return Estimate(mean=value, error=0.0123, low=value * 0.9, high=value * 1.1, values=[value * 0.95, value * 1.05])


def row(method: str, title: str, residual: float, **more: Any) -> ComparedRow:
    measures = {name: estimate(0.5 if name != "residual" else residual) for name in MEASURES}
    return ComparedRow(method=method, title=title, measures=measures, **more)


def against(verdict: Any) -> dict[str, Difference]:
    told = Difference(mean=-0.1, low=-0.2, high=-0.05, p_value=0.01, adjusted=0.02, verdict=verdict)
    return {"residual": told, "auc": told.model_copy(update={"verdict": "inside the floor"})}


def document(**changes: Any) -> ComparisonDocument:
    whole: dict[str, Any] = {
        "run": "compare-sample-tiny-t5",
        "reference": "e2urec",
        "seeds": [0, 1],
        "tuning_seed": 10,
        "budget": 2,
        "num_retrains": 2,
        "num_draws": 1000,
        "power": Power(rows=True, groups=True),
        "rows": [
            row("original", "Original", 1.0),
            row("retrain", "Retrain", 0.0),
            row("e2urec", "E2URec", 0.3, tries=[Try(knobs={"suppression": 60}, residual=0.3, auc=0.8, chosen=True)]),
            row("undial", "UNDIAL", 0.2, against=against("better")),
            row("ifru", "IFRU", 2.6, against=against("worse")),
            ComparedRow(method="apa", title="APA", fault="its shards are smaller than a batch"),
        ],
        "floor": {"residual": Floor(low=0.05, high=0.08), "auc": Floor(low=0.49, high=0.51)},
        "counts": [{"forgotten_users": 60, "test": 1500}],
        "settings": {"training": {"num_epochs": 8}},
        "chosen": {"e2urec": {"suppression": 60.0}},
        "notes": ["A sentence to know."],
    }
    return ComparisonDocument.model_validate({**whole, **changes})


def test_the_page_is_one_safe_file_with_every_row_and_both_figures() -> None:
    page = Page(render(document()))
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2
    for words in ("Original", "Retrain", "E2URec", "UNDIAL", "IFRU", "APA", "failed", "A sentence to know.", "Seed floor", "All tries"):
        assert words in page.text
    assert "0.2000 ▲" in page.text
    assert "2.6000 ▼" in page.text
    assert "± 0.0123" in page.text
    assert "[0.1800, 0.2200]" in page.text
    assert not any(value.startswith("http") for name, value in page.attributes if name in ("src", "href"))


def test_equal_documents_give_equal_bytes_and_come_back_from_json() -> None:
    assert render(document()) == render(ComparisonDocument.from_json(document().to_json()))


def test_whatever_a_name_holds_stays_text() -> None:
    hostile = document(run=HOSTILE, rows=[*document().rows[:3], row("undial", HOSTILE, 0.2)])
    page = Page(render(hostile))
    assert "script" not in page.tags
    assert not any(name == "onload" for name, _ in page.attributes)
    assert "{{ 7 * 7 }}" in page.text


def test_the_papers_figures_stand_in_a_table_of_their_own() -> None:
    page = Page(render(document(published=[{"Method": "SISA", "AUC, %": 75.35, "Trained parameters": 8.9e8}])))
    assert "The paper's own figures" in page.text
    assert "75.35" in page.text
    assert "890,000,000" in page.text
    assert "The paper's own figures" not in Page(render(document())).text


def test_the_table_shows_signs_intervals_and_who_failed() -> None:
    table = {line[0]: line[1:] for line in text_table(document())}
    assert list(table) == ["Method", "Original", "Retrain", "E2URec", "UNDIAL", "IFRU", "APA", "2 further Retrains a seed"]
    place = table["Method"].index("Residual")
    assert table["UNDIAL"][place] == "0.2000 ▲ [0.1800, 0.2200]"
    assert table["Original"][place] == "1.0000"
    assert table["UNDIAL"][table["Method"].index("Test AUC")] == "0.5000 ="
    assert set(table["APA"]) == {"–"}
    assert table["2 further Retrains a seed"][place] == "0.0500–0.0800"


def test_the_sentences_say_who_is_nearest_how_others_stand_and_who_failed() -> None:
    said = " ".join(summary(document()))
    assert "Nearest to Retrain on the forgotten rows: UNDIAL, residual 0.2000 [0.1800, 0.2200]; the furthest: IFRU, 2.6000." in said
    assert "Against E2URec in the distance to Retrain (residual): better: UNDIAL; worse: IFRU." in said
    assert "APA has no numbers: its shards are smaller than a batch." in said


@pytest.mark.parametrize(
    ("power", "first"),
    [
        pytest.param(Power(rows=True, groups=True), "Nearest to Retrain", id="a memory"),
        pytest.param(Power(rows=False, groups=False), "No forgetting can be measured in this set-up", id="none"),
        pytest.param(Power(rows=False, groups=True), "Row by row Original is no further from Retrain", id="as a group alone"),
        pytest.param(Power(rows=True, groups=False), "The forgotten rows as a group show no memory", id="row by row alone"),
        pytest.param(Power(), "No further Retrains were trained", id="no floor"),
    ],
)
def test_the_power_check_comes_first(power: Power, first: str) -> None:
    assert summary(document(power=power))[0].startswith(first)


def test_without_the_reference_nothing_is_better_or_worse() -> None:
    rows = [each for each in document().rows if each.method != "e2urec"]
    rows[2] = rows[2].model_copy(update={"against": {}})
    alone = document(rows=rows[:3])
    assert not any("Against" in sentence for sentence in summary(alone))
    assert "▲" not in Page(render(alone)).text


def test_one_seed_without_any_floor_can_be_shown() -> None:
    rows = [each.model_copy(update={"measures": {name: estimate(0.4, alone=True) for name in MEASURES}}) for each in document().rows[:3]]
    page = Page(render(document(seeds=[0], rows=rows, floor={}, power=Power())))
    assert page.tags.count("svg") == 2
    assert "±" not in page.text.replace("Mean ± standard error", "")
