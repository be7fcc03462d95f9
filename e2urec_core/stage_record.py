"""What the store remembers of a stage that was run: what its key was made of, what it gave, and what that took."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from e2urec_core.settings import Settings


class StageRecord(Settings):
    """What a stage key gave, and what that took."""

    stage: str
    """Name of the stage."""
    kind: str
    """Kind of the artifact."""
    handle: dict[str, Any]
    """The artifact's handle."""
    seconds: float = Field(ge=0)
    """Wall-clock time of the stage when it was run."""
    parts: dict[str, Any] = Field(default_factory=dict)
    """What the key is the digest of, but for inputs that the artifact may outlive; empty in records from before it was kept."""
