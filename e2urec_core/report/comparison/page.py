"""The comparison as one page that needs nothing else: a single HTML file without a script."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from e2urec_core.report.comparison.plots import drawings
from e2urec_core.report.comparison.schema import ComparedRow, ComparisonDocument, Difference
from e2urec_core.report.comparison.wording import COLUMNS, Column, error, floor_cell, interval, legend, reference_title, sign, summary
from e2urec_core.report.page import flat, templates
from e2urec_core.report.wording import UNDEFINED, whole


@dataclass(frozen=True)
class Cell:
    """One cell: what is printed, the noise below it, how it stands to the reference, and what is said when one points at it."""

    text: str
    below: tuple[str, ...] = ()
    sign: str = ""
    hint: str = ""


def render(document: ComparisonDocument) -> str:
    """The page; equal documents give equal bytes."""
    return (
        templates(Path(__file__).parent)
        .get_template("comparison.html")
        .render(
            document=document,
            sentences=summary(document),
            legend=legend(document),
            reference=reference_title(document),
            groups=[(name, len(list(columns))) for name, columns in groupby(COLUMNS, key=lambda column: column.group)],
            columns=COLUMNS,
            rows=[(row.method, row.title, row.fault, [_cell(row, column) for column in COLUMNS]) for row in document.rows],
            floor=[floor_cell(document, column) for column in COLUMNS] if document.floor else None,
            drawings=drawings(document),
            tries=[(row.title, [_tried(each) for each in row.tries]) for row in document.rows if row.tries],
            published=[{name: _plain(value) for name, value in row.items()} for row in document.published],
            counts=[{name.replace("_", " "): whole(count) for name, count in counts.items()} for counts in document.counts],
            folded={
                "Settings that all methods share": dict(flat(document.settings)),
                "Settings of each method, as chosen": dict(flat(document.chosen)),
                "Versions": document.versions,
                "Digests of the scores": document.digests,
            },
        )
    )


def _cell(row: ComparedRow, column: Column) -> Cell:
    told = row.measures.get(column.field)
    if told is None:
        return Cell(UNDEFINED, hint=row.fault or f"{column.field} is undefined here")
    values = ", ".join(column.shown(value) for value in told.values)
    below = tuple(filter(None, (error(told, column.shown), interval(told, column.shown))))
    hint = f"by seed: {values}{_compared(row.against.get(column.judged))}"
    return Cell(column.shown(told.mean), below, sign(row, column), hint)


def _compared(difference: Difference | None) -> str:
    if difference is None:
        return ""
    return (
        f"; difference {difference.mean:.4g} [{difference.low:.4g}, {difference.high:.4g}], p {difference.p_value:.2g}, "
        f"corrected {difference.adjusted:.2g}: {difference.verdict}"
    )


def _plain(value: Any) -> str:
    """A published figure as text; large numbers with separators."""
    return whole(value) if isinstance(value, int | float) and value >= 1000 else str(value)


def _tried(tried: Any) -> list[str]:
    knobs = ", ".join(f"{name} {value:.4g}" for name, value in tried.knobs.items())
    numbers = [UNDEFINED if value is None else f"{value:.4f}" for value in (tried.residual, tried.auc)]
    return [knobs, *numbers, "chosen" if tried.chosen else tried.fault]
