"""The numbers of a report: one row a method, and how far Retrains lie apart by the seed alone.

A number that cannot be computed (an AUC of one class, an attack without holdout users) is null, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from e2urec_core.settings import Settings

# ln 2 = 0.693147... and the root of 2 = 1.414213... bound two of the distances; the last digit leaves room for float32.
MAX_JSD, MAX_L2 = 0.69315, 1.41422

Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class MethodRow(Settings):
    """One method's numbers; null where a number is undefined."""

    method: Name
    """The method's word, as on the command line with `_` for `-`; `original` and `retrain` are the poles of the comparison."""
    title: str = ""
    """Name to print; empty prints the method's word."""
    auc: Share | None = None
    """AUC on the test rows of users who were not forgotten; 0 to 1."""
    accuracy: Share | None = None
    """Share of the same test rows whose likelier answer is the label; 0 to 1."""
    log_loss: NonNegative | None = None
    """Mean negative log-likelihood of the label on the same test rows; nats."""
    forget_auc: Share | None = None
    """AUC on the forgotten training rows; the aim is Retrain's value, not 0.5."""
    attack_auc: Share | None = None
    """AUC of telling forgotten rows from rows of never-seen users by their loss; 0.5 = cannot tell."""
    jsd: Annotated[float, Field(ge=0, le=MAX_JSD)] | None = None
    """Mean Jensen-Shannon divergence to Retrain over the forgotten rows; nats, at most ln 2."""
    half_jeffreys: NonNegative | None = None
    """Mean of half the sum of both Kullback-Leibler divergences to Retrain over the forgotten rows; nats."""
    l2: Annotated[float, Field(ge=0, le=MAX_L2)] | None = None
    """Mean Euclidean distance to Retrain's probabilities over the forgotten rows; no unit, at most the root of 2."""
    residual: NonNegative | None = None
    """Mean |p - p_retrain| over mean |p_original - p_retrain| on the forgotten rows; 1 = do nothing, 0 = Retrain."""
    seconds: NonNegative | None = None
    """Time of the method's own training or unlearning; seconds."""
    all_in_seconds: NonNegative | None = None
    """The same with all that the method needed made first, such as augmented model and teacher cache; seconds."""
    trainable_parameters: Count | None = None
    """Parameters that the method trained."""
    total_parameters: Count | None = None
    """Parameters of the whole recommender."""


class Spread(Settings):
    """Mean and range of one number over Retrains."""

    mean: float
    """Mean over the Retrains."""
    low: float
    """Smallest value among the Retrains."""
    high: float
    """Largest value among the Retrains."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of `values`, at least one."""
        return cls(mean=float(np.mean(values)), low=min(values), high=max(values))

    @model_validator(mode="after")
    def _mean_lies_in_the_range(self) -> Self:
        # A mean of equal numbers may miss them by a rounding step.
        slack = 1e-9 * max(1.0, abs(self.low), abs(self.high))
        if not self.low - slack <= self.mean <= self.high + slack:
            raise ValueError(f"mean {self.mean} is outside low {self.low} to high {self.high}")
        return self


class SeedFloor(Settings):
    """How far Retrains with other seeds lie apart: a difference below this is noise."""

    num_retrains: int = Field(ge=1)
    """Further Retrains, each with another seed; the paired Retrain is not counted."""
    jsd: Spread | None = None
    """Distances `jsd` of the further Retrains to the paired Retrain; nats."""
    half_jeffreys: Spread | None = None
    """Distances `half_jeffreys` of the further Retrains to the paired Retrain; nats."""
    l2: Spread | None = None
    """Distances `l2` of the further Retrains to the paired Retrain; no unit."""
    auc: Spread | None = None
    """Values of `auc` over all Retrains, the paired one included; 0 to 1."""
    log_loss: Spread | None = None
    """Values of `log_loss` over all Retrains, the paired one included; nats."""
    forget_auc: Spread | None = None
    """Values of `forget_auc` over all Retrains, the paired one included; 0 to 1."""
    attack_auc: Spread | None = None
    """Values of `attack_auc` over all Retrains, the paired one included; 0 to 1."""


class ForgottenTestRow(Settings):
    """One method on the test rows of forgotten users, which no other number includes."""

    method: Name
    """The method's word, as in `rows`."""
    num_rows: Count
    """Test rows of forgotten users."""
    auc: Share | None = None
    """AUC on these rows; 0 to 1."""
    accuracy: Share | None = None
    """Share of these rows whose likelier answer is the label; 0 to 1."""
    log_loss: NonNegative | None = None
    """Mean negative log-likelihood of the label on these rows; nats."""
