"""Gives every method the same number of tries, and chooses among them without looking at what the comparison is about.

A method names the knobs that matter. The first try is the method as its settings have it; the others multiply each knob by a factor
between 1/reach and reach, spread evenly over all knobs at once. All are tried on a tuning seed of its own, with other users forgotten;
what is looked at are validation rows, and the distance to that seed's own Retrain. No test row and no Retrain of a reported seed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from e2urec_core.methods.base import Method
from e2urec_core.settings import Settings


class TuningRule(Settings):
    """How a comparison chooses each method's knobs."""

    budget: int = Field(4, ge=1, le=256)
    """Tries of each method that has knobs to choose, its own settings the first of them."""
    seed: int = Field(10, ge=0, le=2**31)
    """Seed of the deletion on which is tried; it must not be one that is reported."""
    reach: float = Field(4.0, gt=1, le=1000)
    """Largest factor by which a knob is multiplied or divided."""
    lost_auc: float = Field(0.01, ge=0, le=1)
    """Validation AUC that a try may lose against the lower of original and Retrain; of those that keep it, the nearest to Retrain wins."""


@dataclass(frozen=True)
class Tried:
    """What came of one try.

    Args:
        residual: Distance to the tuning seed's Retrain on the forgotten rows, 0 = equal, 1 = nothing done; None where it failed.
        auc: On validation rows of users who were not forgotten; None where it failed.
        fault: What stopped it.
    """

    residual: float | None = None
    auc: float | None = None
    fault: str = ""


def tries(method: Method, rule: TuningRule, fixed: Sequence[str] = ()) -> list[Method]:
    """The methods to try: `method` itself and, where it has knobs to choose that are not `fixed`, `rule.budget` - 1 variations of it.

    >>> from e2urec_core.methods.undial import Undial
    >>> len(tries(Undial(), TuningRule(budget=3)))
    3
    """
    knobs = [name for name in method.tuned if name not in fixed]
    if not knobs or rule.budget == 1:
        return [method]
    from scipy.stats import qmc

    points = qmc.Halton(d=len(knobs), scramble=True, rng=rule.seed).random(rule.budget - 1)
    return [method, *(_moved(method, knobs, rule.reach ** (2 * point - 1)) for point in points)]


def knobs_of(method: Method) -> dict[str, float]:
    """Values of the knobs that are tried, by their dotted names.

    >>> from e2urec_core.methods.undial import Undial
    >>> knobs_of(Undial(strength=4))
    {'training.learning_rate': 0.0001, 'strength': 4.0}
    """
    return {name: float(functools.reduce(getattr, name.split("."), method)) for name in method.tuned}  # type: ignore[arg-type]


def chosen(tried: Sequence[Tried], least_auc: float, rule: TuningRule) -> int | None:
    """Position of the try to take: of those that keep the utility the nearest to Retrain, else the one that keeps the most.

    Args:
        tried: What came of each.
        least_auc: The lower validation AUC of original and Retrain.
        rule: What may be lost of it.

    Returns:
        None where every try failed.
    """
    done = [(at, each.residual, each.auc) for at, each in enumerate(tried) if each.residual is not None and each.auc is not None]
    useful = [(residual, at) for at, residual, auc in done if auc >= least_auc - rule.lost_auc]
    if useful:
        return min(useful)[1]
    return max(done, key=lambda each: each[2])[0] if done else None


def _moved(method: Method, knobs: Sequence[str], factors: Any) -> Method:
    """`method` with each of `knobs` multiplied, within the knob's bounds."""
    told = method.canonical()
    for name, factor in zip(knobs, factors.tolist(), strict=True):
        owner: type[Settings] = type(method)
        place, *inner = told, *name.split(".")
        for step in inner[:-1]:
            owner, place = owner.model_fields[step].annotation, place[step]  # type: ignore[assignment]
        place[inner[-1]] = _inside(owner, inner[-1], place[inner[-1]] * factor)
    return type(method).model_validate(told)


def _inside(owner: type[Settings], field: str, value: float) -> float | int:
    """`value` moved to the nearest that the field admits."""
    info = owner.model_fields[field]
    bounds = {
        name: getattr(rule, name) for rule in info.metadata for name in ("ge", "gt", "le", "lt") if getattr(rule, name, None) is not None
    }
    assert "gt" not in bounds or value > bounds["gt"], field
    assert "lt" not in bounds or value < bounds["lt"], f"{field}: an open upper bound has no nearest value"
    inside = min(max(value, bounds.get("ge", value)), bounds.get("le", value))
    return round(inside) if info.annotation is int else inside
