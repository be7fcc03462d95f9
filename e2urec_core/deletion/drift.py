"""How much of the drift budget is used up: what nights of unlearning have done to a recommender since it was last trained.

Every number comes from the ledger: the line of releases from the champion back to the one that was trained, with their verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from e2urec_core.deletion.rule import DriftBudget
from e2urec_core.ledger.records import Release
from e2urec_core.settings import Settings

AUC = "auc"
"""The gate that says by how much the AUC on test rows fell in one night."""


class Drift(Settings):
    """What has happened since the last training."""

    nights: int = Field(ge=0)
    """Releases that were made by unlearning since."""
    users: int = Field(ge=0)
    """People, or single interactions, that were forgotten since."""
    share: float = Field(ge=0)
    """That as a share of the users that were there at the last training."""
    auc_fall: float
    """By how much the AUC on test rows fell, the falls of all nights added up; below 0 it has risen."""
    distance: float | None = Field(None, ge=0)
    """How far the recommender lay from a shadow Retrain when that was last measured, over what lies between two shadow Retrains."""

    def used(self, budget: DriftBudget) -> dict[str, float]:
        """How much of each part of the budget is used up, as a share of it; what was never measured is left out."""
        told = {"share": self.share / budget.share, "auc_fall": max(0.0, self.auc_fall) / budget.auc_fall}
        return told if self.distance is None else {**told, "distance": self.distance / budget.distance}

    def spent(self, budget: DriftBudget) -> list[str]:
        """The parts of the budget that are used up."""
        return [name for name, share in self.used(budget).items() if share >= 1]


def drift_of(line: Sequence[Release], forgotten: Sequence[int], num_users: int, distance: float | None = None) -> Drift:
    """What has happened since the last training.

    Args:
        line: The releases from the champion back to the one that was trained, each made from the next.
        forgotten: How many each of them has forgotten altogether.
        num_users: Users that are stored now.
        distance: What the shadow Retrains last gave.
    """
    unlearned = [release for release in line if release.base is not None]
    since = forgotten[0] - forgotten[-1] if forgotten else 0
    falls = [gate_value(release, AUC) for release in unlearned]
    return Drift(
        nights=len(unlearned),
        users=since,
        share=since / max(1, num_users + since),
        auc_fall=sum(fall for fall in falls if fall is not None),
        distance=distance,
    )


def gate_value(release: Release, name: str) -> float | None:
    """What a release's verdict measured at the gate `name`."""
    gates = release.verdict.get("gates")
    for gate in gates if isinstance(gates, list) else ():
        if isinstance(gate, dict) and gate.get("name") == name and isinstance(value := gate.get("value"), int | float):
            return float(value)
    return None
