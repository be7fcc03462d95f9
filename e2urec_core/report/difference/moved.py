"""For whom answers change: users and items whose rows moved most, the order of a user's items, and answers that turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy

from e2urec_core.evaluation import Scored
from e2urec_core.metrics.utility import row_losses
from e2urec_core.report.difference.compute import A, B, turned
from e2urec_core.report.difference.schema import DifferenceRule, Flips, Moved, MovedItems, MovedUser, MovedUsers, RankAgreement


def moved_users(scored: Scored, users: numpy.ndarray, pseudonyms: Sequence[str], rule: DifferenceRule) -> MovedUsers:
    """The users whose rows moved most; `pseudonyms` has one entry a row."""
    _, first, place = numpy.unique(users, return_index=True, return_inverse=True)
    most = [MovedUser.model_validate(told) for told in _most_moved(scored, place, [pseudonyms[row] for row in first], rule)]
    return MovedUsers(most=most, num_all=len(first), num_few=_num_few(place, rule))


def moved_items(scored: Scored, items: numpy.ndarray, titles: Sequence[str], rule: DifferenceRule) -> MovedItems:
    """The items whose rows moved most; `items` are places in `titles`, (row,)."""
    seen, place = numpy.unique(items, return_inverse=True)
    most = [Moved.model_validate(told) for told in _most_moved(scored, place, [titles[item] for item in seen], rule)]
    return MovedItems(most=most, num_all=len(seen), num_few=_num_few(place, rule))


def _num_few(place: numpy.ndarray, rule: DifferenceRule) -> int:
    return int((numpy.bincount(place) < rule.fewest_rows).sum())


def _most_moved(scored: Scored, place: numpy.ndarray, names: Sequence[str], rule: DifferenceRule) -> list[dict[str, Any]]:
    """Those with enough rows that moved at all, from the largest mean |change| down; equals in the order of their names."""
    rows, moved = numpy.bincount(place), scored.yes[B] - scored.yes[A]
    columns = {
        "mean_absolute": numpy.abs(moved),
        "mean_change": moved,
        "log_loss_a": row_losses(scored.labels, scored.yes[A]),
        "log_loss_b": row_losses(scored.labels, scored.yes[B]),
    }
    means = {name: numpy.bincount(place, values) / rows for name, values in columns.items()}
    distance = means["mean_absolute"]
    listed = [group for group in range(len(names)) if rows[group] >= rule.fewest_rows and distance[group] > 0]
    listed.sort(key=lambda group: (-distance[group], names[group]))
    return [
        {"name": names[group], "num_rows": int(rows[group]), **{name: float(values[group]) for name, values in means.items()}}
        for group in listed[: rule.most_listed]
    ]


def rank_agreement(scored: Scored, users: numpy.ndarray, rule: DifferenceRule) -> RankAgreement:
    """Whether both versions put the test rows of a user in the same order, over users with at least `fewest_ranked` rows.

    Source: Kendall 1945 (tau-b, which corrects for ties), as in SciPy.
    """
    from scipy.stats import kendalltau, rankdata

    order = numpy.argsort(users, kind="stable")
    _, starts = numpy.unique(users[order], return_index=True)
    taus, same_first = [], []
    for rows in numpy.split(order, starts[1:]):
        if len(rows) < rule.fewest_ranked:
            continue
        a, b = scored.yes[A][rows], scored.yes[B][rows]
        same_first.append(bool(((a == a.max()) & (b == b.max())).any()))
        # Where all rows are tied in both versions, tau is undefined, and the order the same.
        taus.append(1.0 if numpy.array_equal(rankdata(a), rankdata(b)) else float(kendalltau(a, b).statistic))
    if not taus:
        return RankAgreement(num_users=0)
    defined = [tau for tau in taus if numpy.isfinite(tau)]
    return RankAgreement(
        num_users=len(taus),
        median_tau=float(numpy.median(defined)) if defined else None,
        num_undefined=len(taus) - len(defined),
        share_unchanged=taus.count(1.0) / len(taus),
        share_same_first=sum(same_first) / len(taus),
    )


def flips(scored: Scored, users: numpy.ndarray, activity: numpy.ndarray | None) -> list[Flips]:
    """Answers that turn, of all users, of active ones (more rows than the median user) and of inactive ones.

    Args:
        scored: p(Yes) of both versions.
        users: The user's number of each row, (row,).
        activity: Training rows of the user of each row, (row,); None takes their test rows.
    """
    _, first, place = numpy.unique(users, return_index=True, return_inverse=True)
    of_user = numpy.bincount(place) if activity is None else activity[first]
    is_active = of_user > numpy.median(of_user) if len(of_user) else numpy.zeros(0, dtype=bool)
    groups: dict[Literal["all", "active", "inactive"], numpy.ndarray] = {
        "all": numpy.ones(len(first), dtype=bool),
        "active": is_active,
        "inactive": ~is_active,
    }
    to_yes, to_no = turned(scored.yes[A], scored.yes[B])
    return [
        Flips(
            users=name,
            num_users=int(chosen.sum()),
            num_rows=int(chosen[place].sum()),
            num_to_yes=int(to_yes[chosen[place]].sum()),
            num_to_no=int(to_no[chosen[place]].sum()),
        )
        for name, chosen in groups.items()
    ]
