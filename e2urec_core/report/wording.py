"""Numbers as people read them: the table of methods, and the sentences above it. The page and the command print the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from e2urec_core.report.measures import MethodRow, SeedFloor, Spread
from e2urec_core.report.schema import ORIGINAL, RETRAIN, ReportDocument

UNDEFINED = "–"


def share(value: float) -> str:
    """An AUC, an accuracy or a loss: four digits.

    >>> share(0.71239)
    '0.7124'
    """
    return f"{value:.4f}"


def distance(value: float) -> str:
    """A number that may be very small: four digits, or two and a power of ten.

    >>> distance(0.01234), distance(0.00004321), distance(0)
    ('0.0123', '4.3e-05', '0')
    """
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 0.001 else f"{value:.4f}"


def seconds(value: float) -> str:
    """A time, one digit.

    >>> seconds(1234.56)
    '1,234.6'
    """
    return f"{value:,.1f}"


def whole(value: float) -> str:
    """A count, with separators.

    >>> whole(60506624)
    '60,506,624'
    """
    return f"{value:,.0f}"


@dataclass(frozen=True)
class Column:
    """One column of the table of methods; its sentence stands at the field of `MethodRow`."""

    field: str
    heading: str
    group: str
    shown: Callable[[float], str]

    @property
    def sentence(self) -> str:
        """What the column means."""
        return MethodRow.model_fields[self.field].description or ""


COLUMNS = (
    Column("auc", "AUC", "Test rows of other users", share),
    Column("accuracy", "Accuracy", "Test rows of other users", share),
    Column("log_loss", "Log loss, nats", "Test rows of other users", share),
    Column("forget_auc", "Forget AUC", "Forgotten rows", share),
    Column("attack_auc", "Attack AUC", "Forgotten rows", share),
    Column("jsd", "JSD, nats", "Distance to Retrain on forgotten rows", distance),
    Column("half_jeffreys", "Half-Jeffreys, nats", "Distance to Retrain on forgotten rows", distance),
    Column("l2", "L2", "Distance to Retrain on forgotten rows", distance),
    Column("residual", "Residual", "Distance to Retrain on forgotten rows", distance),
    Column("seconds", "Seconds", "Cost", seconds),
    Column("all_in_seconds", "All-in seconds", "Cost", seconds),
    Column("trainable_parameters", "Trained parameters", "Cost", whole),
    Column("total_parameters", "All parameters", "Cost", whole),
)


def title(document: ReportDocument, method: str) -> str:
    """A method's printed name."""
    row = document.row(method)
    if row is not None and row.title:
        return row.title
    return method.capitalize() if method in (ORIGINAL, RETRAIN, "augmented") else method


def shown(value: float | None, how: Callable[[float], str]) -> str:
    """The value as text, or a dash where it is undefined."""
    return UNDEFINED if value is None else how(value)


def floor_title(floor: SeedFloor) -> str:
    """Name of the row of the seed floor."""
    return f"Seed floor, {floor.num_retrains} further Retrain{'s' if floor.num_retrains > 1 else ''}"


def floor_cell(floor: SeedFloor, column: Column) -> str:
    """The range of one column over Retrains; empty for a column that the floor does not cover."""
    if column.field not in SeedFloor.model_fields:
        return ""
    spread: Spread | None = getattr(floor, column.field)
    if spread is None:
        return UNDEFINED
    low, high = column.shown(spread.low), column.shown(spread.high)
    return low if low == high else f"{low}–{high}"


def text_table(document: ReportDocument) -> list[list[str]]:
    """The table of methods as text, the header first and the seed floor last; `zip(*table)` turns it on its side."""
    table = [["Method", *(column.heading for column in COLUMNS)]]
    for row in document.rows:
        table.append([title(document, row.method), *(shown(getattr(row, column.field), column.shown) for column in COLUMNS)])
    if document.seed_floor is not None:
        floor = document.seed_floor
        table.append([floor_title(floor), *(floor_cell(floor, column) for column in COLUMNS)])
    return table


def summary(document: ReportDocument) -> str:
    """The outcome in plain words, every number taken from a row."""
    subject, original, retrain = document.subject_row(), document.row(ORIGINAL), document.row(RETRAIN)
    if subject is None:
        return "Nothing was unlearned in this run: the table holds the poles of the comparison only."
    name = title(document, subject.method)
    said = [
        _on_power(document, original),
        _on_forgotten_rows(document, subject, original, retrain, name),
        _on_test_rows(subject, retrain, name),
    ]
    if subject.residual is not None:
        said.append(
            f"On the forgotten rows its p(Yes) is {share(subject.residual)} times as far from Retrain's as Original's is "
            "(0 = equal to Retrain, 1 = nothing was done)."
        )
    return " ".join(sentence for sentence in said if sentence)


def can_be_measured(document: ReportDocument) -> bool | None:
    """Whether Original lies further from Retrain on the forgotten rows than Retrains of other seeds do; None where that is unknown.

    Where it does not, there is nothing to forget that the set-up could show, whatever a method gives.
    """
    original, floor = document.row(ORIGINAL), document.seed_floor
    if original is None or original.jsd is None or floor is None or floor.jsd is None:
        return None
    return original.jsd > floor.jsd.high


def _on_power(document: ReportDocument, original: MethodRow | None) -> str:
    if can_be_measured(document) is not False:
        return ""
    floor = document.seed_floor
    assert original is not None
    assert original.jsd is not None
    assert floor is not None
    assert floor.jsd is not None
    return (
        f"No forgetting can be measured in this set-up: on the forgotten rows Original lies {distance(original.jsd)} nats (JSD) from "
        f"Retrain, and Retrains of other seeds up to {distance(floor.jsd.high)}. More passes over the rows (--training.num-epochs), more "
        "forgotten users (--forget.share) or users whose labels are polluted (--forget.cohort) would leave something to forget."
    )


def _on_forgotten_rows(
    document: ReportDocument, subject: MethodRow, original: MethodRow | None, retrain: MethodRow | None, name: str
) -> str:
    value = subject.forget_auc
    if value is None:
        return f"The AUC of {name} on the forgotten rows is undefined."
    if original is None or original.forget_auc is None:
        said = f"{name} has an AUC of {share(value)} on the forgotten rows"
    elif share(original.forget_auc) == share(value):
        said = f"{name} left the forgotten rows' AUC at Original's {share(value)}"
    else:
        said = f"{name} moved the forgotten rows' AUC from {share(original.forget_auc)} (Original) to {share(value)}"
    if retrain is None or retrain.forget_auc is None:
        return f"{said}; no Retrain says where a model lies that never saw them."
    said = f"{said}; a model that never saw them (Retrain) has {share(retrain.forget_auc)}"
    floor = document.seed_floor.forget_auc if document.seed_floor else None
    if floor is None:
        return f"{said} (one seed, so the noise is not known)."
    place = "above" if value > floor.high else "below" if value < floor.low else "inside"
    return f"{said}, and {name} lies {place} the seed floor of {share(floor.low)} to {share(floor.high)}."


def _on_test_rows(subject: MethodRow, retrain: MethodRow | None, name: str) -> str:
    if subject.auc is None:
        return f"The test AUC of {name} is undefined."
    if retrain is None or retrain.auc is None:
        return f"Its test AUC is {share(subject.auc)}."
    return f"Its test AUC is {share(subject.auc)} against Retrain's {share(retrain.auc)}."
