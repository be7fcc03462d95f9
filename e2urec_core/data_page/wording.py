"""The findings as people read them, and as one JSON document: the page, the command and its JSON say the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from e2urec_core.data_page.findings import Findings
from e2urec_core.data_page.shape import Bars
from e2urec_core.data_page.verdicts import TableVerdict

GOOD, REFUSED = "good", "refused"
UNKNOWN = "–"


def verdict(findings: Findings) -> str:
    """`good` or `refused`."""
    return REFUSED if findings.refused else GOOD


def headline(findings: Findings) -> str:
    """The outcome in one sentence."""
    if findings.refused:
        return f"{findings.refused[:1].upper()}{findings.refused[1:]}."
    aside = sum(findings.counts.quarantined.values())
    rest = f"; {rows(aside)} break a rule and {'is' if aside == 1 else 'are'} put aside" if aside else ""
    kept = f"{findings.counts.kept:,} of {rows(findings.counts.read)} are kept{rest}"
    return f"{kept}, and all {len(findings.tables)} tables keep their contracts."


def rows(count: int) -> str:
    """A number of rows.

    >>> rows(1), rows(1200)
    ('1 row', '1,200 rows')
    """
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def day(seconds: int) -> str:
    """The date of a moment, UTC.

    >>> day(978_307_200)
    '2001-01-01'
    """
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def percent(count: int, whole: int) -> str:
    """A share; one that is not quite nothing is never shown as nothing.

    >>> percent(1, 8), percent(1, 1_000_000), percent(0, 3), percent(1, 0)
    ('12.5 %', '0.0001 %', '0 %', '–')
    """
    return f"{100 * count / whole:.3g} %" if whole else UNKNOWN


def whole(count: int | None) -> str:
    """A count, or a dash where nothing was counted.

    >>> whole(1200), whole(None)
    ('1,200', '–')
    """
    return UNKNOWN if count is None else f"{count:,}"


def comparison(published: int, found: int | None) -> str:
    """How a found count stands to the published one."""
    return "not counted" if found is None else "as published" if found == published else "differs"


def became(findings: Findings) -> list[tuple[str, int]]:
    """What became of the rows that were read; the counts add up to them."""
    counts = findings.counts
    return [
        ("kept", counts.kept),
        ("put aside, as they break a rule", sum(counts.quarantined.values())),
        *((f"left out: {reason}", count) for reason, count in counts.left_out.items()),
        ("repeated", counts.repeated),
        ("of deleted users", counts.deleted),
        ("suppressed", counts.suppressed),
    ]


def facts(findings: Findings) -> list[tuple[str, str]]:
    """The summary: names and values as text."""
    counts, shape = findings.counts, findings.shape
    span = " to ".join(map(day, findings.span_s)) if findings.span_s else UNKNOWN
    with_rows = f"{shape.num_users:,}" if shape else "0"
    return [
        ("rows read", f"{counts.read:,}"),
        ("rows kept", f"{counts.kept:,}"),
        ("users with rows", with_rows),
        ("users listed", whole(findings.users)),
        ("items listed", whole(findings.items)),
        ("time span, UTC", span),
        ("label rate", percent(findings.likes, counts.kept)),
        ("put aside", f"{sum(counts.quarantined.values()):,}"),
        ("left out", f"{sum(counts.left_out.values()):,}"),
        ("repeated", f"{counts.repeated:,}"),
        ("conflicting", f"{counts.conflicting:,}"),
        ("of deleted users", f"{counts.deleted:,}"),
        ("suppressed", f"{counts.suppressed:,}"),
    ]


def text(findings: Findings) -> str:
    """The summary for a terminal, without a line break at its end."""
    return "\n".join(printable(line).rstrip() for line in _lines(findings))


def _lines(findings: Findings) -> Iterator[str]:
    yield f"{verdict(findings)}: {headline(findings).removesuffix('.')}"
    yield from (f"  {name:<24} {value:>12}" for name, value in facts(findings))
    if findings.aside:
        yield "put aside by rule"
        for each in findings.aside:
            yield f"  {each.rule:<34} {each.num_rows:>10,}  first at {each.place}"
            if each.hint:
                yield f"    hint: {each.hint}"
    for reason, count in findings.counts.left_out.items():
        yield f"left out: {reason} {count:,}"
    if findings.expected:
        yield "published counts of the whole source, and those found"
        for name, count in findings.expected.items():
            yield f"  {name:<24} {count:>12,} {whole(findings.found[name]):>12}  {comparison(count, findings.found[name])}"
    yield "contracts"
    for table in findings.tables:
        yield f"  {table.contract.name:<24} {'not written' if table.num_rows is None else rows(table.num_rows):>16}  {table_verdict(table)}"
        yield from (f"    broken: {rule.name}, by {rows(rule.num_broken)}" for rule in table.rules if not rule.is_kept)
    yield from (f"remark: {remark}" for remark in findings.remarks)
    yield f"source:  {findings.source}"
    yield f"licence: {findings.licence}"
    yield from (f"published checksum of {name}: {checksum}" for name, checksum in findings.checksums.items())


def table_verdict(table: TableVerdict) -> str:
    """The outcome of one table in a few words."""
    if table.num_rows is None:
        return "not judged, as nothing was written"
    broken = sum(not rule.is_kept for rule in table.rules)
    return f"keeps all {len(table.rules)} rules" if not broken else f"breaks {broken} of {len(table.rules)} rules"


def document(findings: Findings) -> dict[str, Any]:
    """The same numbers as plain JSON values."""
    counts, shape = findings.counts, findings.shape
    return {
        "dataset": findings.dataset,
        "verdict": verdict(findings),
        "sentence": headline(findings),
        "hint": findings.hint,
        "source": findings.source,
        "licence": findings.licence,
        "checksums": dict(findings.checksums),
        "settings": dict(findings.settings),
        "remarks": list(findings.remarks),
        "rows": {
            "read": counts.read,
            "kept": counts.kept,
            "quarantined": sum(counts.quarantined.values()),
            "left_out": sum(counts.left_out.values()),
            "repeated": counts.repeated,
            "conflicting": counts.conflicting,
            "deleted": counts.deleted,
            "suppressed": counts.suppressed,
            "withheld": counts.withheld,
        },
        "users": {"with_rows": shape.num_users if shape else 0, "listed": findings.users},
        "items": findings.items,
        "likes": findings.likes,
        "label_rate": findings.likes / counts.kept if counts.kept else None,
        "oldest": day(findings.span_s[0]) if findings.span_s else None,
        "newest": day(findings.span_s[1]) if findings.span_s else None,
        "quarantined": [
            {"rule": each.rule, "rows": each.num_rows, "file": each.file, "line": each.line, "hint": each.hint} for each in findings.aside
        ],
        "left_out": dict(counts.left_out),
        "expected": {name: {"published": count, "found": findings.found[name]} for name, count in findings.expected.items()},
        "tables": [_table(table) for table in findings.tables],
        "by_time": _bars(shape.by_time) if shape else None,
        "by_rating": _bars(shape.by_rating) if shape else None,
        "rows_per_user": shape.rows_per_user if shape else None,
    }


def _table(table: TableVerdict) -> dict[str, Any]:
    rules = [{"rule": rule.name, "kept": rule.is_kept, "broken_rows": rule.num_broken} for rule in table.rules]
    return {"contract": table.contract.name, "rows": table.num_rows, "kept": table.is_kept, "rules": rules}


def _bars(bars: Bars) -> dict[str, Any]:
    return {"each": bars.each, "labels": list(bars.labels), "rows": list(bars.counts)}


def printable(said: str) -> str:
    """The text without what would steer a terminal or break a line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in said)
