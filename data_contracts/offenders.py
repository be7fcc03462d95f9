"""Which rows break a rule, and how to describe them without naming a user; Arrow arithmetic only, no Python loop over rows."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract, Rule

NUM_EXAMPLES = 3
LONGEST_VALUE = 40
WITHHELD = "<withheld>"


def offending_rows(rule: Rule, table: pa.Table) -> pa.Int64Array:
    """Positions of the rows of `table` that break `rule`, ascending.

    A table that is too short has no offending row. Raises AssertionError for a kind of rule that it does not know.
    """
    columns = [table.column(name) for name in rule.columns]
    match rule.kind:
        case "has_rows":
            return pa.array([], pa.int64())
        case "not_null":
            return _where(columns[0].is_null())
        case "between":
            low = False if rule.low is None else pc.less(columns[0], rule.low)
            high = False if rule.high is None else pc.greater(columns[0], rule.high)
            return _where(pc.or_(low, high))
        case "one_of":
            allowed = pa.array(rule.values, columns[0].type)
            return _where(pc.and_(columns[0].is_valid(), pc.invert(pc.is_in(columns[0], value_set=allowed))))
        case "matches":
            return _where(pc.invert(pc.match_substring_regex(columns[0], pattern=rule.pattern)))
        case "finite":
            return _not_finite(columns[0])
        case "unique":
            return _sharing_a_key(columns)
        case "sorted":
            return pc.add(_where(_before([column[:-1] for column in columns], [column[1:] for column in columns])), 1)
        case "present_when":
            wanted = pc.fill_null(pc.equal(columns[1], rule.values[0]), False)
            return _where(pc.xor(columns[0].is_valid(), wanted))
    raise AssertionError(f"no way to find the offenders of a `{rule.kind}` rule")


def describe(contract: Contract, rule: Rule, table: pa.Table, rows: pa.Int64Array, first_row: int = 0) -> tuple[str, ...]:
    """Describe the first three of `rows`, such as "row 17: rating 11.0"; values of personal columns are withheld.

    Args:
        contract: Says which columns are personal.
        rule: What the rows break.
        table: Holds them.
        rows: Their positions in `table`.
        first_row: Number of the table's first row, where it is a part of a larger one.
    """
    return tuple(_describe_row(contract, rule, table, row, first_row) for row in rows[:NUM_EXAMPLES].to_pylist())


def _describe_row(contract: Contract, rule: Rule, table: pa.Table, row: int, first_row: int) -> str:
    def shown(position: int) -> str:
        return ", ".join(
            f"{name} {WITHHELD if contract.column(name).personal else _shown(table.column(name)[position])}" for name in rule.columns
        )

    return f"row {first_row + row}: {shown(row)}" + (f" after {shown(row - 1)}" if rule.kind == "sorted" else "")


def _shown(value: pa.Scalar) -> str:
    if not value.is_valid:
        return "missing"
    if pa.types.is_fixed_size_list(value.type):
        inside = value.values
        return f"with {len(inside) - _num_true(pc.is_finite(inside))} of {len(inside)} numbers not finite"
    if pa.types.is_floating(value.type):
        # Arrow writes the shortest text of a 32-bit number; Python would print 9.1 as 9.100000381469727.
        return str(float(value.cast(pa.string()).as_py()))
    # repr keeps an empty text visible and a line break on its line.
    text = repr(value.as_py()) if isinstance(value.as_py(), str) else str(value.as_py())
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _not_finite(column: pa.ChunkedArray) -> pa.Int64Array:
    if not pa.types.is_fixed_size_list(column.type):
        return _where(pc.invert(pc.is_finite(column)))
    found, start = [], 0
    for chunk in column.chunks:
        # flatten() leaves missing lists out, so element numbers lead to the n-th list that is there.
        elements = _where(pc.invert(pc.fill_null(pc.is_finite(chunk.flatten()), False)))
        lists = pc.unique(pc.divide(elements, chunk.type.list_size))
        found.append(pc.add(_where(chunk.is_valid()).take(lists), start))
        start += len(chunk)
    return pa.concat_arrays(found) if found else pa.array([], pa.int64())


def _sharing_a_key(columns: list[pa.ChunkedArray]) -> pa.Int64Array:
    keys = [f"key {number}" for number in range(len(columns))]
    numbered = pa.table([*columns, pa.arange(0, len(columns[0]))], names=[*keys, "row"]).drop_null()
    groups = numbered.group_by(keys).aggregate([("row", "list")]).column("row_list")
    rows = pc.list_flatten(groups.filter(pc.greater(pc.list_value_length(groups), 1))).combine_chunks()
    return rows.take(pc.sort_indices(rows))


def _before(above: list[pa.ChunkedArray], below: list[pa.ChunkedArray]) -> Any:
    """Where the row `below` belongs before the row `above`; a missing value or a NaN settles nothing."""
    first = pc.fill_null(pc.less(below[0], above[0]), False)
    if len(above) == 1:
        return first
    tied = pc.fill_null(pc.equal(below[0], above[0]), False)
    return pc.or_(first, pc.and_(tied, _before(above[1:], below[1:])))


def _num_true(flags: pa.BooleanArray) -> int:
    return int(pc.sum(flags).as_py() or 0)


def _where(flags: Any) -> pa.Int64Array:
    """Positions of the true flags; a missing flag counts as false."""
    # pyarrow 25 crashes the process when it looks for the true flags of a column of no chunks.
    whole = flags.combine_chunks() if isinstance(flags, pa.ChunkedArray) else flags
    return pc.indices_nonzero(whole).cast(pa.int64())
