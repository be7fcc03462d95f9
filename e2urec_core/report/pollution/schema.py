"""The document behind the page: counts and shares, no user and no pseudonym."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from e2urec_core.artifacts import canonical_json
from e2urec_core.settings import Settings


class ScoreBar(Settings):
    """Users whose score lies in one stretch."""

    low: float = Field(ge=0, le=1)
    """Lowest score."""
    high: float = Field(ge=0, le=1)
    """Score below which it ends; the last stretch holds 1 too."""
    users: int = Field(ge=0)
    """Users in it."""
    proposed: int = Field(ge=0)
    """Those of them who are proposed."""


class PollutionDocument(Settings):
    """What was found."""

    num_users: int = Field(ge=1)
    """Users with training rows."""
    num_rows: int = Field(ge=1)
    """Training rows."""
    num_set_aside: int = Field(ge=0)
    """Users who trained no network in the last round."""
    num_doubted: int = Field(ge=0)
    """Users whom luck does not explain; those of them whose labels only follow no taste are not proposed."""
    num_proposed_users: int = Field(ge=0)
    """Users who are proposed."""
    num_proposed_rows: int = Field(ge=0)
    """Training rows of these users."""
    expected_precision: float | None = Field(None, ge=0, le=1)
    """1 less the mean q of the proposed users: the share that is not there by luck; missing where nobody is proposed."""
    num_proposed_interactions: int = Field(ge=0)
    """Single interactions that are proposed."""
    expected_interaction_precision: float | None = Field(None, ge=0, le=1)
    """Mean probability of the other label over these; missing where there are none."""
    bars: tuple[ScoreBar, ...]
    """Scores of all users."""
    settings: dict[str, Any]
    """Settings of the search."""

    def to_json(self) -> str:
        """The document as JSON."""
        return canonical_json(self.canonical())

    @classmethod
    def from_json(cls, text: str) -> PollutionDocument:
        """The document that `to_json` wrote."""
        return cls.model_validate_json(text)
