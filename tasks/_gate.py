"""Holds what a stage has written against its data contract, before anyone else can read it.

Tables are read in batches, so that the largest one needs no more memory than a small one. What a contract cannot say of one table,
because it holds between several, is said of numbers that are measured on both: `relations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import (
    Artifact,
    Examples,
    ForgetRequest,
    HeldOutScores,
    Interactions,
    OriginalLogits,
    Proposal,
    Retold,
    Scores,
    TeacherLogits,
    Tokens,
)
from e2urec_core.data import places
from e2urec_core.errors import ContractBroken

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from data_contracts.contract import Contract, Violation
    from data_contracts.expectations import Judged

BYTES_AT_A_TIME = 64 * 2**20


def check(kind: type[Artifact], place: Path, parents: Mapping[type[Artifact], Path]) -> None:
    """Check every table that an artifact of this kind promises, and how it relates to what it was made from.

    Args:
        kind: Of the artifact.
        place: Its folder.
        parents: Folders of the artifacts it was made from, by kind.

    Raises:
        ContractBroken: A table breaks its contract; names the rule, counts the rows, shows three without users.
    """
    tables = _tables(kind, place, parents)
    for name, broken in _judged(tables).items():
        if broken:
            raise _refusal(name, tables[name].contract, tables[name].num_rows, broken)


def count_broken(stored: Mapping[type[Artifact], Path]) -> int:
    """How many rules the tables of these artifacts break, and what holds between them.

    Args:
        stored: Folders by kind; each is checked against those of them that it was made from.
    """
    return sum(len(broken) for kind, place in stored.items() for broken in _judged(_tables(kind, place, stored)).values())


def _tables(kind: type[Artifact], place: Path, parents: Mapping[type[Artifact], Path]) -> dict[str, Judged]:
    """Every table that an artifact of this kind promises, and the numbers that relate it to its parents, each with its contract."""
    import pyarrow.parquet as pq

    from data_contracts.expectations import Judged
    from e2urec_core.data.relations import relations

    tables = {}
    for name, contract in _contracts(kind, place):
        file = pq.ParquetFile(place / name)
        filled = _filled(file)
        tables[name] = Judged(contract, file.schema_arrow, _batches(file, contract, filled), file.metadata.num_rows, filled)
    for contract, table in relations(kind, place, parents):
        tables[f"{kind.kind} and what it was made from"] = Judged(contract, table.schema, [table], table.num_rows)
    return tables


def _judged(tables: dict[str, Judged]) -> Mapping[str, list[Violation]]:
    from data_contracts.expectations import judge

    return judge(tables)


def _filled(file: pq.ParquetFile) -> frozenset[str]:
    """Columns that the file's own format cannot leave without a value."""
    return frozenset(field.name for field in file.schema_arrow if not field.nullable)


def _batches(file: pq.ParquetFile, contract: Contract, filled: frozenset[str]) -> Iterator[pa.Table]:
    """The columns of which the contract asks something that is still open, some row groups at a time."""
    asked = {name for rule in contract.all_rules() for name in rule.columns if rule.kind != "not_null" or name not in filled}
    columns = [name for name in contract.column_names if name in asked and name in file.schema_arrow.names]
    sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)]
    start = 0
    while start < len(sizes):
        stop = start + 1
        while stop < len(sizes) and sum(sizes[start : stop + 1]) <= BYTES_AT_A_TIME:
            stop += 1
        yield file.read_row_groups(list(range(start, stop)), columns=columns)
        start = stop


def _contracts(kind: type[Artifact], place: Path) -> list[tuple[str, Contract]]:
    if kind is Interactions:
        from data_contracts.interactions import INTERACTIONS, ITEMS, USERS
        from data_contracts.quarantine import QUARANTINE

        parts = [(str(part.relative_to(place)), INTERACTIONS) for part in places.part_files(place) if part.stat().st_nlink == 1]
        return [*parts, (places.ITEMS, ITEMS), (places.USERS, USERS), (places.QUARANTINE, QUARANTINE)]
    if kind is Examples:
        from data_contracts.examples import EXAMPLES

        return [(places.EXAMPLES, EXAMPLES)]
    if kind is ForgetRequest:
        from data_contracts.examples import GONE, TOLD_ANEW

        return [(places.GONE, GONE), *([(places.EXAMPLES, TOLD_ANEW)] if (place / places.EXAMPLES).exists() else [])]
    if kind is Scores:
        from data_contracts.scores import SCORES

        return [(places.SCORES, SCORES)]
    if kind is HeldOutScores:
        from data_contracts.held_out import HELD_OUT

        return [(places.HELD_OUT, HELD_OUT)]
    if kind is Proposal:
        from data_contracts.draft_request import PROPOSED

        return [(places.PROPOSED, PROPOSED)]
    if kind in (Tokens, Retold):
        from data_contracts.tokens import TOKENS

        return [(places.TOKENS, TOKENS)]
    if kind in (OriginalLogits, TeacherLogits):
        import pyarrow.parquet as pq

        from data_contracts.teacher_logits import Part, teacher_logits
        from e2urec_core.data.teacher_scoring import FILES

        part: Part = "retained" if kind is OriginalLogits else "forgotten"
        schema = pq.read_schema(place / FILES[part])
        num_ids = schema.field("support").type.list_size if "support" in schema.names else None
        return [(FILES[part], teacher_logits(schema.field("original").type.list_size, num_ids, part, states="states" in schema.names))]
    return []


def _refusal(name: str, contract: Contract, num_rows: int, broken: list[Violation]) -> ContractBroken:
    first = broken[0]
    rows = f"{first.num_rows:,} of {num_rows:,} rows break" if first.num_rows else "the table breaks"
    facts = {f"example {number}": example for number, example in enumerate(first.examples, 1)}
    others = {"also broken": "; ".join(f"{other.rule} ({other.num_rows:,} rows)" for other in broken[1:])} if len(broken) > 1 else {}
    return ContractBroken(
        f"{rows} the rule `{first.rule}` of the contract `{contract.name}`",
        facts={"table": name, **facts, **others},
        hint="mend the rows at their source; nothing of this stage was published",
    )
