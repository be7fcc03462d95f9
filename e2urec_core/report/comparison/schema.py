"""What comparison.json holds: a row a method over all seeds, what chance gives, and how every method was tuned.

NaN is refused on the way in and on the way out. docs/compare.md says how to read it.
"""

from __future__ import annotations

import json
from typing import Literal, Self

from pydantic import Field, JsonValue

from e2urec_core.report.measures import Count, Name, NonNegative, Share
from e2urec_core.settings import Settings

Verdict = Literal["better", "worse", "not told apart", "inside the floor"]


class Estimate(Settings):
    """One measure of one method over all seeds."""

    mean: float
    """Mean over the seeds."""
    error: NonNegative | None = None
    """Standard error of that mean over the seeds; null with one seed."""
    low: float | None = None
    """Lower end of the interval that holds the middle 95 % of the draws of seeds and users; null where it was not drawn."""
    high: float | None = None
    """Its upper end."""
    values: list[float]
    """The value of each seed, in the order of the seeds."""


class Difference(Settings):
    """One measure of one method minus the reference's, on the same rows."""

    mean: float
    """Mean difference over the seeds."""
    low: float
    """Lower end of its interval over draws of seeds and users, the same for both methods."""
    high: float
    """Its upper end."""
    p_value: Share
    """Two-sided: how often a draw lies on the other side of 0."""
    adjusted: Share
    """The same after the correction for the number of methods (Benjamini and Hochberg)."""
    verdict: Verdict
    """`inside the floor` where Retrains of other seeds differ as much, else `better` or `worse` where adjusted is below 0.05."""


class Floor(Settings):
    """What one measure does between Retrains that differ in the seed alone, mean over the seeds of the comparison."""

    low: float
    """Smallest value among the Retrains; of a distance, the smallest from a further Retrain to the paired one."""
    high: float
    """Largest value."""


class Try(Settings):
    """One try of a method's knobs on the tuning seed."""

    knobs: dict[str, float]
    """Values of the knobs that were tried."""
    residual: NonNegative | None = None
    """Distance to the tuning seed's Retrain on the forgotten rows; null where the try failed."""
    auc: Share | None = None
    """On validation rows of users who were not forgotten; null where the try failed."""
    fault: str = ""
    """What stopped it."""
    chosen: bool = False
    """Whether these knobs were taken."""


class ComparedRow(Settings):
    """One method."""

    method: Name
    """The method's word with `_` for `-`; `original` and `retrain` are the poles."""
    title: str
    """Its name for people."""
    fault: str = ""
    """Why the method has no numbers; empty where it has."""
    measures: dict[str, Estimate] = Field(default_factory=dict)
    """By name: those of a run's report, `forget_gap` and `attack_gap` (distance of these AUCs to Retrain's), seconds, parameters."""
    against: dict[str, Difference] = Field(default_factory=dict)
    """Differences to the reference, by measure."""
    tries: list[Try] = Field(default_factory=list)
    """How its knobs were chosen; empty where there was nothing to choose."""


class Power(Settings):
    """Whether there is anything to forget that the set-up could show."""

    rows: bool | None = None
    """Whether Original lies further from Retrain, row by row (JSD), than other Retrains do, in every seed; null without a floor."""
    groups: bool | None = None
    """Whether Original's AUC on the forgotten rows, or of the loss attack, lies outside the range of the Retrains, in every seed."""


class ComparisonDocument(Settings):
    """The whole of comparison.json."""

    schema_version: Literal[1] = 1
    """Version of this schema; it rises when a field changes its meaning or goes."""
    run: Name
    """Name of the comparison."""
    reference: str = ""
    """Method that the others are compared with; empty where it was not among them."""
    seeds: list[int]
    """Seeds that are reported; each has its own forgotten users, original and Retrains."""
    tuning_seed: int
    """Seed on which knobs were chosen; none of its rows is reported."""
    budget: Count
    """Tries of each method."""
    num_retrains: Count
    """Further Retrains of each seed, of which the floor is made."""
    num_draws: Count
    """Draws of seeds and users behind the intervals."""
    power: Power
    """Whether there is anything to forget that the set-up could show."""
    rows: list[ComparedRow]
    """A row a method: the poles, then the methods in the order of their words."""
    floor: dict[str, Floor] = Field(default_factory=dict)
    """By measure."""
    counts: list[dict[str, Count]] = Field(default_factory=list)
    """Rows and users by name, a dictionary a seed."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Every setting that the methods share, as resolved."""
    chosen: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    """Every method's settings as chosen."""
    published: list[dict[str, JsonValue]] = Field(default_factory=list)
    """The paper's own figures for this experiment, where a preset names one; a dictionary a row of its table."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Version of each package that shapes the numbers."""
    digests: dict[str, str] = Field(default_factory=dict)
    """Digest of each scored table, by model and seed."""
    notes: list[str] = Field(default_factory=list)
    """Sentences that a reader of the numbers must know."""

    def row(self, method: str) -> ComparedRow | None:
        """The row of `method`, if there is one."""
        return next((row for row in self.rows if row.method == method), None)

    def to_json(self) -> str:
        """The text of comparison.json; equal documents give equal bytes."""
        return json.dumps(self.canonical(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The document of a comparison.json; an unknown field, a number out of bounds or NaN is refused."""
        return cls.model_validate(json.loads(text, parse_constant=_refuse))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of a report")
