"""What report.json holds: one row a method, the spread between Retrains, and all that the three plots need.

NaN is refused on the way in and on the way out. docs/report.md is made from the sentences under these fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from e2urec_core.report.measures import Count, ForgottenTestRow, MethodRow, Name, NonNegative, SeedFloor, Share, Spread
from e2urec_core.settings import Settings

__all__ = ["CurvePoint", "ForgottenTestRow", "Histogram", "MethodRow", "ReportDocument", "SeedFloor", "Spread", "StageTime"]

ORIGINAL, RETRAIN = "original", "retrain"


class CurvePoint(Settings):
    """The training loss at one step."""

    step: Count
    """Optimiser steps done so far."""
    loss: float
    """The loss that was minimised, summed over its parts; nats."""
    parts: dict[str, float] = Field(default_factory=dict)
    """The weighted parts of the loss under their names; empty where there is one part only."""


class Histogram(Settings):
    """How p(Yes) is spread over the forgotten rows."""

    edges: list[Share] = Field(min_length=2)
    """Edges of the bins, rising from 0 to 1; one more than there are bins."""
    series: dict[str, list[Count]]
    """Forgotten rows in each bin, by method; the last bin includes p = 1."""

    @classmethod
    def of(cls, probabilities: Mapping[str, Any], num_bins: int = 20) -> Self:
        """Count each method's p(Yes), an array over forgotten rows, in `num_bins` bins of equal width."""
        edges = np.arange(num_bins + 1) / num_bins
        return cls(edges=edges.tolist(), series={name: np.histogram(p, bins=edges)[0].tolist() for name, p in probabilities.items()})

    @model_validator(mode="after")
    def _bins_fit_the_edges(self) -> Self:
        if any(left >= right for left, right in pairwise(self.edges)):
            raise ValueError("the edges do not rise")
        if self.edges[0] != 0 or self.edges[-1] != 1:
            raise ValueError(f"the edges run from {self.edges[0]} to {self.edges[-1]} instead of 0 to 1")
        wrong = sorted(name for name, counts in self.series.items() if len(counts) != len(self.edges) - 1)
        if wrong:
            raise ValueError(f"series {', '.join(wrong)} must have {len(self.edges) - 1} bins")
        return self


class StageTime(Settings):
    """What one stage took."""

    stage: Name
    """Name of the stage."""
    seconds: NonNegative
    """Wall time when the stage was run, which may have been in an earlier run that it was taken from; seconds."""


class ReportDocument(Settings):
    """The whole of report.json."""

    schema_version: Literal[1] = 1
    """Version of this schema; it rises when a field changes its meaning or goes."""
    run: Name
    """Name of the run."""
    subject: str = ""
    """Method that the report is about; empty takes the last row that is neither `original` nor `retrain`."""
    rows: list[MethodRow]
    """One row a method, in the order of the table."""
    seed_floor: SeedFloor | None = None
    """Spread between Retrains that differ in the seed only; null when no further Retrain was made."""
    forgotten_test: list[ForgottenTestRow] = Field(default_factory=list)
    """The methods on the test rows of forgotten users, reported apart."""
    counts: dict[str, Count] = Field(default_factory=dict)
    """Rows and users by name, such as `train`, `test` (users who were not forgotten), `holdout`, `forgotten`, `forgotten_users`."""
    curves: dict[str, list[CurvePoint]] = Field(default_factory=dict)
    """Training loss step by step, by what was trained, such as `original`, `augmented`, `retrain` and the method."""
    probabilities: Histogram | None = None
    """Histogram of p(Yes) over the forgotten rows, one series a method."""
    stages: list[StageTime] = Field(default_factory=list)
    """What each stage took, in the order of the run."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Every setting as resolved, under the names of the command line."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Version of each package that shapes the numbers."""
    digests: dict[str, str] = Field(default_factory=dict)
    """Digest of each artifact of the run, by kind."""
    notes: list[str] = Field(default_factory=list)
    """Sentences that a reader of the numbers must know."""
    verdict: dict[str, JsonValue] | None = None
    """Outcome of the gate to release; null where no gate was asked."""

    @model_validator(mode="after")
    def _each_method_has_one_row(self) -> Self:
        words = [row.method for row in self.rows]
        if len(set(words)) != len(words):
            raise ValueError(f"a method has two rows: {', '.join(words)}")
        if self.subject and self.subject not in words:
            raise ValueError(f"subject {self.subject} has no row among {', '.join(words)}")
        return self

    def row(self, method: str) -> MethodRow | None:
        """The row of `method`, if there is one."""
        return next((row for row in self.rows if row.method == method), None)

    def subject_row(self) -> MethodRow | None:
        """The row of the method that the report is about; None when only the poles were measured."""
        if self.subject:
            return self.row(self.subject)
        return next((row for row in reversed(self.rows) if row.method not in (ORIGINAL, RETRAIN)), None)

    def to_json(self) -> str:
        """The text of report.json; equal documents give equal bytes."""
        return json.dumps(self.canonical(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The document of a report.json; an unknown field, a number out of bounds or NaN is refused."""
        # Not model_validate_json: it lets NaN through inside the free-form settings.
        return cls.model_validate(json.loads(text))
