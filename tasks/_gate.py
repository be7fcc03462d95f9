"""Holds what a stage has written against its data contract, before anyone else can read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import Artifact, Examples, Interactions, OriginalLogits, Scores, TeacherLogits, Tokens
from e2urec_core.errors import ContractBroken

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.contract import Contract, Violation

# Tables of wide rows are checked this many bytes at a time.
WIDE = (OriginalLogits, TeacherLogits)
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
        if kind not in WIDE:
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
    if kind is Tokens:
        from data_contracts.tokens import TOKENS

        return [("tokens.parquet", TOKENS)]
    if kind in WIDE:
        import pyarrow.parquet as pq

        from data_contracts.teacher_logits import Part, teacher_logits
        from e2urec_core.data.teacher_scoring import FILES

        part: Part = "retained" if kind is OriginalLogits else "forgotten"
        schema = pq.read_schema(place / FILES[part])
        num_ids = schema.field("support").type.list_size if "support" in schema.names else None
        return [(FILES[part], teacher_logits(schema.field("original").type.list_size, num_ids, part, states="states" in schema.names))]
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
