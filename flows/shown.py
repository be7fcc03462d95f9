"""Prints reports: tables and sentences for people, the whole document for programs."""

from __future__ import annotations

from pathlib import Path


def show_report(place: Path, name: str, *, as_json: bool) -> None:
    """Print the report of a run, a column a method."""
    from e2urec_core.data.places import ENSEMBLE
    from e2urec_core.report import ReportDocument, summary, text_table
    from tasks._journal import Journal

    folder = place / "reports" / name
    text = (folder / "report.json").read_text()
    if as_json:
        print(text, end="")
        return
    document = ReportDocument.from_json(text)
    _print_table([list(column) for column in zip(*text_table(document), strict=True)])
    print(summary(document))
    print(f"report: {folder / 'report.html'}")
    journal = Journal.open(place / "runs", name)
    made = journal.record.stages["unlearn"].artifact()
    ensemble = made and place / "store" / "objects" / made.kind / made.digest
    if ensemble and (ensemble / ENSEMBLE).is_file():
        print(f"model:  {ensemble}, an ensemble, which is not in MLflow yet")
    else:
        print(f"model:  runs:/{journal.record.tracking_run}/recommender in MLflow")


def show_comparison(place: Path, name: str, *, as_json: bool) -> None:
    """Print the report of a comparison, a row a method."""
    from e2urec_core.report.comparison import ComparisonDocument, summary, text_table
    from e2urec_core.report.comparison.wording import legend

    folder = place / "reports" / name
    text = (folder / "comparison.json").read_text()
    if as_json:
        print(text, end="")
        return
    document = ComparisonDocument.from_json(text)
    _print_table(text_table(document))
    for sentence in filter(None, (legend(document), *summary(document))):
        print(sentence)
    print(f"report: {folder / 'report.html'}")


def _print_table(rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)
