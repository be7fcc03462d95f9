"""The gates on what a candidate still remembers: against Retrain, where there is one, and always against strangers.

Every gate also says how well it sees: what it makes of the unmodified champion, which remembers everybody.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy

from e2urec_core.audit.strangers import UNTOLD, Outcome, People, draw_splits, examine
from e2urec_core.metrics.forgetting import residual
from e2urec_core.metrics.utility import auc, row_losses
from e2urec_core.release.evidence import CANDIDATE, CHAMPION, FORGOTTEN, RETRAIN, STRANGERS, Evidence
from e2urec_core.release.gates import ForgettingGates
from e2urec_core.release.verdict import Blind, Gate, Power, shown

SEES: Blind = ""
ALIKE = "the champion answers as Retrain does, or all rows have one label"
ATTACK, USERS, TOGETHER = "attack", "user_test", "forgetting_without_retrain"


def retrain_gates(evidence: Evidence, rule: ForgettingGates) -> tuple[list[Gate], list[Power]]:
    """How far the candidate lies from Retrain on the forgotten rows; nothing where no Retrain was scored.

    A gate whose bound the unmodified champion would keep is blind: Retrains of other seeds lie as far apart as it does.
    """
    if not evidence.has(RETRAIN):
        return [], []
    rows = evidence.groups[FORGOTTEN]

    def left(role: str) -> float | None:
        return residual(rows.yes[role], rows.yes[RETRAIN], rows.yes[CHAMPION])

    def gap(role: str) -> float | None:
        own, aim = (auc(rows.labels, rows.yes[each]) for each in (role, RETRAIN))
        return abs(own - aim) if own is not None and aim is not None else None

    told = [
        _distance("residual", "Of the way to Retrain on the forgotten rows, {} is left", left, rule.residual, evidence, rule),
        _distance("forget_auc", "The AUC on the forgotten rows lies {} from Retrain's", gap, rule.auc_gap, evidence, rule),
    ]
    return [gate for gate, _ in told], [power for _, power in told]


def _distance(
    name: str, wording: str, measure: Callable[[str], float | None], bound: float, evidence: Evidence, rule: ForgettingGates
) -> tuple[Gate, Power]:
    """The gate on one distance to Retrain: at most `bound`, or what Retrains lie apart, with some slack."""
    fault = evidence.fault(FORGOTTEN, CANDIDATE, CHAMPION, RETRAIN, *evidence.further)
    own, champion, *apart = [None if fault else measure(role) for role in (CANDIDATE, CHAMPION, *evidence.further)]
    floor = max((value for value in apart if value is not None), default=None)
    at_most = bound if floor is None else max(bound, rule.slack * floor)
    refused = champion is not None and champion > at_most
    sight, blind = ("refuses", SEES) if refused else ("is blind: it does not refuse", rule.blind)
    seen = f"The gate `{name}` {sight} the unmodified champion (here: {shown(champion)})."
    apart_by = "" if floor is None else f"Retrains of other seeds lie up to {shown(floor)} away. "
    remark = fault or (ALIKE if own is None else f"{apart_by}{seen}")
    sentence = f"{wording.format(shown(own))}; it may be {shown(at_most)} at most."
    return Gate.of(name, "forgetting", own, sentence, at_most=at_most, remark=remark, blind=blind), Power(
        gate=name,
        champion=champion,
        refused=refused,
        refused_share=None,
        num_resamples=0,
        blind=not refused,
        sentence=seen,
    )


def stranger_gates(evidence: Evidence, rule: ForgettingGates, random: numpy.random.Generator) -> tuple[list[Gate], list[Power]]:
    """Whether forgotten users can be told from users nobody trained on: two-sided, by rows and by users; see `audit/strangers.py`.

    Args:
        evidence: The scores.
        rule: The bounds.
        random: Draws the exchanges of users, which are the same for candidate and champion, and the users that tell the power.
    """
    fault, champion = _fault(evidence, CANDIDATE), _fault(evidence, CHAMPION)
    own = remembering = drawn = None
    if not fault:
        people = _people(evidence, CANDIDATE)
        splits, bounds = draw_splits(people, rule.num_splits, random), (rule.level, rule.least_half_width)
        own = examine(people, splits, people.as_they_are(), *bounds)
        if not champion:
            people = _people(evidence, CHAMPION)
            remembering = examine(people, splits, people.as_they_are(), *bounds)
            drawn = examine(people, splits, people.resampled(rule.num_resamples, random), *bounds)
    power = _powers(remembering, drawn, rule)
    blind = {each.gate: rule.blind if each.blind else SEES for each in power}
    told = {each.gate: each.sentence for each in power}
    counts = evidence.counts()
    users = f"{counts[f'{FORGOTTEN}_users']:,} forgotten users and {counts[f'{STRANGERS}_users']:,} strangers"
    auc, gap, p_value = (own.attack.item(), own.gap.item(), own.p_value.item()) if own else (None, None, None)
    low, high = (own.low.item(), own.high.item()) if own else (UNTOLD - rule.least_half_width, UNTOLD + rule.least_half_width)
    attacked = f"Rows of {users} are told apart by their losses with an AUC of {shown(auc)}; {shown(low)} to {shown(high)} is chance."
    tested = f"The mean losses of {users} lie {shown(gap)} nats apart, p = {shown(p_value)}; at least {shown(rule.level)} is asked."
    return [
        Gate.of(ATTACK, "forgetting", auc, attacked, at_least=low, at_most=high, remark=fault or told[ATTACK], blind=blind[ATTACK]),
        Gate.of(USERS, "forgetting", p_value, tested, at_least=rule.level, remark=fault or told[USERS], blind=blind[USERS]),
    ], power


def _fault(evidence: Evidence, role: str) -> str:
    return evidence.fault(FORGOTTEN, role) or evidence.fault(STRANGERS, role)


def _people(evidence: Evidence, role: str) -> People:
    told = []
    for group in (FORGOTTEN, STRANGERS):
        rows = evidence.groups[group]
        told += [evidence.users[group], row_losses(rows.labels, rows.yes[role])]
    return People.of(*told)


def _powers(champion: Outcome | None, drawn: Outcome | None, rule: ForgettingGates) -> list[Power]:
    """How the champion fares in each test and in both together, as it is and over draws of users."""
    if champion is None or drawn is None:
        return [_power(name, None, refused=False, share=None, rule=rule) for name in (ATTACK, USERS, TOGETHER)]
    tested = {ATTACK: champion.attack.item(), USERS: champion.p_value.item(), TOGETHER: None}
    refused, often = (
        {ATTACK: told.attacked, USERS: told.p_value < rule.level, TOGETHER: told.attacked | (told.p_value < rule.level)}
        for told in (champion, drawn)
    )
    return [
        _power(name, value, refused=bool(refused[name].item()), share=float(often[name].mean()), rule=rule)
        for name, value in tested.items()
    ]


def _power(name: str, champion: float | None, *, refused: bool, share: float | None, rule: ForgettingGates) -> Power:
    blind = share is None or share < rule.least_power
    who = "The tests against strangers together" if name == TOGETHER else f"The gate `{name}`"
    would = (
        "could not be held against the unmodified champion"
        if share is None
        else f"would refuse the unmodified champion with chance {share:.2f}"
    )
    value = "" if champion is None else f" (here: {shown(champion)}, {'refused' if refused else 'not refused'})"
    return Power(
        gate=name,
        champion=champion,
        refused=refused,
        refused_share=share,
        num_resamples=0 if share is None else rule.num_resamples,
        blind=blind,
        sentence=f"{who} {would}{value}{': blind' if blind else ''}.",
    )
