"""What a night was asked to forget, found in the stored data: whose rows, which interactions, and how many of each.

Whoever comes back after a deletion bears another name in the data (`anna#2`), and a request for `anna` is about all of them.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import Examples, ForgetRequest, Interactions, digest_of
from e2urec_core.data import places
from e2urec_core.disk import storage_errors, sync
from e2urec_core.ledger.request_records import RequestRecord
from e2urec_core.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from e2urec_core.ledger.requests import Requests

FOLDER = "claims"


@dataclass(frozen=True)
class Asked:
    """One request of a night, and whom it is about.

    Args:
        record: The request.
        user_id: The data's own name of the user.
        items: Items of the single interactions; none asks for everything of the user.
    """

    record: RequestRecord
    user_id: str = field(repr=False)
    items: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Rows:
    """What of the asked is among some stored ratings.

    Args:
        users: Users all of whose rows are asked for, by the data's names.
        pairs: User and item of the single interactions.
        counts: Stored interactions by the request that asks for them.
    """

    users: frozenset[str] = field(repr=False)
    pairs: frozenset[tuple[str, str]] = field(repr=False)
    counts: Mapping[str, int]

    def __bool__(self) -> bool:
        return bool(self.users or self.pairs)


def asked_by(requests: Requests, records: Iterable[RequestRecord]) -> list[Asked]:
    """Whom requests that are in a run's hands are about."""
    told = [(record, requests.identity(record.id)) for record in records]
    return [Asked(record, who.user_id, who.items) for record, who in told if who.user_id is not None]


def batch_name(records: Iterable[RequestRecord]) -> str:
    """Digest of the names of requests: the same for the same requests, whichever night they are in."""
    return digest_of(sorted(record.id for record in records))


def find(store: Store, rows: Interactions, asked: Sequence[Asked]) -> Rows:
    """What of the asked is among the stored ratings `rows`.

    Raises:
        DamagedArtifact: They are damaged.
    """
    import pyarrow.parquet as pq

    folder = store.open(rows)
    stored = pq.read_table(folder / places.USERS, columns=["user_id"])["user_id"].to_pylist()
    named = {each.user_id for each in asked}
    here = {user: owner for user in stored if (owner := _first_name(user, named)) is not None}
    whole = {each.user_id for each in asked if not each.items}
    single = {(each.user_id, item) for each in asked for item in each.items}
    rows_of, pairs_of = Counter[str](), Counter[tuple[str, str]]()
    pairs: set[tuple[str, str]] = set()
    for user, item in _pairs(folder, here):
        owner = here[user]
        rows_of[owner] += 1
        pairs_of[owner, item] += 1
        if owner not in whole and (owner, item) in single:
            pairs.add((user, item))
    counts = {
        each.record.id: sum(pairs_of[each.user_id, item] for item in each.items) if each.items else rows_of[each.user_id] for each in asked
    }
    return Rows(frozenset(user for user, owner in here.items() if owner in whole), frozenset(pairs), counts)


def examples_by_part(store: Store, examples: Examples, request: ForgetRequest, asked: Sequence[Asked]) -> dict[str, dict[str, int]]:
    """Of each request, how many examples of each part of the split go."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    gone = pq.read_table(store.open(request) / places.GONE)["example_id"]
    table = pq.read_table(store.open(examples) / places.EXAMPLES, columns=["example_id", "user_id", "split"])
    table = table.filter(pc.is_in(table["example_id"], value_set=gone.combine_chunks()))
    named = {each.user_id for each in asked}
    told: dict[str, Counter[str]] = {user: Counter() for user in named}
    for user, split in zip(table["user_id"].to_pylist(), table["split"].to_pylist(), strict=True):
        if (owner := _first_name(user, named)) is not None:
            told[owner][split] += 1
    return {each.record.id: dict(told[each.user_id]) for each in asked}


def write_deletions(workspace: Path, name: str, found: Rows) -> Path:
    """Write the file that the stage `forget` reads, for its owner's eyes alone; the same rows give the same bytes."""
    path = workspace / FOLDER / f"{name[:16]}.csv"
    lines = sorted([(user, "") for user in found.users] + list(found.pairs))
    with storage_errors(workspace):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        beside = path.with_suffix(".new")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("user_id", "item_id"))
            writer.writerows(lines)
        sync(beside)
        os.replace(beside, path)
    return path


def _first_name(user: str, named: set[str]) -> str | None:
    """Whom of the named a stored user is: they themselves, or who came back under their name."""
    if user in named:
        return user
    first, mark, number = user.rpartition("#")
    return first if mark and number.isdigit() and first in named else None


def _pairs(folder: Path, users: Iterable[str]) -> Iterator[tuple[str, str]]:
    """User and item of every stored row of some users."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = pa.array(sorted(users), pa.string())
    for part in places.part_files(folder) if len(wanted) else ():
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(columns=["user_id", "item_id"]):
                chosen = batch.filter(pc.is_in(_plain(batch["user_id"]), value_set=wanted))
                yield from zip(chosen["user_id"].to_pylist(), chosen["item_id"].to_pylist(), strict=True)


def _plain(column: pa.Array) -> pa.Array:
    return column.cast("string")
