"""Finds, in the data of a restored back-up, whoever was forgotten after it was taken.

The ledger names nobody who was forgotten. It keeps marks by secret keys: of the suppression list, and of those whom releases have
forgotten. A stored name that gives such a mark, with a row that is not newer than what was asked for, is somebody who is back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import Interactions
from e2urec_core.data import places
from e2urec_core.data.deletions import parted
from e2urec_core.data.suppressed import Suppressed
from e2urec_core.store import Store

if TYPE_CHECKING:
    from e2urec_core.pseudonyms import Pseudonyms

MOST_ITEMS = 1000
"""Items that one request may have."""


@dataclass(frozen=True)
class KnownAgain:
    """Somebody who was forgotten, and whose rows a restore has brought back.

    Args:
        user_id: The data's own name of the user.
        items: Items of the single interactions; none: everything of the user.
        until: Time up to which the rows were forgotten, UTC; None where that was not noted.
    """

    user_id: str = field(repr=False)
    items: tuple[str, ...] = field(repr=False)
    until: datetime | None

    @property
    def until_s(self) -> int | None:
        """The same, seconds since 1970."""
        return None if self.until is None else int(self.until.timestamp())


def known_again(store: Store, suppressed: Suppressed, marked: Mapping[str, str], names: Pseudonyms) -> list[KnownAgain]:
    """Whoever was forgotten and is among the stored interactions, by name.

    Args:
        store: Of the restored workspace.
        suppressed: The suppression list.
        marked: Of those whom releases have forgotten: pseudonym of the user or the interaction, and that of the user.
        names: Gives the pseudonyms.

    Raises:
        DamagedArtifact: Stored interactions are damaged.
    """
    owners = {*marked.values()}
    users: dict[str, datetime | None] = {}
    pairs: dict[tuple[str, str], datetime | None] = {}
    for rows in store.all(Interactions):
        folder = store.open(rows)
        lives = {user: dict.fromkeys((parted(user)[0], user)) for user in _users(folder)}
        suspects = {user: [name for name in lives[user] if _is_marked(name, suppressed, names, owners)] for user in lives}
        for user, item, second in _rows(folder, [user for user, found in suspects.items() if found]):
            for name in suspects[user]:
                whole = suppressed.user_cut_offs([name]).get(0)
                single = suppressed.pair_cut_off([name], item) if suppressed.have_pairs([name]) else None
                if whole is not None and second <= whole:
                    users[name] = _moment(whole)
                elif names.of_user(name) in marked:
                    users.setdefault(name, None)
                if single is not None and second <= single:
                    pairs[name, item] = _moment(single)
                elif names.of_interaction(name, item) in marked:
                    pairs.setdefault((name, item), None)
    singly: dict[tuple[str, datetime | None], list[str]] = {}
    for (name, item), until in pairs.items():
        if name not in users:
            singly.setdefault((name, until), []).append(item)
    told = [KnownAgain(name, (), until) for name, until in users.items()]
    told += [
        KnownAgain(name, tuple(sorted(items)[at : at + MOST_ITEMS]), until)
        for (name, until), items in singly.items()
        for at in range(0, len(items), MOST_ITEMS)
    ]
    return sorted(told, key=lambda each: (each.user_id, each.items))


def _is_marked(name: str, suppressed: Suppressed, names: Pseudonyms, owners: set[str]) -> bool:
    return bool(suppressed.user_cut_offs([name])) or suppressed.have_pairs([name]) or (bool(owners) and names.of_user(name) in owners)


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _users(folder: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [str(user) for user in pq.read_table(folder / places.USERS, columns=["user_id"])["user_id"].to_pylist()]


def _rows(folder: Path, users: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """User, item and time of every stored row of some users."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = ["user_id", "item_id", "timestamp_s"]
    wanted = pa.array(sorted(users), pa.string())
    for part in places.part_files(folder) if len(wanted) else ():
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(columns=columns):
                chosen = batch.filter(pc.is_in(batch["user_id"].cast("string"), value_set=wanted))
                yield from zip(*(chosen[column].to_pylist() for column in columns), strict=True)
