"""Counts the rows that break a contract, over a table of any size that comes in batches.

Every rule is judged for every row, by whole-column Arrow arithmetic: some milliseconds a million rows. What a rule must remember from
one batch to the next is one row (order) or the key columns (uniqueness).
"""

from collections.abc import Collection, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract, Rule, Violation
from data_contracts.offenders import NUM_EXAMPLES, describe, offending_rows

SAMPLED_ROWS = 2000


class Tally:
    """What is known of a table so far.

    Args:
        contract: What the table should be; its columns must be in order, as `columns_broken` tells.
        num_rows: Rows that will come, where that is known: the sample is spread over them.
        filled: Columns that cannot lack a value, by the format they come from; they may be left out where nothing else is asked of them.
    """

    def __init__(self, contract: Contract, num_rows: int | None = None, filled: Collection[str] = ()) -> None:
        self.num_rows = 0
        self._contract = contract
        self._rules = [rule for rule in contract.all_rules() if rule.kind != "not_null" or rule.columns[0] not in filled]
        self._counts = {rule.name: 0 for rule in contract.all_rules()}
        self._examples: dict[str, list[str]] = {rule.name: [] for rule in contract.all_rules()}
        self._last: pa.Table | None = None
        self._keys: dict[str, list[pa.Table]] = {rule.name: [] for rule in contract.all_rules() if rule.kind == "unique"}
        self._every = max(1, -(-num_rows // SAMPLED_ROWS)) if num_rows else 1
        self._samples = not filled
        self._sample: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Judge the next rows."""
        for rule in self._rules:
            if rule.kind == "unique":
                self._keys[rule.name].append(table.select(list(rule.columns)))
            elif rule.kind == "sorted" and self._last is not None:
                self._note(rule, pa.concat_tables([self._last, table.select(list(rule.columns))]), self.num_rows - 1)
            elif rule.kind != "has_rows":
                self._note(rule, table, self.num_rows)
        if table.num_rows and self._samples:
            self._sample.append(table.take(pa.array(range(-self.num_rows % self._every, table.num_rows, self._every), pa.int64())))
        if table.num_rows:
            named = {name for rule in self._contract.rules if rule.kind == "sorted" for name in rule.columns}
            self._last = table.slice(table.num_rows - 1).select(sorted(named))
        self.num_rows += table.num_rows

    def sample(self) -> pa.Table:
        """Some 2,000 rows, evenly spread and in their order; none where columns may have been left out."""
        whole = pa.concat_tables(self._sample) if self._sample else self._contract.schema().empty_table()
        return whole.take(pa.array(range(0, whole.num_rows, -(-whole.num_rows // SAMPLED_ROWS)), pa.int64())) if whole.num_rows else whole

    def counts(self) -> dict[str, int]:
        """Rows that break each rule, by its name; of `has rows` how many rows are missing."""
        for rule in self._rules:
            if rule.kind == "unique" and self._keys[rule.name]:
                keys, self._keys[rule.name] = pa.concat_tables(self._keys[rule.name]), []
                if not _surely_unique(keys):
                    self._note(rule, keys, 0)
            elif rule.kind == "has_rows":
                self._counts[rule.name] = max(0, int(rule.low or 0) - self.num_rows)
        return dict(self._counts)

    def violations(self) -> list[Violation]:
        """Every rule that the table breaks, in the contract's order."""
        counts, broken = self.counts(), []
        for rule in self._contract.all_rules():
            if counts[rule.name] and rule.kind == "has_rows":
                broken.append(Violation(rule.name, 0, (f"the table has {self.num_rows} rows",)))
            elif counts[rule.name]:
                broken.append(Violation(rule.name, counts[rule.name], tuple(self._examples[rule.name])))
        return broken

    def _note(self, rule: Rule, table: pa.Table, first_row: int) -> None:
        rows = offending_rows(rule, table)
        self._counts[rule.name] += len(rows)
        told = self._examples[rule.name]
        if len(rows) and len(told) < NUM_EXAMPLES:
            told += describe(self._contract, rule, table, rows[: NUM_EXAMPLES - len(told)], first_row)


def tallied(contract: Contract, tables: Iterable[pa.Table], num_rows: int | None = None, filled: Collection[str] = ()) -> Tally:
    """The tally of all `tables`; see `Tally`."""
    tally = Tally(contract, num_rows, filled)
    for table in tables:
        tally.add(table)
    return tally


def _surely_unique(keys: pa.Table) -> bool:
    """Whether one column holds no value twice; False where only a closer look can tell."""
    column = keys.column(0)
    if keys.num_columns != 1 or pa.types.is_floating(column.type):
        return False
    if pa.types.is_integer(column.type) and not column.null_count:
        import numpy

        ordered = numpy.sort(column.to_numpy())
        return not bool((ordered[1:] == ordered[:-1]).any())
    return int(pc.count_distinct(column, mode="only_valid").as_py()) == len(column) - column.null_count
