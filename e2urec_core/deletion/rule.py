"""How nights go: what is tried, how long earlier models stay, and how far a recommender may drift before it is trained anew."""

from __future__ import annotations

from pydantic import Field

from e2urec_core.receipts.receipt import KeptRule
from e2urec_core.settings import Settings


class DriftBudget(Settings):
    """How far nights of unlearning may lead away from the last training; with any of it used up, the next night trains anew."""

    share: float = Field(0.2, gt=0, le=1)
    """Share of the users that were there at the last training who may be forgotten since."""
    auc_fall: float = Field(0.008, gt=0, le=1)
    """Most that the AUC on test rows may have fallen since, each night's fall added up."""
    distance: float = Field(3.0, gt=0, le=1000)
    """Most times that the recommender may lie as far from a shadow Retrain as two shadow Retrains lie from each other."""
    shadow_every: int = Field(0, ge=0, le=10_000)
    """Nights after which two shadow Retrains are trained to measure that; 0 never does: it costs two trainings."""


class NightRule(Settings):
    """How nights go."""

    retention_hours: float = Field(0.0, ge=0, le=24 * 90)
    """Hours for which the champion before stays registered, for a rollback; requests are certified after that."""
    most_requests: int = Field(10_000, ge=1)
    """Most requests that one night takes; the others wait for the next."""
    keep_days: float = Field(0.0, ge=0, le=3650)
    """Days after which nights remove from the store what nobody needs, as `e2urec gc` does; 0 never removes it."""
    always_train: bool = False
    """Whether this night trains anew on everything that stays, whatever is left of the budget."""
    anew_seeds: int = Field(3, ge=1, le=32)
    """Trainings from which a night that trains anew chooses, each from a seed of its own: the highest AUC on validation rows wins."""
    drift: DriftBudget = DriftBudget()
    """When a night trains anew."""
    kept: KeptRule = KeptRule()
    """What receipts say of what is kept on purpose."""
