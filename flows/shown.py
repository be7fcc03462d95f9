"""Prints reports: tables and sentences for people, the whole document for programs."""

from __future__ import annotations

from pathlib import Path

UNBROKEN = 1_000
"""Columns for a table that goes into a file or a pipe."""


def show_report(place: Path, name: str, *, as_json: bool) -> None:
    """Print the report of a run, a column a method."""
    from e2urec_core.data.places import VERDICT
    from e2urec_core.release.verdict import VerdictDocument
    from e2urec_core.report import ReportDocument, summary, text_table

    folder = place / "reports" / name
    text = (folder / "report.json").read_text()
    if as_json:
        print(text, end="")
        return
    document = ReportDocument.from_json(text)
    print_table([list(column) for column in zip(*text_table(document), strict=True)])
    print(summary(document))
    print(f"report: {folder / 'report.html'}")
    verdict = folder / VERDICT
    if verdict.is_file():
        print(f"verdict: {VerdictDocument.from_json(verdict.read_text()).text}")
    _show_release(place, name)


def show_trained(place: Path, name: str, *, as_json: bool) -> None:
    """Print what the gates said of a recommender that a run has trained, and what has become of it."""
    from e2urec_core.data.places import VERDICT
    from e2urec_core.release.verdict import VerdictDocument

    verdict = place / "reports" / name / VERDICT
    text = verdict.read_text() if verdict.is_file() else ""
    if as_json:
        print(text, end="")
        return
    if text:
        document = VerdictDocument.from_json(text)
        print_table([row[:-1] for row in document.table()])
        print(f"verdict: {document.text}")
    _show_release(place, name)


def _show_release(place: Path, name: str) -> None:
    """What has become of a run's recommender."""
    from e2urec_core.ledger import ledger_place, open_ledger
    from e2urec_core.ledger.releases import Releases
    from tasks._desk import model_name
    from tasks._stores import journals_of

    entry = journals_of(place).open(name).record.stages.get("bundle")
    handle = entry.artifact() if entry else None
    if handle is None:
        return
    releases = Releases(open_ledger(ledger_place(place)))
    release, line = releases.find(handle.digest), releases.line()
    if release is None:
        return
    print(f"model:  models:/{model_name()}/{release.registry_version} in MLflow")
    if line.champion == release.bundle:
        print("it is the champion")
    elif release.passed:
        print(f"hint: e2urec models promote {release.registry_version}")


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
    print_table(text_table(document))
    for sentence in filter(None, (legend(document), *summary(document))):
        print(sentence)
    print(f"report: {folder / 'report.html'}")


def show_difference(place: Path, name: str, *, as_json: bool) -> None:
    """Print what changes from one version to another."""
    from e2urec_core.report.difference import DifferenceDocument, text_lines

    folder = place / "reports" / name
    text = (folder / "difference.json").read_text()
    if as_json:
        print(text, end="")
        return
    for line in text_lines(DifferenceDocument.from_json(text)):
        print(line)
    print(f"report: {folder / 'report.html'}")


def print_table(rows: list[list[str]]) -> None:
    """Print rows of texts as a table; the first is its head. Into a file or pipe, lines are as long as they are."""
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for number, head in enumerate(rows[0]):
        # The first column names what the other commands are asked about, so it is never broken.
        longest = max(len(row[number]) for row in rows)
        table.add_column(head, overflow="fold", no_wrap=not number, min_width=None if number else longest)
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else UNBROKEN).print(table)
