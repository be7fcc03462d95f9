"""Train a network for each shard of the users, and train again only those that held a forgotten user.

Users are put into shards by a digest of their number and the seed, so that where a user is depends on nobody else: a deletion moves
nobody, and the partition keeps nothing of who was deleted. Every shard is exactly what it would be if the user had never been there. A
shard that loses all of its users is left out of the ensemble, and the report says so.

Source: SISA (Bourtoule et al., arXiv 1912.03817); E2URec's reference code (justarter/E2URec, sisa_evaluate.py): 4 shards, no slices, mean
of the logits of all words.
Differs: shards are made of users in place of interactions, so that a user touches one shard; a shard stops early on validation rows of its
own users alone, because on all of them every shard would know the forgotten ones; the passes over slices are rounded to whole ones.
Cost: before any request, as many networks as shards, with as many rows in all as one (without slices); for a request, the touched shards:
of K shards, m users touch K(1 - (1 - 1/K)^m). Every answer asks all networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.artifacts import Shards
from e2urec_core.methods.base import Method, Outcome, Problem, refuse_nothing_to_forget
from e2urec_core.settings import Sharding, Training

if TYPE_CHECKING:
    from e2urec_core.engine import Bench


class Sisa(Method):
    """Sharded, isolated, sliced, aggregated."""

    title: ClassVar[str] = "SISA"
    needs: ClassVar = frozenset({Shards})

    kind: Literal["sisa"] = "sisa"
    """Name of the method."""
    num_shards: int = Field(4, ge=2, le=256)
    """Shards of the users, each with a network of its own. Reference: 4."""
    num_slices: int = Field(1, ge=1, le=64)
    """Slices of a shard; after a deletion a shard goes on from the last slice before the first that held a forgotten user."""
    combine: Literal["logits", "probabilities"] = "logits"
    """Whether the mean is taken of all words' logits, as in the reference, or of their probabilities."""

    def sharding(self, training: Training) -> Sharding:
        """See `Method.sharding`."""
        return Sharding(by="digest", num_shards=self.num_shards, num_slices=self.num_slices, training=training)

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.ensemble import of_members
        from e2urec_core.sharding.system import retrain_touched

        refuse_nothing_to_forget(problem)
        remaining = retrain_touched(problem, self.sharding(problem.training), bench)
        return Outcome(of_members(remaining.recommenders(), self.combine), remaining.fitted, remaining.facts())
