"""What goes into the ledger and comes out of it: releases, the line of champions, and the events of its history."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field, JsonValue

from e2urec_core.settings import Settings

DIGEST = r"^[0-9a-f]{64}$"
Promotion = Literal["promote", "rollback"]


class Release(Settings):
    """One candidate recommender, as it was built and judged."""

    bundle: str = Field(pattern=DIGEST)
    """Digest of its bundle; the release's identity."""
    model: str = Field(pattern=DIGEST)
    """Digest of the recommender inside the bundle."""
    kind: Literal["Original", "Retrained", "Unlearned"]
    """How it came about."""
    method: str = Field("", max_length=64)
    """Method that made it; empty for an original."""
    run: str = Field(max_length=128)
    """Name of the run that made it."""
    base: str | None = Field(None, pattern=DIGEST)
    """Bundle of the release it was made from."""
    verdict: dict[str, JsonValue]
    """What every gate said, as plain JSON."""
    passed: bool
    """Whether every gate passed it; only then may it become champion."""
    judged_against: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    """Bundle of the champion it was judged against; empty where there was none."""


class ReleaseRecord(Release):
    """A release as the ledger holds it."""

    registry_version: int | None = Field(None, ge=1)
    """Version of the registered model, or nothing until it is registered."""
    made_at: AwareDatetime
    """When it was added, UTC."""
    registered_at: AwareDatetime | None = None
    """When it was registered, UTC."""

    @property
    def state(self) -> Literal["built", "registered"]:
        """How far it has come."""
        return "built" if self.registry_version is None else "registered"


class Line(Settings):
    """Who is champion, and how many promotions there have been."""

    epoch: int = Field(ge=0)
    """Number of promotions and rollbacks so far; whoever promotes says which one it has seen."""
    champion: str | None = Field(None, pattern=DIGEST)
    """Bundle of the champion, or nothing before the first promotion."""
    previous: str | None = Field(None, pattern=DIGEST)
    """Bundle of the champion before."""


class Event(Settings):
    """One link of the history."""

    seq: int = Field(ge=1)
    """Its place; events are ordered by it alone."""
    at: str
    """What the clock said, ISO 8601, UTC."""
    event: str
    """What happened."""
    subject: str
    """To what: a digest or a name."""
    facts: str
    """The particulars as canonical JSON."""
    previous: str = Field(pattern=DIGEST)
    """Hash of the event before; zeros before the first."""
    hash: str = Field(pattern=DIGEST)
    """SHA-256 over the canonical JSON of all other fields."""


class Head(Settings):
    """The newest event, as it is kept apart from the events; copied elsewhere, it proves later that nothing before it was changed."""

    seq: int = Field(ge=0)
    """Its place; 0 in an empty history."""
    hash: str = Field(pattern=DIGEST)
    """Its hash; zeros in an empty history."""
