"""Check a table against its contract with Great Expectations; the only place that imports it, and only when a table is checked.

Great Expectations gives the verdict on every rule from a pandas frame of just the columns that rules need. Its results carry booleans
only, because its fuller formats copy the offending values, user identifiers among them. Counts and examples of what failed come from
`offenders`. Where pandas would blur the question, the frame carries the answer per row instead, a column of true and false named after
the rule: lists; missing against NaN in real numbers; patterns (pandas takes RE2 or Python's `re` depending on the pattern, and the two
differ beyond ASCII); the order of rows (Great Expectations subtracts neighbours, which overflows at the ends of int64 and fails on text).
"""

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract, Rule, Violation, columns_broken
from data_contracts.offenders import describe, offending_rows

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuite

# Great Expectations keeps one context per process, and a second thread would swap it under the first.
_ONE_AT_A_TIME = threading.Lock()


class CouldNotEvaluate(RuntimeError):
    """A rule was neither kept nor broken: Great Expectations failed to answer. A bug of ours, not a fault of the table."""


def violations(contract: Contract, table: pa.Table) -> list[Violation]:
    """Every rule of `contract` that `table` breaks, in the contract's order; an empty list where it keeps them all.

    A missing, repeated or mistyped column ends the check, since rules on it cannot be judged.

    Raises:
        CouldNotEvaluate: Great Expectations could not answer for a rule.
    """
    broken = columns_broken(contract, table.schema)
    if broken:
        return broken
    result = evaluate(contract, table)
    failed = {outcome.expectation_config.meta["rule"] for outcome in result.results if not outcome.success}
    for rule in contract.all_rules():
        if rule.name in failed:
            broken.append(_violation(contract, rule, table))
    return broken


def suite(contract: Contract) -> "ExpectationSuite":
    """The Great Expectations suite of `contract`: one expectation per rule, whose `meta` names the rule.

    It is made for the frame that `evaluate` builds, so columns of a per-row verdict appear under the name of their rule.
    """
    _import_quietly()
    from great_expectations.core import ExpectationSuite

    return ExpectationSuite(name=contract.name, expectations=[_expectation(contract, rule) for rule in contract.all_rules()])


def evaluate(contract: Contract, table: pa.Table) -> Any:
    """What Great Expectations says, free of identifiers: its suite result in the format BOOLEAN_ONLY.

    Args:
        contract: What the table should be.
        table: Rows whose columns are in order, as `columns_broken` tells.

    Raises:
        CouldNotEvaluate: An expectation raised instead of answering.
    """
    gx = _import_quietly()
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig

    with _ONE_AT_A_TIME:
        # Left to itself the context would touch the disk to find a place for its documentation.
        house = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults(), progress_bars=ProgressBarsConfig(globally=False))
        context = gx.get_context(mode="ephemeral", project_config=house)
        asset = context.data_sources.add_pandas(contract.name).add_dataframe_asset(contract.name)
        batch = asset.add_batch_definition_whole_dataframe("all rows").get_batch({"dataframe": _frame(contract, table)})
        result = batch.validate(suite(contract), result_format="BOOLEAN_ONLY")
    for outcome in result.results:
        if _raised(outcome.exception_info):
            asked = outcome.expectation_config
            # The exception's own text may quote a value of the table, so it stays out.
            raise CouldNotEvaluate(f"`{asked.type}` could not be evaluated for the rule `{asked.meta['rule']}` of {contract.name}")
    return result


def _violation(contract: Contract, rule: Rule, table: pa.Table) -> Violation:
    if rule.kind == "has_rows":
        return Violation(rule.name, 0, (f"the table has {table.num_rows} rows",))
    rows = offending_rows(rule, table)
    assert len(rows) > 0, f"Great Expectations sees `{rule.name}` broken, but no row breaks it"
    return Violation(rule.name, len(rows), describe(contract, rule, table, rows))


def _import_quietly() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # It logs dozens of lines while it loads, and an exception that it logs may quote a value; its results tell us of both.
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
    import great_expectations

    return great_expectations


def _judged_by_row(contract: Contract, rule: Rule) -> bool:
    """Whether the frame carries the rule's verdict per row instead of the rule's columns."""
    if rule.kind == "not_null":
        kind = contract.column(rule.columns[0]).type
        return bool(pa.types.is_floating(kind) or pa.types.is_fixed_size_list(kind))
    return rule.kind in {"finite", "matches", "sorted", "present_when"}


def _expectation(contract: Contract, rule: Rule) -> Any:
    from great_expectations import expectations as gxe

    meta = {"rule": rule.name}
    if _judged_by_row(contract, rule):
        return gxe.ExpectColumnValuesToBeInSet(column=rule.name, value_set=[True], meta=meta)
    match rule.kind:
        case "has_rows":
            return gxe.ExpectTableRowCountToBeBetween(min_value=rule.low, meta=meta)
        case "not_null":
            return gxe.ExpectColumnValuesToNotBeNull(column=rule.columns[0], meta=meta)
        case "between":
            return gxe.ExpectColumnValuesToBeBetween(column=rule.columns[0], min_value=rule.low, max_value=rule.high, meta=meta)
        case "one_of":
            return gxe.ExpectColumnValuesToBeInSet(column=rule.columns[0], value_set=list(rule.values), meta=meta)
        case "unique" if len(rule.columns) == 1:
            return gxe.ExpectColumnValuesToBeUnique(column=rule.columns[0], meta=meta)
        case "unique":
            missing = "any_value_is_missing"
            return gxe.ExpectCompoundColumnsToBeUnique(column_list=list(rule.columns), ignore_row_if=missing, meta=meta)
    raise AssertionError(f"no expectation for a `{rule.kind}` rule")


def _frame(contract: Contract, table: pa.Table) -> "pd.DataFrame":
    """Columns that rules ask about, and one column of verdicts per rule that is judged by row; all of the table's rows."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for rule in contract.all_rules():
        if _judged_by_row(contract, rule):
            broken = pc.is_in(pa.arange(0, table.num_rows), value_set=offending_rows(rule, table))
            columns[rule.name] = pc.invert(broken).to_pandas()
        else:
            columns.update((name, _series(table.column(name))) for name in rule.columns if name not in columns)
    return pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows))


def _series(column: pa.ChunkedArray) -> "pd.Series":
    if pa.types.is_integer(column.type) and column.null_count:
        # pandas would turn the column into floats, in which ids above 2**53 collide.
        import pandas as pd

        return column.to_pandas(types_mapper={column.type: pd.ArrowDtype(column.type)}.get)
    return column.to_pandas()


def _raised(exception_info: dict[str, Any]) -> bool:
    """Whether an expectation raised: told at the top for the whole expectation, or below per metric."""
    told = [exception_info, *(value for value in exception_info.values() if isinstance(value, dict))]
    return any(bool(one.get("raised_exception")) for one in told)
