"""A comparison in words: the columns of its table, and the sentences above it. The page and the command print the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from e2urec_core.report.comparison.schema import ComparedRow, ComparisonDocument, Difference, Estimate, Verdict
from e2urec_core.report.schema import ORIGINAL, RETRAIN
from e2urec_core.report.wording import UNDEFINED, distance, seconds, share, whole

SIGNS: dict[Verdict, str] = {"better": "▲", "worse": "▼", "inside the floor": "=", "not told apart": "·"}
KNOBS_FOR_POWER = (
    "More passes over the rows (--training.num-epochs), more forgotten users (--forget.share) or users whose labels are polluted "
    "(--forget.cohort) would leave something to forget."
)


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Args:
        field: Name of the measure.
        heading: What stands above it.
        group: What stands above several.
        shown: Writes a number.
        judged: Measure whose difference to the reference is told beside it; empty for none.
        sentence: What it means.
    """

    field: str
    heading: str
    group: str
    shown: Callable[[float], str]
    judged: str
    sentence: str


_TEST, _GROUPS, _ROWS, _COST = (
    "Test rows of other users",
    "Forgotten rows as a group",
    "Forgotten rows, one by one: distance to Retrain",
    "Cost",
)
COLUMNS = (
    Column("auc", "AUC", _TEST, share, "auc", "AUC on the test rows of users who were not forgotten."),
    Column("accuracy", "Accuracy", _TEST, share, "accuracy", "Share of the same rows whose likelier answer is the label."),
    Column("log_loss", "Log loss, nats", _TEST, share, "log_loss", "Mean negative log-likelihood of the label on the same rows."),
    Column("forget_auc", "AUC", _GROUPS, share, "forget_gap", "AUC on the forgotten rows; the aim is Retrain's value, not one half."),
    Column("attack_auc", "Loss attack", _GROUPS, share, "attack_gap", "AUC of telling them by their loss from rows of never-seen users."),
    Column("jsd", "JSD, nats", _ROWS, distance, "jsd", "Mean Jensen-Shannon divergence to the paired Retrain."),
    Column("half_jeffreys", "Half-Jeffreys, nats", _ROWS, distance, "half_jeffreys", "What E2URec's code calls JSD."),
    Column("l2", "L2", _ROWS, distance, "l2", "Mean Euclidean distance of the two answers."),
    Column("residual", "Residual", _ROWS, distance, "residual", "Mean |p - p_retrain| over Original's; 1 = nothing done, 0 = Retrain."),
    Column("seconds", "Seconds", _COST, seconds, "", "Of the training or unlearning itself, wall clock."),
    Column("all_in_seconds", "All-in seconds", _COST, seconds, "", "With all that the method needed made first for this request."),
    Column("trainable_parameters", "Trained", _COST, whole, "", "Parameters that were trained."),
)


def error(told: Estimate, how: Callable[[float], str]) -> str:
    """The standard error of a measure, or nothing."""
    return f"± {how(told.error)}" if told.error else ""


def interval(told: Estimate, how: Callable[[float], str]) -> str:
    """The interval of a measure in brackets, or nothing where there is none to tell."""
    return "" if told.low is None or told.high is None or told.low == told.high else f"[{how(told.low)}, {how(told.high)}]"


def sign(row: ComparedRow, column: Column) -> str:
    """How the row stands to the reference in this column; empty where that is not judged."""
    difference = row.against.get(column.judged)
    return SIGNS[difference.verdict] if difference else ""


def floor_cell(document: ComparisonDocument, column: Column) -> str:
    """The range of one column between Retrains of one seed; empty where there is none."""
    floor = document.floor.get(column.field)
    if floor is None:
        return ""
    low, high = column.shown(floor.low), column.shown(floor.high)
    return low if low == high else f"{low}–{high}"


def text_table(document: ComparisonDocument) -> list[list[str]]:
    """The table for a terminal: the measures that decide, a row a method, the floor last."""
    kept = [column for column in COLUMNS if column.field in ("auc", "forget_auc", "attack_auc", "jsd", "residual", "all_in_seconds")]
    headings = {"auc": "Test AUC", "forget_auc": "Forget AUC", "attack_auc": "Attack AUC", "jsd": "JSD"}
    table = [["Method", *(headings.get(column.field, column.heading) for column in kept)]]
    for row in document.rows:
        if row.fault:
            table.append([row.title, *([UNDEFINED] * len(kept))])
            continue
        table.append([row.title, *(_brief(row, column) for column in kept)])
    if document.floor:
        table.append([f"{document.num_retrains} further Retrains a seed", *(floor_cell(document, column) for column in kept)])
    return table


def _brief(row: ComparedRow, column: Column) -> str:
    told = row.measures.get(column.field)
    if told is None:
        return UNDEFINED
    between = f" {interval(told, column.shown)}" if column.field == "residual" and row.method not in (ORIGINAL, RETRAIN) else ""
    return f"{column.shown(told.mean)} {sign(row, column)}".rstrip() + between.rstrip()


def legend(document: ComparisonDocument) -> str:
    """What the signs in the table mean; empty without a reference."""
    name = reference_title(document)
    if not name:
        return ""
    return (
        f"Against {name}: {SIGNS['better']} better, {SIGNS['worse']} worse, {SIGNS['inside the floor']} inside the floor (Retrains of "
        f"other seeds differ as much), {SIGNS['not told apart']} not told apart by these seeds and users."
    )


def reference_title(document: ComparisonDocument) -> str:
    """The reference's name; empty where it was not compared."""
    row = document.row(document.reference) if document.reference else None
    return row.title if row is not None and not row.fault else ""


def summary(document: ComparisonDocument) -> list[str]:
    """The outcome in sentences, the power check first."""
    said = [*_on_power(document), *_on_nearest(document), *_on_reference(document)]
    failed = [row for row in document.rows if row.fault]
    said += [f"{row.title} has no numbers: {row.fault}." for row in failed]
    return said


def _on_power(document: ComparisonDocument) -> list[str]:
    power = document.power
    if power.rows is None:
        return ["No further Retrains were trained, so a difference cannot be told from noise; set `--evaluate.floor-seeds 2`."]
    if power.rows and power.groups:
        return []
    if not power.rows and not power.groups:
        return [f"No forgetting can be measured in this set-up: Original cannot be told from Retrains of other seeds. {KNOBS_FOR_POWER}"]
    if power.groups:
        return [
            "Row by row Original is no further from Retrain than Retrains of other seeds, so the distances below say nothing; "
            "the forgotten rows as a group (their AUC, the loss attack) do show a memory."
        ]
    return ["The forgotten rows as a group show no memory; only their distances to Retrain, row by row, do."]


def _done(document: ComparisonDocument) -> list[ComparedRow]:
    return [row for row in document.rows if row.method not in (ORIGINAL, RETRAIN) and "residual" in row.measures]


def _on_nearest(document: ComparisonDocument) -> list[str]:
    # What is trained without the forgotten rows is the aim itself, or a piece of it, and no way around training again.
    rows = sorted(_done(document), key=lambda row: row.measures["residual"].mean)
    if len(rows) < 2:
        return []
    first = rows[0]
    told = first.measures["residual"]
    return [
        f"Nearest to Retrain on the forgotten rows: {first.title}, residual {share(told.mean)} {interval(told, share)}".rstrip()
        + f"; the furthest: {rows[-1].title}, {share(rows[-1].measures['residual'].mean)}."
    ]


def _on_reference(document: ComparisonDocument) -> list[str]:
    name = reference_title(document)
    if not name:
        return []
    said = []
    for measure, words in (("residual", "in the distance to Retrain (residual)"), ("auc", "in the test AUC")):
        by_verdict: dict[str, list[str]] = {}
        for row in _done(document):
            difference: Difference | None = row.against.get(measure)
            if difference is not None:
                by_verdict.setdefault(difference.verdict, []).append(row.title)
        told = [f"{verdict}: {', '.join(titles)}" for verdict, titles in sorted(by_verdict.items())]
        if told:
            said.append(f"Against {name} {words}: {'; '.join(told)}.")
    return said
