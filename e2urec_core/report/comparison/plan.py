"""What a comparison is made of, beside the scores: who takes part, how knobs were chosen, what all have in common."""

from __future__ import annotations

from pydantic import Field, JsonValue

from e2urec_core.report.comparison.schema import Try
from e2urec_core.settings import Settings


class Taking(Settings):
    """One method that takes part."""

    method: str
    """Its word with `_` for `-`."""
    title: str
    """Its name for people."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Its settings as chosen."""
    tries: tuple[Try, ...] = ()
    """How its knobs were chosen."""
    fault: str = ""
    """Why it has no numbers."""


class ComparisonPlan(Settings):
    """Everything that a comparison's report says of how it was made."""

    reference: str = ""
    """Method that the others are compared with."""
    seeds: tuple[int, ...]
    """Seeds that are reported."""
    tuning_seed: int
    """Seed on which knobs were chosen."""
    budget: int
    """Tries of each method."""
    taking: tuple[Taking, ...]
    """The methods, in the order of the table."""
    scored: tuple[tuple[int, str], ...]
    """Place of the seed and name of the model of each scored table, in the order of the tables."""
    num_draws: int = Field(1000, ge=10, le=100_000)
    """Draws of seeds and users."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Every setting that the methods share."""
    published: tuple[dict[str, JsonValue], ...] = ()
    """The paper's own figures, a dictionary a row."""
    notes: tuple[str, ...] = ()
    """Sentences that a reader of the numbers must know."""


def label(seed: int, model: str) -> str:
    """Names one model of one seed.

    >>> label(1, "undial")
    'undial, seed 1'
    """
    return f"{model}, seed {seed}"
