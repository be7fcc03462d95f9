"""A contract says what a table is: its columns, their types and the rules that its rows keep.

Contracts are frozen data and check nothing about rows themselves; `expectations.violations` does that. A contract file subclasses
`Contract` with one class attribute per column, so that code says `INTERACTIONS.user_id` where it would otherwise say "user_id".
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["has_rows", "not_null", "between", "one_of", "unique", "sorted", "matches", "finite", "present_when"]


@dataclass(frozen=True)
class Column:
    """One column: its name, its Arrow type, one sentence, and whether values may be missing or are personal."""

    name: str
    type: pa.DataType
    sentence: str
    nullable: bool = False
    personal: bool = False
    """True where a value identifies or describes a user; no message ever shows such a value."""


@dataclass(frozen=True)
class Rule:
    """One rule about the rows of a table; made by the functions below, never by hand. `name` is stable and enters messages."""

    kind: Kind
    name: str
    columns: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    values: tuple[str | int, ...] = ()
    pattern: str = ""


def between(column: str, low: float | None, high: float | None) -> Rule:
    """Values lie in [low, high], both ends included; None leaves an end open. Missing and NaN are left to nullable and `finite`."""
    if low is not None and high is not None:
        return Rule("between", f"{column} between {low} and {high}", (column,), low, high)
    assert (low is None) != (high is None), f"between({column!r}) bounds nothing"
    return Rule("between", f"{column} at least {low}" if high is None else f"{column} at most {high}", (column,), low, high)


def one_of(column: str, *values: str | int) -> Rule:
    """Values are among `values`; missing values are left to nullable."""
    return Rule("one_of", f"{column} one of {', '.join(map(str, values))}", (column,), values=values)


def unique(*columns: str) -> Rule:
    """No two rows share the values of `columns`; a row in which one of them is missing is left to nullable."""
    return Rule("unique", f"{', '.join(columns)} unique", columns)


def sorted_by(*columns: str) -> Rule:
    """No row comes before the row above it, comparing `columns` left to right, text by its UTF-8 bytes; equal rows are in order."""
    return Rule("sorted", f"sorted by {', '.join(columns)}", columns)


def matches(column: str, pattern: str) -> Rule:
    """The RE2 expression `pattern` is found somewhere in every value; missing values are left to nullable.

    Raises:
        pyarrow.ArrowInvalid: `pattern` is no RE2 expression, for instance because it looks around.
    """
    # Nulls, because pyarrow loads pandas to convert the first Python value, and `--help` reads contracts.
    pc.match_substring_regex(pa.nulls(1, pa.string()), pattern=pattern)
    return Rule("matches", f"{column} matches {pattern}", (column,), pattern=pattern)


def finite(column: str) -> Rule:
    """No NaN and no infinity; in a list column no missing element either. A missing value or list is left to nullable."""
    return Rule("finite", f"{column} finite", (column,))


def present_when(column: str, other: str, value: str) -> Rule:
    """`column` has a value exactly in the rows where `other` equals `value`."""
    return Rule("present_when", f"{column} present exactly when {other} is {value}", (column, other), values=(value,))


@dataclass(frozen=True)
class Violation:
    """One rule that a table breaks, told without naming a user.

    `num_rows` counts the offending rows; it is 0 where the table as a whole is at fault (a column, the number of rows).
    `examples` describes up to three of them, such as "row 17: rating 11.0"; row 0 is the first.
    """

    rule: str
    num_rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Contract:
    """What a table is. `min_rows` is 1 because an empty table is nearly always a fault upstream."""

    name: str
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    min_rows: int = 1

    def __post_init__(self) -> None:
        assert len(set(self.column_names)) == len(self.columns), f"contract {self.name} repeats a column"
        # Verdicts are told apart by the name of their rule.
        assert len({rule.name for rule in self.all_rules()}) == len(self.all_rules()), f"contract {self.name} repeats a rule"
        for rule in self.rules:
            for name in rule.columns:
                assert name in self.column_names, f"contract {self.name}: rule `{rule.name}` names no column of it"
                assert _suits(rule.kind, self.column(name).type), f"contract {self.name}: rule `{rule.name}` does not suit its type"

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column called `name`; KeyError where there is none."""
        return {column.name: column for column in self.columns}[name]

    def schema(self) -> pa.Schema:
        """The Arrow schema of a table that keeps this contract, columns in order."""
        return pa.schema([pa.field(column.name, column.type, column.nullable) for column in self.columns])

    def all_rules(self) -> tuple[Rule, ...]:
        """Every rule in the order of reporting: enough rows, then no missing values where not nullable, then `rules`."""
        rows = Rule("has_rows", "has rows" if self.min_rows == 1 else f"has at least {self.min_rows} rows", low=self.min_rows)
        filled = (Rule("not_null", f"{column.name} not null", (column.name,)) for column in self.columns if not column.nullable)
        return ((rows,) if self.min_rows else ()) + (*filled, *self.rules)


def columns_broken(contract: Contract, schema: pa.Schema) -> list[Violation]:
    """Columns of `contract` that `schema` lacks, repeats or holds in another type; columns beyond the contract are welcome.

    string and large_string count as one type: they differ in layout only, and polars writes the large one.
    """
    broken = []
    for column in contract.columns:
        found = [schema.field(position).type for position in schema.get_all_field_indices(column.name)]
        if len(found) != 1:
            fault = f"column {column.name} is missing" if not found else f"column {column.name} appears {len(found)} times"
            broken.append(Violation(f"{column.name} is a column", 0, (fault,)))
        elif not _same_type(found[0], column.type):
            broken.append(Violation(f"{column.name} is {column.type}", 0, (f"column {column.name} is {found[0]}, not {column.type}",)))
    return broken


def summary_digest(contract: Contract) -> str:
    """SHA-256 (hex) of what the contract demands, for the keys of stages.

    Sentences are left out: a reworded sentence must not throw away stored results.
    """
    columns = [[column.name, str(column.type), column.nullable, column.personal] for column in contract.columns]
    rules = [[rule.kind, rule.columns, rule.low, rule.high, rule.values, rule.pattern] for rule in contract.rules]
    demand = {"name": contract.name, "columns": columns, "rules": rules, "min_rows": contract.min_rows}
    return hashlib.sha256(json.dumps(demand, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_text(kind: pa.DataType) -> bool:
    """True for both layouts of text that rules can judge; Arrow lacks the arithmetic for string_view."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _same_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(found) and pa.types.is_fixed_size_list(wanted):
        return found.list_size == wanted.list_size and _same_type(found.value_type, wanted.value_type)
    return found == wanted or (_is_text(found) and _is_text(wanted))


def _suits(kind: Kind, column: pa.DataType) -> bool:
    whole, real, text = pa.types.is_integer(column), pa.types.is_floating(column), _is_text(column)
    if kind == "finite":
        listed = pa.types.is_fixed_size_list(column) and pa.types.is_primitive(column.value_type)
        return real or listed
    # A real number as a key or as one of a few values would turn rounding into a fault.
    return {"between": whole or real, "matches": text, "sorted": whole or real or text}.get(kind, whole or text)
