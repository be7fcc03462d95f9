"""Every bound that a recommender must keep to be released, in one place: how much may be lost, how much may be remembered.

The defaults were measured on the sample and on the newest rows of ML-1M, see DECISIONS.md: Retrains and the methods that forget lie
inside, the unmodified recommender and destroyed ones outside.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from e2urec_core.release.verdict import Digest
from e2urec_core.settings import Settings


class UtilityGates(Settings):
    """How much worse than the champion a candidate may recommend, on test rows of people who are not forgotten."""

    auc_fall: float = Field(0.03, ge=0, le=1)
    """Most that the AUC may fall; Retrains of the sample fall by 0.02 at most."""
    log_loss_rise: float = Field(0.15, ge=0, le=20)
    """Most that the log loss may rise, nats a row; it sees answers that are too sure, which the AUC does not."""
    calibration_rise: float = Field(0.08, ge=0, le=1)
    """Most that the expected calibration error may rise, as a share: the mean distance between p(Yes) and the share of liked rows."""
    group_auc_fall: float = Field(0.08, ge=0, le=1)
    """Most that the AUC may fall among active or among inactive users; twice the whole's, as half the rows say less."""
    least_auc: float = Field(0.5, ge=0, le=1)
    """Least AUC, whatever the champion's is: 0.5 is what drawing lots gives, and a first model has no champion beside it."""
    num_bins: int = Field(10, ge=2, le=1000)
    """Bins of equal mass that the calibration error is taken over."""
    num_resamples: int = Field(200, ge=20, le=100_000)
    """Draws of users that tell whether a fall is within noise; the bound decides all the same."""


class ForgettingGates(Settings):
    """How much a candidate may remember of the forgotten users."""

    residual: float = Field(0.5, ge=0, le=100)
    """Most of the way to Retrain that may be left, where there is a Retrain: 1 is doing nothing, 0 is Retrain."""
    auc_gap: float = Field(0.15, ge=0, le=1)
    """Most by which the AUC on forgotten rows may lie from Retrain's, to either side, where there is a Retrain."""
    slack: float = Field(1.5, ge=1, le=100)
    """Times that a candidate may lie as far from Retrain as Retrains of other seeds do, where such were scored and lie further apart."""
    level: float = Field(0.01, gt=0, lt=1)
    """Chance, for each test against strangers, with which a recommender that never saw the forgotten users is refused all the same."""
    least_half_width: float = Field(0.02, ge=0, le=0.5)
    """AUC of the loss attack that passes this near to 0.5 however many users there are: less tells nobody anything."""
    num_splits: int = Field(2000, ge=100, le=1_000_000)
    """Exchanges of users between the forgotten and the strangers that a test draws, where there are more than that."""
    num_resamples: int = Field(200, ge=20, le=100_000)
    """Draws of users that tell how often a gate would refuse the unmodified champion."""
    least_power: float = Field(0.5, ge=0, le=1)
    """Share of these draws in which it must, or the gate is called blind."""
    blind: Literal["pass", "refuse"] = "pass"
    """What becomes of a value within the bounds of a blind gate; few forgotten users give no gate sight, so `refuse` refuses them all."""


class CompletenessGates(Settings):
    """Whether the stored candidate is whole, and is the one that was evaluated."""

    damaged: int = Field(0, ge=0)
    """Most artifacts whose bytes are not those that were published."""
    non_finite: int = Field(0, ge=0)
    """Most weights that are no finite number."""
    num_probed: int = Field(64, ge=1, le=100_000)
    """Evaluated rows that the stored candidate is asked again, drawn by the seed."""
    probe_difference: float = Field(1e-5, ge=0, le=1)
    """Most by which p(Yes) may differ from the evaluation's; sums of 32 bits in other batches do by up to 2e-6, those of `bf16` by 0.01."""


class ContractGates(Settings):
    """What the data that the candidate was made from may look like."""

    broken_rules: int = Field(0, ge=0)
    """Most rules that interactions, examples and tokens may break together."""
    quarantined_share: float = Field(0.01, ge=0, le=1)
    """Most of the rows read that may lie in quarantine."""


class Gates(Settings):
    """What a recommender must prove before it may take the champion's place."""

    utility: UtilityGates = UtilityGates()
    """How much may be lost."""
    forgetting: ForgettingGates = ForgettingGates()
    """How much may be remembered."""
    completeness: CompletenessGates = CompletenessGates()
    """What must be whole."""
    contracts: ContractGates = ContractGates()
    """What the data must keep."""


class Handed(Settings):
    """What only whoever keeps the artifacts can say of them."""

    candidate: Digest
    """Digest of the candidate."""
    champion: Digest = ""
    """Digest of the champion; empty where there is none."""
    retrain: Digest = ""
    """Digest of the Retrain; empty where there is none."""
    damaged: Annotated[int, Field(ge=0)] | None = None
    """Artifacts whose bytes are not those that were published; null where nobody looked."""
    broken_rules: Annotated[int, Field(ge=0)] | None = None
    """Rules that interactions, examples and tokens break; null where nobody looked."""
    quarantined_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the rows read that lie in quarantine; null where nobody looked."""
