"""The knobs of the search for polluted users: how held-out answers are made, and when they are held against somebody."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import Field

from e2urec_core.data.examples import HistoryRule
from e2urec_core.settings import Settings, Training

Quality = Literal["self_confidence", "normalized_margin", "confidence_weighted_entropy"]


class NoHistory(HistoryRule):
    """Rows as they are cut elsewhere, without the past; for a search alone, as nothing that shows no history can be released."""

    length: int = Field(0, ge=0, le=0)
    """No earlier interaction is shown."""


class FoldRule(Settings):
    """How every user is scored by a network that never trained on them."""

    num_folds: int = Field(4, ge=2, le=50)
    """Folds of the users, by their numbers; as many networks are trained in a round, each on the other folds."""
    num_rounds: int = Field(2, ge=1, le=5)
    """Rounds; in each after the first, no network trains on users whom the round before suspects."""
    set_aside_below: float = Field(0.2, ge=0, le=1)
    """Users whose q is below this train no network in the next round; a false alarm costs a training row, not a user."""
    history: Literal["hidden", "shown"] = "hidden"
    """Whether networks are shown a user's history; with it they learn to tell polluters apart, and then expect what these do."""
    quality: Quality = "confidence_weighted_entropy"
    """How cleanlab turns the probability of a row's own label into the quality of the label."""
    training: Training = Training(num_epochs=4, batch_size=64, learning_rate=3e-3)
    """Schedule of every network."""

    def fingerprint(self) -> str:
        """Version of cleanlab, on which what is found depends; empty where it is not installed."""
        try:
            return version("cleanlab")
        except PackageNotFoundError:
            return ""


class FindRule(Settings):
    """Who and what is proposed."""

    propose: Literal["users", "interactions", "both"] = "users"
    """Whether whole users are proposed, single interactions of users who are not, or both."""
    level: float = Field(0.05, gt=0, lt=1)
    """Users with a smaller q are proposed; the share of false alarms among them that luck would explain."""
    at_most: float = Field(0.45, gt=0, le=1)
    """Most mean probability of a proposed user's own labels; 0.5 is what answers by a coin get, above it labels only follow no taste."""
    interaction_level: float = Field(0.05, gt=0, lt=1)
    """Interactions are proposed as long as the mean probability of their own labels is below this."""
