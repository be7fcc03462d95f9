"""The contract page: what a source holds and which rules it keeps, in one HTML file without a script that reads well offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from e2urec_core.data_page.findings import Findings
from e2urec_core.data_page.shape import Bars
from e2urec_core.data_page.wording import became, comparison, day, facts, headline, percent, printable, rows, table_verdict, verdict, whole

LETTERS_BELOW = 56
"""So many letters fit below the bars of a narrow page, one label a bar; where there are more, three bars are named."""


@dataclass(frozen=True)
class Bar:
    """One bar of a drawing whose ground is 100 high; its label, and what is said when one points at it."""

    left: float
    height: float
    label: str
    hint: str


def render(findings: Findings) -> str:
    """The page; equal findings give equal bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    house = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    house.filters.update(printable=printable, rows=rows, day=day, whole=whole)
    shape = findings.shape
    return house.get_template("contract.html").render(
        findings=findings,
        verdict=verdict(findings),
        headline=headline(findings),
        facts=facts(findings),
        became=[(name, count, percent(count, findings.counts.read)) for name, count in became(findings) if count or name == "kept"],
        percent=percent,
        comparison=comparison,
        table_verdict=table_verdict,
        by_time=bars_of(shape.by_time) if shape else [],
        by_rating=bars_of(shape.by_rating) if shape else [],
        fits=lambda bars: sum(len(bar.label) + 1 for bar in bars) <= LETTERS_BELOW,
    )


def bars_of(bars: Bars) -> list[Bar]:
    """The bars as they are drawn; one that is not empty is never too low to be seen."""
    highest = max(bars.highest, 1)
    return [
        Bar(place, max(100 * count / highest, 1.0) if count else 0.0, label, f"{label}: {rows(count)}")
        for place, (label, count) in enumerate(zip(bars.labels, bars.counts, strict=True))
    ]
