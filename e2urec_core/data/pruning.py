"""Rewrites stored data without what a request forgets, row by row: nothing is split, numbered or worded anew.

What stays is what was there: the same rows in the same order, with the same numbers. Rows whose history showed a forgotten interaction
are taken as the request tells them. Files are written whole from the rows that stay, so that no footer, dictionary or statistics of an
old file lives on; batches pass through, and memory never holds all rows.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.examples import EXAMPLES as EXAMPLES_TABLE
from data_contracts.interactions import INTERACTIONS as INTERACTIONS_TABLE
from data_contracts.interactions import USERS as USERS_TABLE
from data_contracts.quarantine import QUARANTINE as QUARANTINE_TABLE
from data_contracts.tokens import TOKENS as TOKENS_TABLE
from e2urec_core.data import examples as told_examples
from e2urec_core.data import interaction_rows, prompts
from e2urec_core.data.appending import link, read_counts
from e2urec_core.data.places import (
    EXAMPLES,
    ITEMS,
    PARTS,
    QUARANTINE,
    TOKENIZER,
    TOKENS,
    USERS,
    part_file,
    part_files,
)
from e2urec_core.data.staying import Carrying, Forgotten
from e2urec_core.errors import BadInput
from e2urec_core.notes import facts, note

if TYPE_CHECKING:
    from data_contracts.contract import Contract


def prune_interactions(interactions: Path, users: Collection[str], pairs: Collection[tuple[str, str]], place: Path) -> int:
    """Rewrite stored interactions without users and without single interactions; names that are not there are passed over.

    Parts in which nothing changes are linked. A quarantined row goes when it mentions a user, or both names of a pair, as whole words:
    what stood in such a row may have stood in the wrong column, so all of them are looked at, and a user `5` takes a rating of 5 along.

    Args:
        interactions: Folder of stored interactions.
        users: Whoever goes as a whole.
        pairs: User and item; a pair means every time that the user met the item.
        place: Empty folder for the new ones.

    Returns:
        The number of rows that stay.

    Raises:
        BadInput: None would stay.
    """
    forgotten = Forgotten(users, pairs)
    held = [_Held.of(part, forgotten) for part in part_files(interactions)]
    total = sum(part.stay for part in held)
    if not total:
        raise BadInput(
            f"none of {sum(part.rows for part in held):,} stored interactions would be left",
            hint="withdraw the model, and remove the stored interactions as a whole",
        )
    (place / PARTS).mkdir()
    staying = [part for part in held if part.stay]
    for number, part in enumerate(staying):
        target = part_file(place, number)
        if part.stay == part.rows:
            link(part.path, target)
        else:
            _rewrite(part.path, target, INTERACTIONS_TABLE, forgotten.left_of, interaction_rows.ROWS_AT_A_TIME)
    shutil.copyfile(interactions / ITEMS, place / ITEMS)
    num_users = _rewrite(interactions / USERS, place / USERS, USERS_TABLE, forgotten.users_left, interaction_rows.ROWS_AT_A_TIME)
    _rewrite(interactions / QUARANTINE, place / QUARANTINE, QUARANTINE_TABLE, forgotten.unmentioned, interaction_rows.ROWS_AT_A_TIME)
    spans = [part.span for part in staying]
    now = {
        "rows": total,
        "users": num_users,
        "parts": len(staying),
        "oldest_timestamp_s": min(oldest for oldest, _ in spans),
        "newest_timestamp_s": max(newest for _, newest in spans),
        "likes": sum(part.likes for part in staying),
    }
    note(place, **read_counts(interactions) | now)
    return total


def prune_examples(examples: Path, request: Path, place: Path) -> int:
    """Rewrite examples as they are once a request is carried out; every row keeps its part of the split, and the cuts stay.

    Args:
        examples: Folder of the examples that the request is about.
        request: Folder of the request.
        place: Empty folder for the new ones.

    Returns:
        The number of rows that stay.
    """
    carrying, parts = Carrying.out(request, request / EXAMPLES), Counter[str]()

    def change(table: pa.Table) -> pa.Table:
        left = carrying.on(table)
        parts.update({each["values"]: each["counts"] for each in pc.value_counts(left["split"].combine_chunks()).to_pylist()})
        return left

    rows = _rewrite(examples / EXAMPLES, place / EXAMPLES, EXAMPLES_TABLE, change, told_examples.ROWS_AT_A_TIME)
    carrying.check_all_were_there()
    noted = facts(examples)
    note(place, **noted | {"rows": rows, "parts": {name: parts[name] for name in noted["parts"]}, "pruned": True})
    return rows


def prune_tokens(tokens: Path, request: Path, retold: Path | None, place: Path) -> int:
    """Rewrite token rows as they are once a request is carried out; the tokenizer stays byte for byte.

    Args:
        tokens: Folder of the tokens of the examples that the request is about.
        request: Folder of the request.
        retold: Folder of the rows that it tells anew; None where it changes no history.
        place: Empty folder for the new ones.

    Returns:
        The number of rows that stay.
    """
    carrying, num_tokens = Carrying.out(request, retold / TOKENS if retold else None), 0

    def change(table: pa.Table) -> pa.Table:
        nonlocal num_tokens
        left = carrying.on(table)
        num_tokens += pc.sum(pc.list_value_length(left["token_ids"])).as_py() or 0
        return left

    rows = _rewrite(tokens / TOKENS, place / TOKENS, TOKENS_TABLE, change, prompts.ROWS_AT_A_TIME)
    carrying.check_all_were_there()
    shutil.copyfile(tokens / TOKENIZER, place / TOKENIZER)
    # How many prompts were shortened is not known of some of them.
    note(place, rows=rows, tokens=num_tokens, pruned=True)
    return rows


@dataclass(frozen=True)
class _Held:
    """What a part file holds of the rows that stay; `span` is their oldest and newest moment."""

    path: Path
    rows: int
    stay: int
    likes: int
    span: tuple[int, int]

    @classmethod
    def of(cls, path: Path, forgotten: Forgotten) -> _Held:
        stay = likes = 0
        spans: list[int] = []
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(interaction_rows.ROWS_AT_A_TIME, columns=["user_id", "item_id", "timestamp_s", "label"]):
                left = forgotten.left_of(pa.table(batch))
                stay, likes = stay + left.num_rows, likes + (pc.sum(left["label"]).as_py() or 0)
                spans += pc.min_max(left["timestamp_s"]).as_py().values() if left.num_rows else ()
            return cls(path, file.metadata.num_rows, stay, likes, (min(spans, default=0), max(spans, default=0)))


def _rewrite(source: Path, target: Path, contract: Contract, change: Callable[[pa.Table], pa.Table], at_a_time: int) -> int:
    """Write the rows of `source` as `change` leaves them, some at a time; returns how many there are."""
    rows, schema = 0, contract.schema()
    with (
        pq.ParquetFile(source, page_checksum_verification=True) as file,
        # Statistics would put the smallest and largest user id into the footer, where a scan for them must look too.
        pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True, write_statistics=False) as writer,
    ):
        for batch in file.iter_batches(at_a_time):
            left = change(pa.table(batch))
            rows += left.num_rows
            if left.num_rows:
                writer.write_table(left.cast(schema))
    return rows
