"""The document behind a night's page: counts, measures and digests, nobody's name."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from e2urec_core.artifacts import canonical_json
from e2urec_core.deletion.drift import Drift
from e2urec_core.deletion.rule import DriftBudget
from e2urec_core.release.verdict import VerdictDocument
from e2urec_core.settings import Settings


class Attempt(Settings):
    """One recommender that was put before the gates."""

    method: str
    """How it was made."""
    passed: bool
    """Whether every gate passed it."""
    said: str
    """Why not; empty where it passed."""
    validation_auc: float | None = Field(None, ge=0, le=1)
    """AUC on validation rows of users who stay; null where candidates are not compared, or it did not pass."""


class RequestLine(Settings):
    """One request that the night had to do with."""

    id: str
    """Its public name."""
    scope: str
    """A whole user, or single interactions."""
    state: str
    """How far it has come."""
    due_at: str
    """When it must be done, ISO 8601, UTC."""
    receipt: str
    """File of its receipt; empty while there is none."""


class NightDocument(Settings):
    """What one night did."""

    run: str
    """Name of its run."""
    started_at: str
    """When it began, ISO 8601, UTC."""
    requests: tuple[RequestLine, ...]
    """What it had to do with."""
    waiting: int = Field(ge=0)
    """Requests that wait for the next night."""
    overdue: int = Field(ge=0)
    """Requests that are open after the time by which they must be done."""
    attempts: tuple[Attempt, ...]
    """What was tried, in order."""
    validation_auc: float | None = Field(None, ge=0, le=1)
    """The same of the champion when the night began; null where candidates are not compared."""
    champion: int
    """Version of the registered model that is in production after the night."""
    promoted: bool
    """Whether the night put it there."""
    verdict: VerdictDocument | None
    """What the gates said of it, where the night made it."""
    drift: Drift
    """What has happened since the last training."""
    budget: DriftBudget
    """How much of it may."""
    erased: dict[str, int]
    """What was erased, by kind of place."""
    seconds: dict[str, float]
    """Seconds of each stage that was run, not taken from the store."""
    total_seconds: float = Field(ge=0)
    """Seconds of the whole night."""
    settings: dict[str, Any]
    """Its settings."""

    def counted(self, *states: str) -> int:
        """Requests of this night in one of these states."""
        return sum(request.state in states for request in self.requests)

    @property
    def best(self) -> Attempt | None:
        """Of the compared attempts, the one that was taken: the first of those with the best validation AUC; None where none is."""
        told = [each for each in self.attempts if each.validation_auc is not None]
        return max(told, key=lambda each: each.validation_auc or 0.0, default=None)

    def to_json(self, text: str) -> str:
        """The document as JSON, with the sentences that stand on the page."""
        return canonical_json({**self.canonical(), "text": text})
