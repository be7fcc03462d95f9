"""Puts the comparison of two versions together from their scores, and refuses scores that are not of the same rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from e2urec_core.errors import BadInput
from e2urec_core.evaluation import Scored
from e2urec_core.metrics.calibration import calibration_curve
from e2urec_core.report.difference.compute import A, B, changes
from e2urec_core.report.difference.moved import flips, moved_items, moved_users, rank_agreement
from e2urec_core.report.difference.schema import PSEUDONYM, CalibrationCurve, DifferenceDocument, DifferenceRule, VersionFacts

HINT = "score both versions again on the same rows"


@dataclass(frozen=True)
class PairedRows:
    """Rows that both versions were asked about.

    Args:
        scored: Rows with p(Yes) of the models `a` and `b`.
        users: The number of each row's user, whole numbers, (row,); it groups rows and is shown nowhere.
        items: Place of each row's item in the table of items, whole numbers, (row,).
        pseudonyms: What each row's user is called on the page, 20 hex digits, one a row.
        activity: Training rows of each row's user, (row,); None where that is not known.
    """

    scored: Scored
    users: numpy.ndarray
    items: numpy.ndarray
    pseudonyms: Sequence[str]
    activity: numpy.ndarray | None = None


def assemble(
    a: VersionFacts,
    b: VersionFacts,
    test: PairedRows,
    titles: Sequence[str],
    rule: DifferenceRule,
    *,
    forgotten: PairedRows | None = None,
    notes: Sequence[str] = (),
) -> DifferenceDocument:
    """What changes when version B takes the place of version A.

    Args:
        a: The version that would go.
        b: The version that would come.
        test: The test rows; equal rows give equal documents, whatever else ran before.
        titles: Title of each item, by its place in the table of items.
        rule: How to compare.
        forgotten: The rows that B has forgotten, told apart; None where it has forgotten nobody.
        notes: Sentences that a reader of the numbers must know.

    Raises:
        BadInput: The rows do not fit together, or a number among them is none.
    """
    for group, rows in (("test", test), ("forgotten", forgotten)):
        if rows is not None:
            _check(group, rows, len(titles))
    scored, users = test.scored, test.users
    curves = [calibration_curve(scored.labels, scored.yes[model], rule.num_bins) for model in (A, B)]
    calibration = [CalibrationCurve.model_validate({name: getattr(curve, name).tolist() for name in curve._fields}) for curve in curves]
    return DifferenceDocument(
        a=a,
        b=b,
        test=changes(scored, users, rule, group="test"),
        forgotten=None if forgotten is None else changes(forgotten.scored, forgotten.users, rule, group="forgotten"),
        calibration_a=calibration[0],
        calibration_b=calibration[1],
        users=moved_users(scored, users, test.pseudonyms, rule),
        items=moved_items(scored, test.items, titles, rule),
        ranks=rank_agreement(scored, users, rule),
        flips=flips(scored, users, test.activity),
        activity="test rows" if test.activity is None else "training rows",
        rule=rule,
        notes=list(notes),
    )


def _check(group: str, rows: PairedRows, num_titles: int) -> None:
    scored, num_rows = rows.scored, len(rows.scored.labels)
    lengths = {
        "example_ids": len(scored.example_ids),
        "p(Yes) of a": len(scored.yes[A]),
        "p(Yes) of b": len(scored.yes[B]),
        "users": len(rows.users),
        "items": len(rows.items),
        "pseudonyms": len(rows.pseudonyms),
        "activity": num_rows if rows.activity is None else len(rows.activity),
    }
    if wrong := {name: length for name, length in lengths.items() if length != num_rows}:
        raise BadInput(f"the {group} rows have {num_rows:,} labels and columns of other lengths", facts=wrong, hint=HINT)
    faults = {
        "labels other than 0 and 1": int((~numpy.isin(scored.labels, (0, 1))).sum()),
        "p(Yes) of a outside 0 to 1": _num_outside(scored.yes[A]),
        "p(Yes) of b outside 0 to 1": _num_outside(scored.yes[B]),
        "rows that come twice": num_rows - len(numpy.unique(scored.example_ids)),
        f"items outside a table of {num_titles:,}": int(((rows.items < 0) | (rows.items >= num_titles)).sum()),
        "pseudonyms that are not 20 hex digits": sum(not re.fullmatch(PSEUDONYM, name) for name in rows.pseudonyms),
        "users of two pseudonyms": len(set(zip(rows.users.tolist(), rows.pseudonyms, strict=True))) - len(numpy.unique(rows.users)),
    }
    for fault, count in faults.items():
        if count:
            raise BadInput(f"the {num_rows:,} {group} rows have {count:,} {fault}", hint=HINT)


def _num_outside(yes: numpy.ndarray) -> int:
    # NaN is on no side of a bound.
    return int((~((yes >= 0) & (yes <= 1))).sum())
