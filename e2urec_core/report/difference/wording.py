"""The difference of two versions in words and in tables of text: the page and the terminal say the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from e2urec_core.report.difference.schema import (
    Changes,
    DifferenceDocument,
    Flips,
    Gate,
    Measure,
    MeasureName,
    Moved,
    MovedItems,
    MovedUsers,
    VersionFacts,
)
from e2urec_core.report.wording import UNDEFINED, distance, share, shown, whole

MEASURES: dict[MeasureName, tuple[str, str]] = {
    "auc": ("AUC", "Chance that a liked row is ranked above a disliked one; larger is better."),
    "log_loss": ("Log loss, nats", "Mean negative log-likelihood of the label; smaller is better."),
    "accuracy": ("Accuracy", "Share of rows whose likelier answer is the label; larger is better."),
    "calibration_error": ("Calibration error", "Mean distance between p(Yes) and the share of liked rows, bin by bin; smaller is better."),
    "mean_yes": ("Mean p(Yes)", "How readily the version says Yes; neither more nor less is better."),
}
GATE_COLUMNS = ("Value", "Asked for", "Room", "Outcome")


@dataclass(frozen=True)
class Table:
    """One table of text.

    Args:
        name: What it holds, for who cannot see it.
        header: Headings; the first is that of the rows' names.
        lines: Cells, as many a line as there are headings.
    """

    name: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def percent(part: float, whole_of_it: float = 1) -> str:
    """A share in per cent, two digits; what is not quite nothing is never shown as nothing.

    >>> percent(12, 1000), percent(1, 30_000), percent(0, 3), percent(3, 3), percent(0, 0)
    ('1.2 %', '0.0033 %', '0 %', '100 %', '–')
    """
    if not whole_of_it:
        return UNDEFINED
    told = 100 * part / whole_of_it
    return f"{told:.3g} %" if told >= 10 else f"{told:.2g} %"


def signed(value: float) -> str:
    """A difference: its sign and four digits, or two and a power of ten where those four would all be 0.

    >>> signed(0.01234), signed(0.0001234), signed(-0.00004321), signed(0)
    ('+0.0123', '+0.0001', '−4.3e-05', '0')
    """
    if value == 0:
        return "0"
    size = f"{abs(value):.4f}" if abs(value) >= 0.00005 else f"{abs(value):.1e}"
    return f"{'+' if value > 0 else '−'}{size}"


def counted(count: int, one: str) -> str:
    """A number of things.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{whole(count)} {one}" if count == 1 else f"{whole(count)} {one}s"


def named(facts: VersionFacts) -> str:
    """A version as sentences name it."""
    return f"version {facts.version}"


def heading(document: DifferenceDocument) -> str:
    """The title of the page."""
    return f"Version {document.a.version} → version {document.b.version}"


def headline(document: DifferenceDocument) -> str:
    """What changes, in one sentence."""
    test, old, new = document.test, named(document.a), named(document.b).capitalize()
    rows = counted(test.num_rows, "test row")
    if test.mean_absolute is None or test.largest is None:
        return f"There are no test rows, so nothing can be said of what changes from {old} to {named(document.b)}."
    if test.num_equal == test.num_rows:
        return f"{new} gives exactly the same p(Yes) as {old} on all {rows}."
    moved = f"p(Yes) moved by {distance(test.mean_absolute)} on average and by {distance(test.largest)} at most"
    if not test.num_flipped:
        return f"{new} gives the same answers as {old} on all {rows}; {moved}."
    return (
        f"{new} gives the same answers as {old} but for {percent(test.num_flipped, test.num_rows)} of the test rows "
        f"({whole(test.num_flipped)} of {whole(test.num_rows)}); {moved}."
    )


def sentences(document: DifferenceDocument) -> list[str]:
    """What to know next: the measures, the gates, the forgotten rows."""
    return [told for told in (_on_measures(document), _on_gates(document), _on_forgotten_rows(document)) if told]


def _on_measures(document: DifferenceDocument) -> str:
    if document.test.num_equal == document.test.num_rows:
        return ""
    by_verdict: dict[str, list[str]] = {}
    for measure in document.test.measures:
        if measure.verdict is not None and measure.name != "mean_yes":
            name = MEASURES[measure.name][0].removesuffix(", nats")
            number = f" ({signed(measure.difference or 0)})" if measure.verdict in ("better", "worse") else ""
            by_verdict.setdefault(measure.verdict, []).append(f"{name if name.isupper() else name.lower()}{number}")
    told = [f"{word} in {', '.join(by_verdict[word])}" for word in ("better", "worse", "not told apart", "equal") if word in by_verdict]
    users = counted(document.test.num_users, "user")
    old, new = named(document.a), named(document.b).capitalize()
    if 0 < document.test.num_users < document.rule.fewest_users:
        return f"The test rows are of {users}; with fewer than {document.rule.fewest_users} no difference is told from chance."
    return f"{new} against {old} on the test rows of {users}: {'; '.join(told)}." if told else ""


def _on_gates(document: DifferenceDocument) -> str:
    if not (document.a.gates or document.b.gates):
        return "No gate judged either version."
    return f"{_passed(document.a)}; {_passed(document.b)}.".capitalize()


def _passed(facts: VersionFacts) -> str:
    failed = [gate.name for gate in facts.gates if not gate.passed]
    if not facts.gates:
        return f"no gate judged {named(facts)}"
    if not failed:
        return f"{named(facts)} passed {counted(len(facts.gates), 'gate')}"
    return f"{named(facts)} failed {len(failed)} of {counted(len(facts.gates), 'gate')} ({', '.join(failed)})"


def _on_forgotten_rows(document: DifferenceDocument) -> str:
    forgotten, test = document.forgotten, document.test
    if forgotten is None:
        return f"{named(document.b).capitalize()} has forgotten nobody whose rows could be asked about."
    if forgotten.mean_absolute is None:
        return f"There are no rows that {named(document.b)} has forgotten."
    beside = "" if test.mean_absolute is None else f", on the test rows by {distance(test.mean_absolute)}"
    return (
        f"On the {counted(forgotten.num_rows, 'row')} that {named(document.b)} has forgotten, p(Yes) moved by "
        f"{distance(forgotten.mean_absolute)} on average{beside}."
    )


def measures_table(document: DifferenceDocument, changes: Changes, name: str) -> Table:
    """The measures of both versions, their difference, its interval and what that says."""
    header = ("Measure", *_versions(document), "Difference", "95 % interval", "Verdict")
    return Table(name, header, tuple(_measure_line(measure) for measure in changes.measures))


def _measure_line(measure: Measure) -> tuple[str, ...]:
    between = UNDEFINED if measure.low is None or measure.high is None else f"[{signed(measure.low)}, {signed(measure.high)}]"
    values = (shown(measure.a, share), shown(measure.b, share), shown(measure.difference, signed))
    return MEASURES[measure.name][0], *values, between, measure.verdict or UNDEFINED


def _versions(document: DifferenceDocument) -> tuple[str, str]:
    return f"Version {document.a.version}", f"Version {document.b.version}"


def facts_table(document: DifferenceDocument) -> Table:
    """The cards of both versions side by side."""
    rows: Sequence[tuple[str, Callable[[VersionFacts], str]]] = (
        ("Made by", lambda facts: facts.method or "no unlearning"),
        ("Kind", lambda facts: facts.kind),
        ("Made at, UTC", lambda facts: facts.made_at),
        ("Run", lambda facts: facts.run),
        ("Forget requests carried out", lambda facts: whole(facts.num_forgotten_requests)),
        ("Digest", lambda facts: facts.digest[:12]),
    )
    lines = tuple((name, read(document.a), read(document.b)) for name, read in rows)
    return Table("Both versions", ("", *_versions(document)), lines)


def card_table(document: DifferenceDocument) -> Table:
    """The measures on both cards, which were taken when each version was released, maybe on other rows."""
    names = dict.fromkeys([*document.a.measures, *document.b.measures])
    told = [[shown(facts.measures.get(name), lambda value: f"{value:.6g}") for facts in (document.a, document.b)] for name in names]
    lines = tuple((name, *cells) for name, cells in zip(names, told, strict=True))
    return Table("Measures on the cards", ("Measure", *_versions(document)), lines)


@dataclass(frozen=True)
class GateLine:
    """One gate: the cells of version A and of version B (see `GATE_COLUMNS`), and what each remarks, which may be nothing."""

    name: str
    cells: tuple[tuple[str, ...], tuple[str, ...]]
    remarks: tuple[str, str]


def gate_lines(document: DifferenceDocument) -> list[GateLine]:
    """Every gate that judged one of the versions, in the order of version B."""
    gates = [{gate.name: gate for gate in facts.gates} for facts in (document.a, document.b)]
    pairs = {name: (gates[0].get(name), gates[1].get(name)) for name in [*gates[1], *gates[0]]}
    return [GateLine(name, (_gate(a), _gate(b)), (a.remark if a else "", b.remark if b else "")) for name, (a, b) in pairs.items()]


def _gate(gate: Gate | None) -> tuple[str, ...]:
    if gate is None:
        return UNDEFINED, UNDEFINED, UNDEFINED, "not judged"
    numbers = [shown(value, lambda value: f"{value:.4g}".replace("-", "−")) for value in (gate.value, gate.margin)]
    return numbers[0], gate.bound or UNDEFINED, numbers[1], "passed" if gate.passed else "failed"


def moved_table(most: Sequence[Moved], name: str, what: str) -> Table:
    """Users or items whose rows moved most."""
    header = (what, "Rows", "Mean |change|", "Mean change", "Log loss before", "Log loss after")
    return Table(name, header, tuple(_moved_line(each) for each in most))


def _moved_line(each: Moved) -> tuple[str, ...]:
    losses = share(each.log_loss_a), share(each.log_loss_b)
    return each.name or "(no title)", whole(each.num_rows), distance(each.mean_absolute), signed(each.mean_change), *losses


def on_moved(document: DifferenceDocument, moved: MovedUsers | MovedItems, one: str) -> str:
    """How many are listed, and who is left out for having too few rows."""
    fewest = document.rule.fewest_rows
    few = (
        f"{whole(moved.num_few)} of {counted(moved.num_all, one)} have fewer than {fewest} test rows and are left out."
        if moved.num_few
        else ""
    )
    if moved.most:
        return f"The {counted(len(moved.most), one)} with the largest mean |change|. {few}".rstrip()
    return (
        f"Nothing to list: {few}"
        if moved.num_few == moved.num_all > 0
        else f"Nothing to list: no {one} with {fewest} test rows or more moved."
    )


def flips_table(document: DifferenceDocument) -> Table:
    """Answers that turn, by how active their users are."""
    header = ("Users", "How many", "Test rows", "No to Yes", "Yes to No", "Share of rows that turn")
    return Table("Answers that turn", header, tuple(_flips_line(each) for each in document.flips))


def _flips_line(each: Flips) -> tuple[str, ...]:
    turned = each.num_to_yes + each.num_to_no
    counts = (whole(count) for count in (each.num_users, each.num_rows, each.num_to_yes, each.num_to_no))
    return each.users.capitalize(), *counts, percent(turned, each.num_rows)


def ranks_table(document: DifferenceDocument) -> Table:
    """Whether users' items keep their order."""
    ranks = document.ranks
    lines = (
        (f"Users with at least {document.rule.fewest_ranked} test rows", whole(ranks.num_users)),
        ("Median of Kendall's tau", shown(ranks.median_tau, share)),
        ("Users whose whole order is the same", shown(ranks.share_unchanged, percent)),
        ("Users whose first item is the same", shown(ranks.share_same_first, percent)),
    )
    return Table("Order of users' items", ("Agreement", "Value"), lines)


def text_lines(document: DifferenceDocument) -> list[str]:
    """The outcome for a terminal: the sentences, the table of measures, how many users and items moved most."""
    table = measures_table(document, document.test, "Measures on the test rows")
    widths = [max(map(len, column)) for column in zip(table.header, *table.lines, strict=True)]
    rows = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in (table.header, *table.lines)
    ]
    lines = [headline(document), *sentences(document), "", *("  ".join(row).rstrip() for row in rows), ""]
    lines += [_brief(document, document.users, "user"), _brief(document, document.items, "item"), *document.notes]
    return ["".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line) for line in lines]


def _brief(document: DifferenceDocument, moved: MovedUsers | MovedItems, one: str) -> str:
    ends = f", mean |change| {distance(moved.most[0].mean_absolute)} down to {distance(moved.most[-1].mean_absolute)}" if moved.most else ""
    few = f"{whole(moved.num_few)} of {whole(moved.num_all)} have fewer than {document.rule.fewest_rows} test rows"
    return f"{counted(len(moved.most), one)} that moved most{ends} ({few})."
