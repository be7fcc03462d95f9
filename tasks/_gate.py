"""Holds what a stage has written against its data contract, before anyone else can read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import Artifact, Examples, Interactions, Scores, TeacherLogits
from e2urec_core.errors import ContractBroken

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract, Violation

# Tables of wide rows are checked this many bytes at a time.
BYTES_AT_A_TIME = 64 * 2**20


def check(kind: type[Artifact], place: Path) -> None:
    """Check every table that an artifact of this kind promises.

    Raises:
        ContractBroken: A table breaks its contract; names the rule, counts the rows, shows three without users.
    """
    for name, contract, table in _tables(kind, place):
        from data_contracts.expectations import violations

        broken = violations(contract, table)
        if broken:
            raise _refusal(name, contract, table, broken)


def _tables(kind: type[Artifact], place: Path) -> Iterator[tuple[str, Contract, pa.Table]]:
    import pyarrow.parquet as pq

    for name, contract in _contracts(kind, place):
        if kind is not TeacherLogits:
            yield name, contract, pq.read_table(place / name)
            continue
        file = pq.ParquetFile(place / name)
        sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)]
        start = 0
        while start < len(sizes):
            stop = start + 1
            while stop < len(sizes) and sum(sizes[start : stop + 1]) <= BYTES_AT_A_TIME:
                stop += 1
            yield name, contract, file.read_row_groups(list(range(start, stop)))
            start = stop


def _contracts(kind: type[Artifact], place: Path) -> list[tuple[str, Contract]]:
    if kind is Interactions:
        from data_contracts.interactions import INTERACTIONS, ITEMS, USERS

        return [("interactions.parquet", INTERACTIONS), ("items.parquet", ITEMS), ("users.parquet", USERS)]
    if kind is Examples:
        from data_contracts.examples import EXAMPLES

        return [("examples.parquet", EXAMPLES)]
    if kind is Scores:
        from data_contracts.scores import SCORES

        return [("scores.parquet", SCORES)]
    if kind is TeacherLogits:
        import pyarrow.parquet as pq

        from data_contracts.teacher_logits import teacher_logits
        from e2urec_core.data.logit_cache import PARTS

        found: list[tuple[str, Contract]] = []
        for part in PARTS:
            schema = pq.read_schema(place / f"{part}.parquet")
            num_ids = schema.field("support").type.list_size if "support" in schema.names else None
            found.append((f"{part}.parquet", teacher_logits(schema.field("original").type.list_size, num_ids, part)))
        return found
    return []


def _refusal(name: str, contract: Contract, table: pa.Table, broken: list[Violation]) -> ContractBroken:
    first = broken[0]
    rows = f"{first.num_rows:,} of {table.num_rows:,} rows break" if first.num_rows else "the table breaks"
    facts = {f"example {number}": example for number, example in enumerate(first.examples, 1)}
    others = {"also broken": "; ".join(f"{other.rule} ({other.num_rows:,} rows)" for other in broken[1:])} if len(broken) > 1 else {}
    return ContractBroken(
        f"{rows} the rule `{first.rule}` of the contract `{contract.name}`",
        facts={"table": name, **facts, **others},
        hint="mend the rows at their source; nothing of this stage was published",
    )
