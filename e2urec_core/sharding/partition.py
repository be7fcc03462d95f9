"""Which user is in which shard, and in which slice of it.

By digest, a user's place depends on that user's number and the seed, and on nobody else. By clusters, it depends on everybody's rows:
whoever was there when the clusters were made has had a part in them, even where all of that user's rows are deleted later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from e2urec_core.checkpoints import KeptTables
from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.errors import BadSetting
from e2urec_core.ops.shards import balanced_clusters
from e2urec_core.recommender import Recommender
from e2urec_core.seeding import derived_seed
from e2urec_core.settings import Sharding

NOWHERE, KEPT = -1, "partition"
PLACES = pa.schema({name: pa.int64() for name in ("user", "shard", "slice")})


@dataclass(frozen=True)
class Partition:
    """Every user's place.

    Args:
        users: int64, the users' numbers, rising.
        shards: int64, one a user.
        slices: int64, one a user.
    """

    users: numpy.ndarray
    shards: numpy.ndarray
    slices: numpy.ndarray

    def places(self, users: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Shard and slice of each of `users`; `NOWHERE` for those that the partition does not know."""
        at = numpy.minimum(numpy.searchsorted(self.users, users), len(self.users) - 1)
        known = self.users[at] == users
        return numpy.where(known, self.shards[at], NOWHERE), numpy.where(known, self.slices[at], NOWHERE)

    def members(self, shard: int, piece: int) -> numpy.ndarray:
        """Numbers of the users in one slice of a shard."""
        return self.users[(self.shards == shard) & (self.slices == piece)]

    def among(self, users: numpy.ndarray) -> Partition:
        """The places of those who are among `users`."""
        kept = numpy.isin(self.users, users)
        return Partition(self.users[kept], self.shards[kept], self.slices[kept])

    def save(self, path: Path) -> None:
        """Write the places as Parquet."""
        # Statistics would put numbers of users into the footer, where a scan for them must look too.
        pq.write_table(self.table(), path, compression="zstd", write_statistics=False)

    @classmethod
    def load(cls, path: Path) -> Partition:
        """The places that `save` wrote."""
        return cls.of(pq.read_table(path))

    def table(self) -> pa.Table:
        """The places as a table, one row a user."""
        return pa.table({"user": self.users, "shard": self.shards, "slice": self.slices}, schema=PLACES)

    @classmethod
    def of(cls, table: pa.Table) -> Partition:
        """The places that `table` told."""
        return cls(*(table[name].to_numpy() for name in PLACES.names))


@dataclass(frozen=True)
class Divided:
    """Rows in the places of their users.

    Args:
        partition: The places.
        rows: Training rows.
        validation: Rows for early stopping; a slice is judged on those of its own users alone, so that nobody else has a part in it.
    """

    partition: Partition
    rows: Prompts
    validation: Prompts

    def upto(self, shard: int, piece: int) -> tuple[Prompts, Prompts]:
        """Training and validation rows of the first slices of a shard, up to slice `piece` and with it."""
        (shards, slices), (judged, there) = self._places
        rows = numpy.flatnonzero((shards == shard) & (slices <= piece))
        return self.rows.select(rows), self.validation.select(numpy.flatnonzero((judged == shard) & (there <= piece)))

    def count(self, shard: int, piece: int) -> int:
        """Training rows of one slice."""
        shards, slices = self._places[0]
        return int(((shards == shard) & (slices == piece)).sum())

    @cached_property
    def _places(self) -> tuple[tuple[numpy.ndarray, numpy.ndarray], ...]:
        return tuple(self.partition.places(users_of(part)) for part in (self.rows, self.validation))


def users_of(rows: Prompts) -> numpy.ndarray:
    """Number of each row's user."""
    assert rows.users is not None, "shards are made of users"
    return rows.users


def divide(rows: Prompts, sharding: Sharding, bench: Bench, network: Callable[[], Recommender]) -> Partition:
    """Every user's place.

    Args:
        rows: Training rows.
        sharding: How users come together.
        bench: Seed and device.
        network: Gives the network by whose hidden states users are clustered; not asked for a partition by digest.

    Raises:
        BadSetting: There are more shards than users.
    """
    users = numpy.unique(users_of(rows))
    if sharding.num_shards > len(users):
        raise BadSetting(
            f"{sharding.num_shards} shards are asked of {len(users)} users", hint=f"set `--method.num-shards` to {len(users)} or fewer"
        )
    slices = _drawn(users, "slice", sharding.num_slices, bench.seed)
    if sharding.by == "digest":
        return Partition(users, _drawn(users, "shard", sharding.num_shards, bench.seed), slices)
    # Clusters take a pass over all rows, which whoever goes on with this stage, or joins its shares, need not take again.
    kept = KeptTables(bench.checkpoints.folder) if bench.checkpoints else None
    if kept is not None and (table := kept.get(KEPT, 0, PLACES)) is not None:
        return Partition.of(table)
    made = Partition(users, _clustered(users, rows, sharding, bench, network()), slices)
    if kept is not None and bench.workers.is_main:
        kept.put(KEPT, 0, made.table())
    return made


def _drawn(users: numpy.ndarray, what: str, number: int, seed: int) -> numpy.ndarray:
    return numpy.array([derived_seed(seed, f"{what}-of-user-{user}") % number for user in users.tolist()], dtype=numpy.int64)


def _clustered(users: numpy.ndarray, rows: Prompts, sharding: Sharding, bench: Bench, network: Recommender) -> numpy.ndarray:
    points = _points(users, rows, bench, network)
    if sharding.by == "base":
        # Neighbours by cosine, as APA has them.
        points = torch.nn.functional.normalize(points, dim=1)
    # Clusters begin at users that a digest draws: whoever is not drawn does not change the others' numbers.
    first = numpy.argsort([derived_seed(bench.seed, f"centre-at-user-{user}") for user in users.tolist()])[: sharding.num_shards]
    capacity = int(numpy.ceil(sharding.capacity * len(users) / sharding.num_shards))
    return balanced_clusters(points, points[torch.from_numpy(first)], capacity, sharding.num_iterations).numpy()


def _points(users: numpy.ndarray, rows: Prompts, bench: Bench, network: Recommender) -> torch.Tensor:
    """Mean hidden state at the answer position over each user's rows, (user, width), in 64 bits."""
    read, whose = bench.reader(network), torch.from_numpy(numpy.searchsorted(users, users_of(rows)))
    sums: torch.Tensor | None = None
    network.network.eval()
    with torch.inference_mode():
        for batch in rows.in_order(bench.scoring_budget):
            states = read.state(batch.to(bench.device)).double().cpu()
            sums = states.new_zeros(len(users), states.shape[1]) if sums is None else sums
            sums.index_add_(0, whose[batch.index], states)
    assert sums is not None
    return sums / torch.bincount(whose, minlength=len(users))[:, None]
