"""Holds written tables against their contracts and says for every rule whether it is kept, in numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.contract import Contract, Violation, columns_broken
from data_contracts.interactions import INTERACTIONS, ITEMS, USERS
from data_contracts.quarantine import QUARANTINE
from e2urec_core.data import places
from e2urec_core.errors import ContractBroken

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class RuleVerdict:
    """One rule of a contract: whether the table keeps it, and how many rows break it (0 where the table as a whole does)."""

    name: str
    is_kept: bool
    num_broken: int = 0


@dataclass(frozen=True)
class TableVerdict:
    """One table against its contract.

    Args:
        contract: What the table should be.
        num_rows: Rows of the table; None where the reading ended before it was written.
        rules: A verdict on each rule; on columns alone where these are wrong.
    """

    contract: Contract
    num_rows: int | None
    rules: tuple[RuleVerdict, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether the table was judged and keeps every rule."""
        return self.num_rows is not None and all(rule.is_kept for rule in self.rules)


def broken_rules(contract: Contract, table: pa.Table) -> list[Violation]:
    """Rules that the table breaks: the one place of this folder that asks."""
    from data_contracts.expectations import violations

    return violations(contract, table)


def tables_of(place: Path) -> Iterator[tuple[Contract, pa.Table | None]]:
    """The tables of stored interactions with their contracts, one in memory at a time; None for one that was not written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = places.part_files(place)
    yield INTERACTIONS, pa.concat_tables(map(pq.read_table, parts)) if parts else None
    for name, contract in ((places.ITEMS, ITEMS), (places.USERS, USERS), (places.QUARANTINE, QUARANTINE)):
        yield contract, pq.read_table(place / name) if (place / name).is_file() else None


def judge(contract: Contract, table: pa.Table | None) -> TableVerdict:
    """The verdict on one table."""
    if table is None:
        return TableVerdict(contract, None)
    broken = {found.rule: found.num_rows for found in broken_rules(contract, table)}
    known = [rule.name for rule in contract.all_rules()]
    # A column that is missing or of another type is told in the place of the rules, which then cannot be judged.
    names = known if set(broken) <= set(known) else list(broken)
    return TableVerdict(contract, table.num_rows, tuple(RuleVerdict(name, name not in broken, broken.get(name, 0)) for name in names))


def write_data_docs(place: Path, folder: Path) -> Path:
    """Write Great Expectations' own pages about the tables in `place` into `folder`; returns the page to open first."""
    from data_contracts.expectations import data_docs

    written = [(contract, table) for contract, table in tables_of(place) if table is not None]
    return data_docs([(contract, table) for contract, table in written if not columns_broken(contract, table.schema)], folder)


def refusal(verdicts: tuple[TableVerdict, ...]) -> ContractBroken | None:
    """What the gate says of the first table that breaks its contract."""
    for verdict in verdicts:
        for rule in verdict.rules:
            if not rule.is_kept:
                rows = f"{rule.num_broken:,} of {verdict.num_rows:,} rows break" if rule.num_broken else "the table breaks"
                fact = f"{rows} the rule `{rule.name}` of the contract `{verdict.contract.name}`"
                return ContractBroken(fact, hint="mend the rows at their source")
    return None
