"""Train an adapter for each shard of the users on one frozen network, and weigh the adapters anew for every prompt.

Users come together by what the untrained network makes of their prompts. For a prompt, the adapters' errors on its nearest validation
prompts decide their weights; all adapters then run in one pass, stacked, with each row's ranks scaled by its weights, and nothing is
merged. After a request only the touched adapters are trained again, and errors are taken on validation prompts without the forgotten users.
Each adapter is exactly what it would be on its remaining rows; that these users are together is only covered with `partition` at
`rebuilt`, where the untrained network, which never saw anybody, clusters the remaining users anew.

Source: APA (arXiv 2404.10327): 4 adapters, 20 neighbours on the films, temperature 1000, shards of equal size, cosine distances.
Differs: shards are made of users in place of samples, so that a user touches one shard; clusters are found by balanced k-means on
hidden states of length 1, averaged over a user's prompts; an error is 1 less the probability of the right one of the two answers.
Frozen weights must know language: a tiny backbone's are random, embeddings included, so that its adapters learn less than a network
would, and neighbours mean less. What is served holds hidden states of validation prompts.
Cost: before any request, one pass of adapter training over all rows; for a request, the touched adapters, and every adapter over the
validation rows. An answer takes two passes of one network, the first without adapters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.artifacts import Shards
from e2urec_core.methods.base import Method, Outcome, Problem, refuse_nothing_to_forget
from e2urec_core.settings import Lora, Sharding, Training

if TYPE_CHECKING:
    from torch import Tensor

    from e2urec_core.data.batches import Prompts
    from e2urec_core.engine import Bench
    from e2urec_core.ensemble import Ensemble


class Apa(Method):
    """Adapter partition and aggregation."""

    title: ClassVar[str] = "APA"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "temperature")
    needs: ClassVar = frozenset({Shards})

    kind: Literal["apa"] = "apa"
    """Name of the method."""
    num_shards: int = Field(4, ge=2, le=256)
    """Shards of the users, each with an adapter of its own. Paper: 4."""
    capacity: float = Field(1.0, ge=1, le=10)
    """Most users of a shard, in even shares; 1 makes all as large as each other, as in the paper."""
    num_iterations: int = Field(50, ge=1, le=1000)
    """Most rounds of the clustering."""
    partition: Literal["frozen", "rebuilt"] = "frozen"
    """Whether a request leaves every other user's shard as it is, or clusters them anew without the forgotten."""
    aggregation: Literal["nondecomposed", "decomposed"] = "nondecomposed"
    """Whether the adapters' products are added up, APA(ND), or their factors, APA(D)."""
    temperature: float = Field(1000.0, ge=0, le=1e6)
    """How sharply weights follow the neighbours' mean errors; at 0 all adapters weigh the same. Paper: tau, 1000."""
    num_neighbours: int = Field(20, ge=1, le=10_000)
    """Validation prompts that a prompt is compared with. Paper: n, 20 for films and 100 for books."""
    lora: Lora = Lora(rank=8, alpha=16.0)
    """Adapter of each shard."""
    training: Training = Training(num_epochs=10, batch_size=64, learning_rate=1e-3, patience=2)
    """Schedule of each adapter."""

    def sharding(self, training: Training) -> Sharding:
        """See `Method.sharding`; adapters have a schedule of their own."""
        knobs = {"num_shards": self.num_shards, "capacity": self.capacity, "num_iterations": self.num_iterations}
        return Sharding(by="base", lora=self.lora, training=self.training, **knobs)

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`.

        Raises:
            BadRequest: There is no validation prompt to weigh adapters by.
        """
        from e2urec_core.ensemble import of_adapters
        from e2urec_core.errors import BadRequest
        from e2urec_core.sharding.system import retrain_touched

        refuse_nothing_to_forget(problem)
        if len(problem.validation) == 0:
            raise BadRequest("there are 0 validation prompts to weigh adapters by", hint="raise `--split.validation-share`, or take `sisa`")
        remaining = retrain_touched(problem, self.sharding(problem.training), bench, self.partition)
        ensemble = of_adapters(
            remaining.trainee.start,
            [*remaining.weights.values()],
            [shard in remaining.retrained for shard in remaining.weights],
            self.lora,
            aggregation=self.aggregation,
            temperature=self.temperature,
            num_neighbours=self.num_neighbours,
        )
        self.learn(ensemble, problem.validation, bench)
        return Outcome(ensemble, remaining.fitted, remaining.facts())

    def learn(self, ensemble: Ensemble, rows: Prompts, bench: Bench) -> None:
        """Note what the bare network makes of `rows`, and each adapter's error on them: 1 less the right answer's probability."""
        import torch

        from e2urec_core.ops.answers import yes_probability

        answers, reader, number = ensemble.answers, ensemble.reader().to(bench.device), ensemble.combining.num_members
        pair = torch.tensor([[answers.yes_id, answers.no_id]], device=bench.device)
        made: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.inference_mode(), bench.workers.autocast():
            for batch in rows.in_order(bench.scoring_budget):
                there = batch.to(bench.device)
                read, columns, labels = (there.token_ids, there.mask), pair.expand(len(there.labels), 2), there.labels.double()
                alone = torch.eye(number, device=bench.device)[:, None].expand(-1, len(labels), -1)
                errors = [(labels - yes_probability(reader.under(only, *read, columns).float())).abs() for only in alone]  # type: ignore[operator]
                made.append((there.index, reader.state(*read).float(), torch.stack(errors, dim=1).float()))
        index, known, errors_of = (torch.cat(each) for each in zip(*made, strict=True))
        order = index.argsort()
        ensemble.network.known, ensemble.network.errors = known[order].clone(), errors_of[order].clone()
