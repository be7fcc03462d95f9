"""The report as one page that needs nothing else: numbers, plots and provenance in a single HTML file without a script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from e2urec_core.report.plots import drawings
from e2urec_core.report.schema import ReportDocument
from e2urec_core.report.wording import COLUMNS, UNDEFINED, floor_cell, floor_title, seconds, share, shown, summary, title, whole


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what is printed and what is said when one points at it."""

    text: str
    hint: str = ""


def templates(*folders: Path) -> Any:
    """The environment of pages in `folders`, with what all reports' pages have in common."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(document: ReportDocument) -> str:
    """The page; equal documents give equal bytes."""
    subject = document.subject_row()
    return (
        templates()
        .get_template("report.html")
        .render(
            document=document,
            subject=subject.method if subject else "",
            summary=summary(document),
            counts={name.replace("_", " "): whole(count) for name, count in document.counts.items()},
            groups=[(name, len(list(columns))) for name, columns in groupby(COLUMNS, key=lambda column: column.group)],
            columns=COLUMNS,
            rows=[(row.method, title(document, row.method), _cells(row)) for row in document.rows],
            floor=_floor_row(document),
            forgotten=[_forgotten_cells(document, index) for index in range(len(document.forgotten_test))],
            stages=[(stage.stage, seconds(stage.seconds)) for stage in document.stages],
            total=seconds(sum(stage.seconds for stage in document.stages)),
            drawings=drawings(document),
            verdict=dict(flat(document.verdict or {})),
            folded={
                "Settings": dict(flat(document.settings)),
                "Versions": document.versions,
                "Digests of the artifacts": document.digests,
            },
        )
    )


def _cells(row: Any) -> list[Cell]:
    return [_cell(getattr(row, column.field), shown(getattr(row, column.field), column.shown), column.field) for column in COLUMNS]


def _cell(value: float | None, text: str, field: str) -> Cell:
    return Cell(UNDEFINED, f"{field} is undefined here") if value is None else Cell(text, f"{value!r}" if text != f"{value}" else "")


def _floor_row(document: ReportDocument) -> tuple[str, list[Cell]] | None:
    floor = document.seed_floor
    if floor is None:
        return None
    texts = [floor_cell(floor, column) for column in COLUMNS]
    return floor_title(floor), [Cell(text, "undefined" if text == UNDEFINED else "lowest to highest") for text in texts]


def _forgotten_cells(document: ReportDocument, index: int) -> tuple[str, list[Cell]]:
    row = document.forgotten_test[index]
    numbers = [_cell(getattr(row, field), shown(getattr(row, field), share), field) for field in ("auc", "accuracy", "log_loss")]
    return title(document, row.method), [Cell(whole(row.num_rows)), *numbers]


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings under the dotted names of the command line."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _plain(value)


def _plain(value: Any) -> str:
    """A JSON value as text; a list reads as its entries."""
    if isinstance(value, list):
        return "; ".join(_plain(entry) for entry in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
