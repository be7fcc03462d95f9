"""Measures of both versions on the same rows, how sure their differences are, and how the change of p(Yes) is spread.

Rows of one user hang together, so for the intervals users are drawn and not rows, the same ones for both versions.

Source: the cluster bootstrap (Field and Welsh 2007); calibration error over bins of equal mass (Naeini et al. 2015; Nixon et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from e2urec_core.evaluation import Scored
from e2urec_core.metrics.calibration import bins_of, calibration_error
from e2urec_core.metrics.utility import accuracy, auc, log_loss, row_losses
from e2urec_core.report.comparison.resampling import middle_of, weighted_auc
from e2urec_core.report.difference.schema import Changes, DifferenceRule, Histogram, Measure, MeasureName, Verdict
from e2urec_core.seeding import numpy_generator

A, B = "a", "b"
"""What the two versions are called among the scores."""
SMALLER_IS_BETTER = {"auc": False, "log_loss": True, "accuracy": False, "calibration_error": True}
HALF_OF_THE_BARS = 10
WIDTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""How far the histogram may reach to both sides; the least that holds 99 % of the rows is taken, the outermost bins take the others."""
CELLS_AT_A_TIME = 2**22


def changes(scored: Scored, users: numpy.ndarray, rule: DifferenceRule, *, group: str) -> Changes:
    """All that is said of one group of rows.

    Args:
        scored: p(Yes) of the models `A` and `B`.
        users: The user's number of each row, (row,).
        rule: How to compare.
        group: `test` or `forgotten`; names the draws, and of forgotten rows no value is better.
    """
    yes, moved = (scored.yes[A], scored.yes[B]), scored.yes[B] - scored.yes[A]
    to_yes, to_no = turned(*yes)
    return Changes(
        num_rows=len(moved),
        num_users=len(numpy.unique(users)),
        num_equal=int((moved == 0).sum()),
        num_to_yes=int(to_yes.sum()),
        num_to_no=int(to_no.sum()),
        mean_absolute=float(numpy.abs(moved).mean()) if len(moved) else None,
        largest=float(numpy.abs(moved).max()) if len(moved) else None,
        measures=_measures(scored, users, rule, group),
        histogram=histogram(moved),
    )


def turned(a: numpy.ndarray, b: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Which rows turn from No to Yes, and which from Yes to No, (row,) each; p = 0.5 counts as Yes."""
    return (a < 0.5) & (b >= 0.5), (a >= 0.5) & (b < 0.5)


def histogram(moved: numpy.ndarray) -> Histogram:
    """Rows by p_b - p_a in 21 bins, the middle one around 0; the outermost hold whatever lies farther out."""
    reach = float(numpy.quantile(numpy.abs(moved), 0.99)) if len(moved) else 0.0
    width = next(width for width in WIDTHS if reach <= width) / HALF_OF_THE_BARS
    edges = (numpy.arange(2 * HALF_OF_THE_BARS + 2) - HALF_OF_THE_BARS - 0.5) * width
    edges[0], edges[-1] = -1.0, 1.0
    return Histogram(edges=edges.tolist(), counts=numpy.histogram(moved, bins=edges)[0].tolist())


def _measures(scored: Scored, users: numpy.ndarray, rule: DifferenceRule, group: str) -> list[Measure]:
    values = [_values(scored.labels, scored.yes[model], rule.num_bins) for model in (A, B)]
    drawn = differences_drawn(scored, users, rule, group)
    return [_measure(name, values[0][name], values[1][name], drawn.get(name), judged=group == "test") for name in values[0]]


def _values(labels: numpy.ndarray, yes: numpy.ndarray, num_bins: int) -> dict[MeasureName, float | None]:
    return {
        "auc": auc(labels, yes),
        "log_loss": log_loss(labels, yes),
        "accuracy": accuracy(labels, yes),
        "calibration_error": calibration_error(labels, yes, num_bins),
        "mean_yes": float(yes.mean()) if len(yes) else None,
    }


def _measure(name: MeasureName, a: float | None, b: float | None, drawn: numpy.ndarray | None, *, judged: bool) -> Measure:
    if a is None or b is None:
        return Measure(name=name, a=a, b=b)
    low, high = middle_of(drawn) if drawn is not None else (None, None)
    verdict = _verdict(b - a, low, high, smaller_is_better=SMALLER_IS_BETTER.get(name) if judged else None)
    return Measure(name=name, a=a, b=b, difference=b - a, low=low, high=high, verdict=verdict)


def _verdict(difference: float, low: float | None, high: float | None, *, smaller_is_better: bool | None) -> Verdict | None:
    if difference == 0 and not low and not high:
        return "equal"
    if low is None or high is None:
        return None
    if low <= 0 <= high:
        return "not told apart"
    if smaller_is_better is None:
        return "higher" if low > 0 else "lower"
    return "better" if (high < 0) == smaller_is_better else "worse"


def differences_drawn(scored: Scored, users: numpy.ndarray, rule: DifferenceRule, group: str) -> dict[str, numpy.ndarray]:
    """Each measure of B less that of A on every draw of users, (draw,) each; NaN where a draw leaves it undefined.

    Empty with fewer users than the rule asks for. The bins of the calibration error are those of all rows.
    """
    names, place = numpy.unique(users, return_inverse=True)
    if len(names) < rule.fewest_users:
        return {}
    yes = (scored.yes[A], scored.yes[B])
    losses, right = [row_losses(scored.labels, p) for p in yes], [(p >= 0.5) == (scored.labels == 1) for p in yes]
    by_row = {"log_loss": losses[1] - losses[0], "accuracy": right[1].astype(float) - right[0], "mean_yes": yes[1] - yes[0]}
    by_user = {name: numpy.bincount(place, values) for name, values in by_row.items()}
    rows, gaps = numpy.bincount(place), [_gaps_by_user(place, scored.labels, p, rule.num_bins) for p in yes]
    told: dict[str, list[numpy.ndarray]] = {}
    for drawn in _draws(len(names), len(users), rule, group):
        num_rows = drawn @ rows
        errors = [numpy.abs(drawn @ gap).sum(axis=1) / num_rows for gap in gaps]
        aucs = [weighted_auc(scored.labels, p, drawn[:, place]) for p in yes]
        found = {name: drawn @ sums / num_rows for name, sums in by_user.items()}
        for name, values in {**found, "calibration_error": errors[1] - errors[0], "auc": aucs[1] - aucs[0]}.items():
            told.setdefault(name, []).append(values)
    return {name: numpy.concatenate(pieces) for name, pieces in told.items()}


def _gaps_by_user(place: numpy.ndarray, labels: numpy.ndarray, yes: numpy.ndarray, num_bins: int) -> numpy.ndarray:
    """Sum of p(Yes) less label over each user's rows in each bin, (user, bin)."""
    bins = bins_of(yes, num_bins)
    gaps = numpy.zeros((place.max() + 1, bins.max() + 1))
    numpy.add.at(gaps, (place, bins), yes - labels)
    return gaps


def _draws(num_users: int, num_rows: int, rule: DifferenceRule, group: str) -> Iterator[numpy.ndarray]:
    """How often each user is drawn, (draw, user), some draws at a time."""
    random, share = numpy_generator(rule.seed, f"difference-draws-{group}"), numpy.full(num_users, 1 / num_users)
    at_a_time = max(1, CELLS_AT_A_TIME // num_rows)
    for start in range(0, rule.num_draws, at_a_time):
        yield random.multinomial(num_users, share, size=min(at_a_time, rule.num_draws - start)).astype(float)
