"""contract.html and its words: safe, self-contained, the same bytes for the same findings, and true to the numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pytest

from data_contracts.contract import Violation
from data_contracts.interactions import INTERACTIONS, ITEMS
from e2urec_core.data.ingest import Counts, IngestRule
from e2urec_core.data_page import Findings, check_source, document, render, rows_of_users, text, verdicts
from e2urec_core.data_page.findings import Aside
from e2urec_core.data_page.shape import MOST_BARS, Bars, Shape, over_ratings, over_time
from e2urec_core.data_page.verdicts import RuleVerdict, TableVerdict
from e2urec_core.datasets.sample import Sample
from e2urec_core.errors import ContractBroken
from tests.html_page import Page

HOSTILE = '<script>alert(\'x\')</script>" onload="x" {{ 7 * 7 }} \x1b[31m\x07 ]]>'


def findings(**changes: Any) -> Findings:
    shape = Shape(
        by_time=Bars("month", ("2001-01", "2001-02", "2001-03"), (900, 0, 100)),
        by_rating=Bars("rating", ("1", "5", "none"), (400, 590, 10)),
        rows_per_user={"least": 1, "median": 4, "most": 77},
        num_users=123,
    )
    whole: dict[str, Any] = {
        "dataset": "ml-1m",
        "source": "Somebody 2015",
        "licence": "as you like",
        "expected": {"rows": 1_000_209, "users": 150, "items": 88},
        "checksums": {"rows.zip": "MD5 0123"},
        "settings": {"--dataset.path": "data/here"},
        "remarks": ("times are read as s since 1970",),
        "counts": Counts(1200, 1000, {"unknown item": 120, "time is negative": 3}, {"nobody rated it": 50}, 20, 4, 7),
        "aside": (Aside("unknown item", 120, "ratings.dat", 17, "add it"), Aside("time is negative", 3, "ratings.dat", 90, "")),
        "tables": (
            TableVerdict(INTERACTIONS, 1000, tuple(RuleVerdict(rule.name, True) for rule in INTERACTIONS.all_rules())),
            TableVerdict(ITEMS, 88, (RuleVerdict("has rows", True), RuleVerdict("item_id unique", False, 2))),
        ),
        "users": 150,
        "items": 88,
        "likes": 600,
        "span_s": (978_307_200, 983_491_200),
        "shape": shape,
        "refused": "123 of 1,150 rows (10.7 %) break a rule; at most 0.1 % may",
        "hint": "add it",
    }
    return Findings(**{**whole, **changes})


def test_equal_findings_give_equal_bytes() -> None:
    assert render(findings()) == render(findings())


def test_the_page_needs_nothing_else() -> None:
    page = Page(html := render(findings()))
    assert not {"script", "link", "iframe", "object", "img", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "action") or name.startswith("on")]
    assert not re.search(r"@import|url\(|https?://", html)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_hostile_names_are_text() -> None:
    spoilt = findings(
        dataset=HOSTILE,
        source=HOSTILE,
        licence=HOSTILE,
        settings={f"--{HOSTILE}": HOSTILE},
        remarks=(HOSTILE,),
        refused=HOSTILE,
        hint=HOSTILE,
        aside=(Aside(HOSTILE, 1, HOSTILE, 1, HOSTILE),),
        counts=Counts(3, 1, {HOSTILE: 1}, {HOSTILE: 1}),
        tables=(TableVerdict(ITEMS, 3, (RuleVerdict(HOSTILE, False, 1),)),),
        shape=Shape(Bars("day", (HOSTILE,), (1,)), Bars("rating", (HOSTILE,), (1,)), {HOSTILE: 1}, 1),
    )
    page = Page(render(spoilt))
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert('x')</script>") >= 10
    assert "49" not in page.text
    assert "\x1b" not in text(spoilt)


def test_the_page_says_the_numbers_and_the_verdicts() -> None:
    said = re.sub(r"\s+", " ", Page(render(findings())).text)
    for words in (
        "refused. 123 of 1,150 rows (10.7 %) break a rule; at most 0.1 % may.",
        "What to do: add it.",
        "rows read 1,200",
        "2001-01-01 to 2001-03-02",
        "label rate 60 %",
        "rows 1,000,209 1,200 differs",
        "items 88 88 as published",
        "unknown item 120 10 % ratings.dat:17 add it",
        "left out: nobody rated it 50",
        "keeps all 11 rules",
        "breaks 1 of 2 rules",
        "item_id unique broken 2",
        "2001-01: 900 rows",
        "median 4",
    ):
        assert words.lower() in said.lower(), words
    good = re.sub(r"\s+", " ", Page(render(findings(refused="", hint=""))).text)
    assert "good. 1,000 of 1,200 rows are kept; 123 rows break a rule and are put aside, and all 2 tables keep" in good


def test_every_bar_is_drawn_within_its_ground_and_none_that_counts_is_invisible() -> None:
    bars = Bars("day", tuple(map(str, range(3))), (1, 1_000_000, 0))
    html = render(findings(shape=Shape(bars, bars, {}, 3)))
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', html)]
    assert heights == [1, 100, 0] * 2


def test_a_source_of_which_nothing_was_kept_has_a_page_and_a_summary() -> None:
    nothing = findings(
        counts=Counts(5, 0, {"unknown item": 5}),
        tables=(TableVerdict(INTERACTIONS, None),),
        shape=None,
        span_s=None,
        users=None,
        items=None,
    )
    assert "not judged, as nothing was written" in render(nothing)
    assert "not counted" in text(nothing)
    assert document(nothing)["label_rate"] is None


def test_the_document_is_plain_json_of_the_same_numbers() -> None:
    told = json.loads(json.dumps(document(findings()), allow_nan=False))
    became = {"read": 1200, "kept": 1000, "quarantined": 123, "left_out": 50, "repeated": 20, "conflicting": 4}
    assert told["rows"] == became | {"deleted": 7, "suppressed": 0, "withheld": 0}
    assert told["expected"]["users"] == {"published": 150, "found": 150}
    assert told["tables"][1]["rules"][1] == {"rule": "item_id unique", "kept": False, "broken_rows": 2}
    assert (told["oldest"], told["newest"], told["label_rate"]) == ("2001-01-01", "2001-03-02", 0.6)


def test_bars_over_time_lose_no_row_and_stay_few() -> None:
    day = 86_400
    for days, each in ((0, "day"), (100, "day"), (400, "month"), (40_000, "year")):
        seconds = numpy.linspace(0, days * day, 1000).astype(numpy.int64)
        bars = over_time(seconds)
        assert (bars.each, sum(bars.counts)) == (each, 1000)
        assert len(bars.counts) <= max(MOST_BARS, 131)
    assert over_time(numpy.array([978_307_199, 978_307_200])).labels == ("2000-12-31", "2001-01-01")


def test_bars_over_ratings_lose_no_row() -> None:
    few = over_ratings(pa.chunked_array([pa.array([4.5, None, 0.5, 4.5], pa.float32())]))
    assert (few.labels, few.counts) == (("0.5", "4.5", "none"), (1, 2, 1))
    many = over_ratings(pa.chunked_array([pa.array(numpy.linspace(0, 1, 999, dtype=numpy.float32))]))
    assert (len(many.counts), sum(many.counts)) == (20, 999)
    none = over_ratings(pa.chunked_array([pa.nulls(3, pa.float32())]))
    assert (none.labels, none.counts) == (("none",), (3,))


def test_a_generated_source_is_good_and_its_counts_add_up(tmp_path: Path) -> None:
    found, refusal = check_source(Sample(num_users=30), IngestRule(), tmp_path)
    assert refusal is None
    assert found.counts.add_up()
    assert [table.is_kept for table in found.tables] == [True] * 4
    assert found.shape is not None
    assert sum(found.shape.by_time.counts) == sum(found.shape.by_rating.counts) == found.counts.kept
    users = rows_of_users(tmp_path)
    assert sum(users.column("rows").to_pylist()) == found.counts.kept
    listed = list(zip(users.column("rows").to_pylist(), users.column("user_id").to_pylist(), strict=True))
    assert listed == sorted(listed, key=lambda each: (-each[0], each[1]))


def test_a_broken_contract_is_told_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(contract: Any, _table: Any) -> list[Violation]:
        return [Violation("title not null", 3, ("row 1: title missing",))] if contract is ITEMS else []

    monkeypatch.setattr(verdicts, "broken_rules", broken)
    found, refusal = check_source(Sample(num_users=20), IngestRule(), tmp_path)
    assert isinstance(refusal, ContractBroken)
    assert found.refused == "3 of 360 rows break the rule `title not null` of the contract `items`"
    assert "broken: title not null, by 3 rows" in text(found)


def test_a_wrong_column_is_told_in_the_place_of_the_rules() -> None:
    verdict = verdicts.judge(ITEMS, pa.table({"item_id": pa.array([1, 2])}))
    assert [rule.is_kept for rule in verdict.rules] == [False, False]
    assert {rule.name for rule in verdict.rules} == {"item_id is string", "title is a column"}
