"""Reads a source as the stage `ingest` does and notes what it holds, also where the gate refuses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2urec_core.data.appending import read_counts
from e2urec_core.data.ingest import Counts, IngestRule, ingest
from e2urec_core.data.places import QUARANTINE
from e2urec_core.data.quarantine import refuse_too_many
from e2urec_core.data.suppressed import Suppressed
from e2urec_core.data_page.shape import Shape, shape_of
from e2urec_core.data_page.verdicts import TableVerdict, judge, refusal, tables_of
from e2urec_core.datasets.base import Dataset, Source
from e2urec_core.errors import BadInput, UserError
from e2urec_core.plugins import word


@dataclass(frozen=True)
class Aside:
    """Rows that break one rule: how many, where the first stands, and what to do about them.

    Where all of them name suppressed users, none may be told: `file` is empty and `line` 0.
    """

    rule: str
    num_rows: int
    file: str
    line: int
    hint: str

    @property
    def place(self) -> str:
        """File and line of the first that may be told."""
        return f"{self.file}:{self.line}" if self.line else "a row that names a suppressed user"


@dataclass(frozen=True)
class Findings:
    """What a source holds. Nobody is named.

    Args:
        dataset: Its word on the command line.
        source: Where the data come from.
        licence: What may be done with them.
        expected: Published counts of the whole source: `rows`, `users`, `items`.
        checksums: Published checksums, by the name of the file that they are of.
        settings: Flags with which the source was read.
        remarks: How it was read.
        counts: What became of the rows.
        aside: Rows that break a rule, most first.
        tables: The tables against their contracts.
        users: Users that the tables list; None where nothing was written.
        items: Items that the tables list; likewise.
        likes: Kept rows whose user liked the item.
        span_s: Oldest and newest kept row, seconds since 1970, UTC; None where no row is kept.
        shape: How the kept rows are spread; None where none is.
        refused: Why the gate does not let the source in, one sentence, or nothing.
        hint: What to do about that.
    """

    dataset: str
    source: str
    licence: str
    expected: Mapping[str, int]
    checksums: Mapping[str, str]
    settings: Mapping[str, str]
    remarks: tuple[str, ...]
    counts: Counts
    aside: tuple[Aside, ...]
    tables: tuple[TableVerdict, ...]
    users: int | None = None
    items: int | None = None
    likes: int = 0
    span_s: tuple[int, int] | None = None
    shape: Shape | None = None
    refused: str = ""
    hint: str = ""

    @property
    def found(self) -> dict[str, int | None]:
        """The counts that stand beside the published ones."""
        return {"rows": self.counts.read, "users": self.users, "items": self.items}


@dataclass
class _Heard:
    """What the reading told on its way."""

    source: Source | None = None
    counts: Counts = field(default_factory=lambda: Counts(0, 0))

    def take(self, source: Source, counts: Counts) -> None:
        self.source, self.counts = source, counts


def read_source(dataset: Dataset, rule: IngestRule, place: Path, suppressed: Suppressed | None = None) -> None:
    """Read the source through the gate into the empty folder `place`, without what is on the suppression list.

    Raises:
        BadInput: What the stage `ingest` raises.
    """
    ingest(dataset, rule, place, suppressed=suppressed)


def check_source(
    dataset: Dataset, rule: IngestRule, place: Path, suppressed: Suppressed | None = None
) -> tuple[Findings, UserError | None]:
    """Read the source into the empty folder `place`, without what is on the suppression list, and hold the tables against their contracts.

    Returns:
        What was found, and what the gate would raise, if anything.

    Raises:
        BadInput: The source is no such table at all, so there is nothing to count.
    """
    heard, fault = _Heard(), None
    try:
        # Everything is let through while rows are counted; the rule's own bound is applied below.
        ingest(dataset, rule.model_copy(update={"max_quarantined": 1.0}), place, counted=heard.take, suppressed=suppressed)
    except BadInput as error:
        if heard.source is None:
            raise
        fault = error
    source, counts = heard.source, heard.counts
    assert source is not None, "the reading told nothing"
    tables = tuple(judge(contract, table) for contract, table in tables_of(place))
    error_of = _too_many(source, counts, rule, place) or fault or refusal(tables)
    findings = Findings(
        dataset=word(dataset.kind),
        source=dataset.source,
        licence=dataset.licence,
        expected=dict(dataset.expected),
        checksums=dict(dataset.checksums),
        settings=_settings(dataset, rule),
        remarks=source.remarks,
        counts=counts,
        aside=_aside(source, counts, place),
        tables=tables,
        refused=error_of.fact if error_of else "",
        hint=error_of.hint if error_of else "",
        **(_held(place) if fault is None else {}),
    )
    return findings, error_of


def _settings(dataset: Dataset, rule: IngestRule) -> dict[str, str]:
    """Flags of the command that reads the source so, without those that are not set."""
    given = {"dataset": dataset.canonical(), "ingest": rule.canonical()}
    return {
        f"--{section}.{name.replace('_', '-')}": str(value)
        for section, values in given.items()
        for name, value in values.items()
        if name != "kind" and value not in (None, "")
    }


def _held(place: Path) -> dict[str, Any]:
    noted = read_counts(place)
    span = (noted["oldest_timestamp_s"], noted["newest_timestamp_s"])
    return {
        "users": noted["users"],
        "items": noted["items"],
        "likes": noted["likes"],
        "span_s": span,
        "shape": shape_of(place),
    }


def _too_many(source: Source, counts: Counts, rule: IngestRule, place: Path) -> BadInput | None:
    """What the gate says where too many rows break a rule."""
    read = counts.read - sum(counts.left_out.values())
    try:
        refuse_too_many(read, counts.quarantined, source, rule.max_quarantined, place)
    except BadInput as error:
        return error
    return None


def _aside(source: Source, counts: Counts, place: Path) -> tuple[Aside, ...]:
    import pyarrow.parquet as pq

    if not counts.quarantined:
        return ()
    # The quarantine stands in the order of files and lines; one thread keeps it.
    rows = pq.read_table(place / QUARANTINE, columns=["rule", "file", "line"])
    first = rows.group_by("rule", use_threads=False).aggregate([("file", "first"), ("line", "first")]).to_pylist()
    places = {row["rule"]: (row["file_first"], row["line_first"]) for row in first}
    return tuple(Aside(name, count, *places.get(name, ("", 0)), source.hints.get(name, "")) for name, count in counts.quarantined.items())
