"""Turns the scores of many methods over several seeds into means, intervals, differences and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy

from e2urec_core.evaluation import ORIGINAL, RETRAIN, Scored, measure
from e2urec_core.report.comparison.resampling import DISTANCES, Draws, draw_users, measure_draws, middle_of
from e2urec_core.report.comparison.schema import Difference, Estimate, Floor, Power, Verdict

GAPS = ("forget_gap", "attack_gap")
HIGHER = ("auc", "accuracy")
JUDGED = ("auc", "accuracy", "log_loss", *GAPS, *DISTANCES)
"""Measures of which one method can be better than another."""
SIGNIFICANT = 0.05
# Apart, so that a seed that is drawn twice comes with other users.
STRIDE = 7919


@dataclass(frozen=True)
class OneSeed:
    """What was scored with one seed.

    Args:
        groups: Scored rows by group; every model that is there at all in each of them.
        users: The user of each row by group, (row,) each.
        further: Names of the further Retrains.
    """

    groups: Mapping[str, Scored]
    users: Mapping[str, numpy.ndarray]
    further: Sequence[str]


class Comparison:
    """Measures of all models over all seeds, on the same draws of seeds and users."""

    def __init__(self, seeds: Sequence[OneSeed], num_draws: int, random: numpy.random.Generator) -> None:
        """Draw `num_draws` times; every model is measured on these draws."""
        self.seeds = seeds
        self._weights = [draw_users(seed.users, num_draws, random) for seed in seeds]
        self._picked = random.integers(len(seeds), size=(num_draws, len(seeds)))
        self._estimated: dict[str, dict[str, Estimate]] = {}
        self._drawn: dict[str, Draws] = {}
        self._drawn_by_seed: dict[tuple[int, str], Draws] = {}
        self._measured: dict[tuple[int, str], dict[str, float]] = {}

    def estimates(self, model: str) -> dict[str, Estimate]:
        """Every measure of one model that is defined in all seeds."""
        if model not in self._estimated:
            told = [self._of(at, model) for at in range(len(self.seeds))]
            whole = [name for name in told[0] if all(name in each for each in told)]
            self._estimated[model] = {name: self._estimate(model, name, [each[name] for each in told]) for name in whole}
        return self._estimated[model]

    def _estimate(self, model: str, name: str, values: list[float]) -> Estimate:
        low, high = middle_of(self._draws(model)[name])
        return estimate(values).model_copy(update={"low": low, "high": high})

    def _of(self, at: int, model: str) -> dict[str, float]:
        """The measures of one model on all rows of a seed, those that are undefined left out."""
        if (at, model) not in self._measured:
            own = {name: float(value) for name, value in measure(self.seeds[at].groups, model).items() if value is not None}
            self._measured[at, model] = {**own, **_gaps(own, own if model == RETRAIN else self._of(at, RETRAIN))}
        return self._measured[at, model]

    def _draws(self, model: str) -> Draws:
        """Mean of each measure over the drawn seeds, (draw,) each."""
        if model not in self._drawn:
            by_seed = [self._draws_of(at, model) for at in range(len(self.seeds))]
            self._drawn[model] = {name: self._over_seeds([draws[name] for draws in by_seed]) for name in by_seed[0]}
        return self._drawn[model]

    def _draws_of(self, at: int, model: str) -> Draws:
        if (at, model) not in self._drawn_by_seed:
            own = measure_draws(self.seeds[at].groups, model, self._weights[at])
            self._drawn_by_seed[at, model] = {**own, **_gaps(own, own if model == RETRAIN else self._draws_of(at, RETRAIN))}
        return self._drawn_by_seed[at, model]

    def _over_seeds(self, draws: list[numpy.ndarray]) -> numpy.ndarray:
        stacked, (num_draws, num_seeds) = numpy.stack(draws), self._picked.shape
        users = (numpy.arange(num_draws)[:, None] + STRIDE * numpy.arange(num_seeds)[None, :]) % num_draws
        means: numpy.ndarray = stacked[self._picked, users].mean(axis=1)
        return means

    def differences(self, methods: Sequence[str], reference: str) -> dict[str, dict[str, Difference]]:
        """Each method's measures minus the reference's, corrected over the methods."""
        from scipy.stats import false_discovery_control

        told: dict[str, dict[str, Difference]] = {method: {} for method in methods}
        own = self.estimates(reference)
        for name in JUDGED:
            found = {method: self.estimates(method)[name] for method in methods if name in self.estimates(method) and name in own}
            raw = {method: self._draws(method)[name] - self._draws(reference)[name] for method in found}
            p_values = {method: _two_sided(moved) for method, moved in raw.items()}
            adjusted = false_discovery_control(list(p_values.values())) if p_values else []
            for method, corrected in zip(found, adjusted, strict=True):
                mean, (low, high) = found[method].mean - own[name].mean, middle_of(raw[method])
                if low is None or high is None:
                    continue
                verdict = self._verdict(name, found[method].mean, own[name].mean, float(corrected))
                told[method][name] = Difference(
                    mean=mean, low=low, high=high, p_value=p_values[method], adjusted=float(corrected), verdict=verdict
                )
        return told

    def _verdict(self, name: str, mean: float, reference: float, adjusted: float) -> Verdict:
        if self.is_noise(name, mean, reference):
            return "inside the floor"
        if adjusted >= SIGNIFICANT:
            return "not told apart"
        return "better" if (mean > reference) == (name in HIGHER) else "worse"

    def is_noise(self, name: str, one: float, other: float) -> bool:
        """Whether Retrains of other seeds differ as much, or both are as near to Retrain as such Retrains are."""
        floor = self.floor.get(name)
        if floor is None:
            return one == other
        return abs(one - other) <= floor.high - floor.low or (name in (*DISTANCES, *GAPS) and max(one, other) <= floor.high)

    @cached_property
    def floor(self) -> dict[str, Floor]:
        """Range of each measure among Retrains, mean over the seeds; empty without further Retrains."""
        ranges: dict[str, list[tuple[float, float]]] = {}
        for at, seed in enumerate(self.seeds):
            others = [self._of(at, model) for model in seed.further]
            for name in (*JUDGED, "forget_auc", "attack_auc") if others else ():
                # The distance of the paired Retrain to itself is no chance.
                models = others if name in (*DISTANCES, *GAPS) else [self._of(at, RETRAIN), *others]
                values = [model[name] for model in models if name in model]
                if len(values) == len(models):
                    ranges.setdefault(name, []).append((min(values), max(values)))
        return {
            name: Floor(low=float(numpy.mean([low for low, _ in told])), high=float(numpy.mean([high for _, high in told])))
            for name, told in ranges.items()
            if len(told) == len(self.seeds)
        }

    def power(self) -> Power:
        """Whether Original can be told from Retrain beyond what Retrains do, in every seed."""
        if any(not seed.further for seed in self.seeds):
            return Power()
        rows, groups = [], []
        for at, seed in enumerate(self.seeds):
            original, retrain = self._of(at, ORIGINAL), self._of(at, RETRAIN)
            others = [self._of(at, model) for model in seed.further]
            rows.append(original["jsd"] > max(other["jsd"] for other in others))
            groups.append(any(_outside(original, [retrain, *others], name) for name in ("forget_auc", "attack_auc")))
        return Power(rows=all(rows), groups=all(groups))


def _gaps(own: Mapping[str, Any], retrain: Mapping[str, Any]) -> dict[str, Any]:
    """How far the AUC on forgotten rows and that of the loss attack lie from the paired Retrain's."""
    pairs = [(gap, gap.replace("gap", "auc")) for gap in GAPS]
    return {gap: abs(own[name] - retrain[name]) for gap, name in pairs if name in own and name in retrain}


def _outside(original: Mapping[str, float], retrains: Sequence[Mapping[str, float]], name: str) -> bool:
    values = [retrain[name] for retrain in retrains if name in retrain]
    return name in original and bool(values) and not min(values) <= original[name] <= max(values)


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and standard error of one number a seed.

    >>> estimate([1.0, 3.0]).error
    1.0
    """
    told = [float(value) for value in values]
    error = float(numpy.std(told, ddof=1) / numpy.sqrt(len(told))) if len(told) > 1 else None
    return Estimate(mean=float(numpy.mean(told)), error=error, values=told)


def _two_sided(moved: numpy.ndarray) -> float:
    """How often a draw lies on the other side of 0, both sides counted; never quite 0."""
    defined = moved[numpy.isfinite(moved)]
    least = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (1 + least) / (1 + len(defined)))
