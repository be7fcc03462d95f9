"""Bring users together whom the original sees alike, train a network for each shard, and learn which shard to listen to.

A user is the mean of what the original makes of the user's prompts. Balanced k-means puts users into shards. After a request, the touched
shards are trained again, and the attention over shards is fitted anew on validation rows without the forgotten users. Each shard is
exactly what it would be on its remaining rows; that these users are together is not covered: the original saw the forgotten users,
and, with `partition` at `frozen`, so did the clusters.

Source: RecEraser (Chen et al., arXiv 2201.06820) and its public code: 10 shards, 50 rounds, shards up to 1.2 times the mean.
Differs: centres are means dimension by dimension, where the public code takes one number for all of them; embeddings are the
original's hidden states in place of a factorisation's; the attention looks at each shard's own hidden state and is fitted on validation
rows, where the public code trains it on the training rows and stops on test recall; with `partition` at `rebuilt` users are clustered
anew without the forgotten, and every shard whose users changed is trained again.
Cost: before any request, the original, its hidden states and a network for each shard; for a request, the touched shards, and all shards
over the validation rows. Every answer asks all networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.artifacts import Shards
from e2urec_core.methods.base import Method, Outcome, Problem, refuse_nothing_to_forget
from e2urec_core.settings import Sharding, Training

if TYPE_CHECKING:
    from torch import Tensor

    from e2urec_core.data.batches import Prompts
    from e2urec_core.engine import Bench
    from e2urec_core.ensemble import Ensemble


class RecEraser(Method):
    """Balanced clusters and an attention over them."""

    title: ClassVar[str] = "RecEraser"
    needs: ClassVar = frozenset({Shards})

    kind: Literal["rec_eraser"] = "rec_eraser"
    """Name of the method."""
    num_shards: int = Field(10, ge=2, le=256)
    """Shards of the users, each with a network of its own. Public code: 10."""
    capacity: float = Field(1.2, ge=1, le=10)
    """Most users of a shard, in even shares. Public code: 1.2."""
    num_iterations: int = Field(50, ge=1, le=1000)
    """Most rounds of the clustering. Public code: 50."""
    partition: Literal["frozen", "rebuilt"] = "frozen"
    """Whether a request leaves every other user's shard as it is, or clusters them anew without the forgotten."""
    attention_decay: float = Field(0.01, ge=0, le=1000)
    """Weight of the squared length of the attention's directions in its loss; the larger, the nearer to a plain mean."""
    attention_steps: int = Field(50, ge=1, le=10_000)
    """Most iterations of L-BFGS that fit the attention. Public code: 50 passes of Adam."""

    def sharding(self, training: Training) -> Sharding:
        """See `Method.sharding`."""
        knobs = {"num_shards": self.num_shards, "capacity": self.capacity, "num_iterations": self.num_iterations}
        return Sharding(by="original", training=training, **knobs)

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`.

        Raises:
            BadRequest: There is no validation row to fit the attention on.
        """
        from e2urec_core.ensemble import gated, of_members
        from e2urec_core.errors import BadRequest
        from e2urec_core.sharding.system import retrain_touched

        refuse_nothing_to_forget(problem)
        if len(problem.validation) == 0:
            raise BadRequest("there are 0 validation rows to fit the attention on", hint="raise `--split.validation-share`, or take `sisa`")
        remaining = retrain_touched(problem, self.sharding(problem.training), bench, self.partition)
        plain = of_members(remaining.recommenders(), "logits")
        directions, offsets = self.attention(*self.seen(plain, problem.validation, bench), problem.validation)
        gate = gated(plain, directions.to(bench.device), offsets.to(bench.device))
        return Outcome(gate, remaining.fitted, remaining.facts())

    def seen(self, ensemble: Ensemble, rows: Prompts, bench: Bench) -> tuple[Tensor, Tensor]:
        """Each shard's hidden state, (row, shard, width), and what Yes has over No there, (row, shard), in the rows' order and 64 bits."""
        import torch

        answers, reader = ensemble.answers, ensemble.reader().to(bench.device)
        made: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.inference_mode(), bench.workers.autocast():
            for batch in rows.in_order(bench.scoring_budget):
                there = batch.to(bench.device)
                states, logits = reader.members_say(there.token_ids, there.mask)  # type: ignore[operator]
                margins = (logits[:, :, answers.yes_id] - logits[:, :, answers.no_id]).T
                made.append((batch.index, states.double().cpu(), margins.double().cpu()))
        index, states, margins = (torch.cat(each) for each in zip(*made, strict=True))
        order = index.argsort()
        # Out of the mode in which they were made, so that they may take part in a gradient.
        return states[order].clone(), margins[order].clone()

    def attention(self, states: Tensor, margins: Tensor, rows: Prompts) -> tuple[Tensor, Tensor]:
        """Directions, (shard, width), and offsets, (shard,), under which the weighted shards answer `rows` best."""
        import torch

        from e2urec_core.ops.shards import gate_weights

        signs = torch.from_numpy(rows.labels * 2 - 1).double()
        directions = torch.zeros(states.shape[1:], dtype=torch.float64, requires_grad=True)
        offsets = torch.zeros(states.shape[1], dtype=torch.float64, requires_grad=True)
        fitting = torch.optim.LBFGS([directions, offsets], max_iter=self.attention_steps, line_search_fn="strong_wolfe")

        def loss() -> float:
            fitting.zero_grad()
            margin = (gate_weights(states, directions, offsets) * margins).sum(dim=1)
            total = torch.nn.functional.softplus(-signs * margin).mean() + self.attention_decay * directions.square().sum()
            total.backward()
            return total.item()

        fitting.step(loss)
        return directions.detach().float(), offsets.detach().float()
