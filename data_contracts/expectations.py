"""Check a table against its contract; the only place that imports Great Expectations, and only when a table is checked.

Every row is judged by `tally`, in Arrow. The contract's suite of Great Expectations judges a sample of some 2,000 rows spread over the
table, from a pandas frame of just the columns that rules need, and must not see a rule broken that the count sees kept; over all of a
million rows it would cost more than a tenth of ingesting them. Its results carry booleans only, because its fuller formats copy the
offending values, user identifiers among them.

Where pandas would blur the question, the frame carries the answer per row instead, a column of true and false named after the rule:
lists; missing against NaN in real numbers; patterns (pandas takes RE2 or Python's `re` depending on the pattern, and the two differ
beyond ASCII); the order of rows (Great Expectations subtracts neighbours, which overflows at the ends of int64 and fails on text).
"""

import logging
import os
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract, Rule, Violation, columns_broken
from data_contracts.offenders import offending_rows
from data_contracts.tally import tallied

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuite

# Great Expectations keeps one context per process, and a second thread would swap it under the first.
_ONE_AT_A_TIME = threading.Lock()


class CouldNotEvaluate(RuntimeError):
    """A rule was neither kept nor broken: Great Expectations failed to answer. A bug of ours, not a fault of the table."""


class Disagree(RuntimeError):
    """Great Expectations and the count differ on a rule. A bug of ours, not a fault of the table."""


def violations(contract: Contract, table: pa.Table) -> list[Violation]:
    """Every rule of `contract` that `table` breaks, in the contract's order; an empty list where it keeps them all.

    A missing, repeated or mistyped column ends the check, since rules on it cannot be judged.

    Raises:
        CouldNotEvaluate: Great Expectations could not answer for a rule.
        Disagree: It sees a rule broken that the count sees kept.
    """
    return violations_of(contract, table.schema, [table], table.num_rows)


def violations_of(contract: Contract, schema: pa.Schema, tables: Iterable[pa.Table], num_rows: int | None = None) -> list[Violation]:
    """`violations` of a table that comes in batches: counted over all rows, and judged by Great Expectations on a spread sample.

    Args:
        contract: What the table should be.
        schema: The table's.
        tables: Its rows, in their order.
        num_rows: How many there are, where that is known.
    """
    broken = columns_broken(contract, schema)
    if broken:
        return broken
    tally = tallied(contract, tables, num_rows)
    broken = tally.violations()
    sample = tally.sample()
    if sample.num_rows:
        told = {violation.rule for violation in broken}
        failed = [outcome.expectation_config.meta["rule"] for outcome in evaluate(contract, sample).results if not outcome.success]
        for rule in failed:
            # Fewer rows are sampled than a contract may ask for.
            if rule not in told and not rule.startswith("has"):
                raise Disagree(f"Great Expectations sees `{rule}` of {contract.name} broken, but no row breaks it")
    return broken


@dataclass(frozen=True)
class Judged:
    """A table to be judged: its contract, schema, rows in batches, their number, and the columns that cannot lack a value."""

    contract: Contract
    schema: pa.Schema
    tables: Iterable[pa.Table]
    num_rows: int
    filled: frozenset[str] = frozenset()


def judge(tables: Mapping[str, Judged]) -> dict[str, list[Violation]]:
    """What each of several tables breaks, by its name: every row is counted, and Great Expectations judges the counts, all at once.

    Its suite is one expectation on a table with a row for each rule: that no rule is broken by more than 0 rows. Asking it about every
    rule by itself, or about rows, would cost a tenth of what reading a million rows takes.

    Raises:
        CouldNotEvaluate: Great Expectations could not answer.
        Disagree: It does not agree with the counts.
    """
    broken = {name: columns_broken(table.contract, table.schema) for name, table in tables.items()}
    counts: dict[str, list[int]] = {}
    for name, table in tables.items():
        if not broken[name]:
            tally = tallied(table.contract, table.tables, table.num_rows, table.filled)
            broken[name], counts[name] = tally.violations(), list(tally.counts().values())
    told = [name for name in counts if broken[name]]
    if counts and _accepted(counts) != (not told):
        raise Disagree(f"Great Expectations {'accepts' if told else 'refuses'} what the counts of {', '.join(told or counts)} do not")
    return broken


def _accepted(counts: Mapping[str, list[int]]) -> bool:
    """Whether Great Expectations sees no rule of any table broken; `counts` are broken rows by rule."""
    import pandas as pd

    frame = pd.DataFrame({"broken rows": [count for told in counts.values() for count in told]})
    gx = _import_quietly()
    from great_expectations import expectations as gxe

    kept = gxe.ExpectColumnValuesToBeBetween(column="broken rows", min_value=0, max_value=0, meta={"rule": "no rule is broken"})
    return bool(_validated(frame, "broken rows", gx.ExpectationSuite(name="broken rows", expectations=[kept])).success)


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
    return _validated(_frame(contract, table), contract.name, suite(contract))


def _validated(frame: "pd.DataFrame", name: str, asked: "ExpectationSuite") -> Any:
    """What Great Expectations says of a frame, in booleans only."""
    gx = _import_quietly()
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig

    with _ONE_AT_A_TIME:
        # Left to itself the context would touch the disk to find a place for its documentation.
        house = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults(), progress_bars=ProgressBarsConfig(globally=False))
        context = gx.get_context(mode="ephemeral", project_config=house)
        asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("all rows").get_batch({"dataframe": frame})
        result = batch.validate(asked, result_format="BOOLEAN_ONLY")
    _refuse_unanswered(name, result)
    return result


def data_docs(tables: Sequence[tuple[Contract, pa.Table]], folder: Path) -> Path:
    """Write Great Expectations' own pages about these tables into `folder`; returns the page to open first.

    The pages carry rules and booleans, no value of a table. They pull their styles from the network when they are opened.

    Args:
        tables: Tables whose columns are in order, as `columns_broken` tells, with their contracts; names of contracts differ.
        folder: Made where it is missing; pages of an earlier call are replaced.

    Raises:
        CouldNotEvaluate: An expectation raised instead of answering; no page is written.
    """
    gx = _import_quietly()
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig

    index = {"class_name": "DefaultSiteIndexBuilder", "show_cta_footer": False}
    pages = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.absolute())}
    site = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": pages, "site_index_builder": index}
    with _ONE_AT_A_TIME:
        house = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            progress_bars=ProgressBarsConfig(globally=False),
            data_docs_sites={"contracts": site},
        )
        context = gx.get_context(mode="ephemeral", project_config=house)
        for contract, table in tables:
            asset = context.data_sources.add_pandas(contract.name).add_dataframe_asset(contract.name)
            batch = asset.add_batch_definition_whole_dataframe("all rows")
            judged = gx.ValidationDefinition(name=contract.name, data=batch, suite=context.suites.add(suite(contract)))
            rows = {"dataframe": _frame(contract, table)}
            result = context.validation_definitions.add(judged).run(batch_parameters=rows, result_format="BOOLEAN_ONLY")
            # A page would show the exception's text.
            _refuse_unanswered(contract.name, result)
        for pages_of in ("expectations", "validations"):
            shutil.rmtree(folder / pages_of, ignore_errors=True)
        context.build_data_docs()
    return folder / "index.html"


def _refuse_unanswered(name: str, result: Any) -> None:
    for outcome in result.results:
        if _raised(outcome.exception_info):
            asked = outcome.expectation_config
            # The exception's own text may quote a value of the table, so it stays out.
            raise CouldNotEvaluate(f"`{asked.type}` could not be evaluated for the rule `{asked.meta['rule']}` of {name}")


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
        return bool(pa.types.is_floating(kind) or pa.types.is_nested(kind))
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
