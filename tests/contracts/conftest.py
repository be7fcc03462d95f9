"""Small tables that keep their contract, and a way to spoil one value."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.deletion_request import DELETION_REQUEST
from data_contracts.examples import EXAMPLES
from data_contracts.interactions import INTERACTIONS

Spoil = Callable[[pa.Table, str, int, Any], pa.Table]


@pytest.fixture
def spoil() -> Spoil:
    """A copy of a table in which one value is another."""

    def spoiled(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
        values = table.column(column).to_pylist()
        values[row] = value
        field = table.schema.field(column)
        return table.set_column(table.column_names.index(column), field, pa.array(values, field.type))

    return spoiled


@pytest.fixture
def interactions() -> pa.Table:
    """Six ratings of three users named canary-*, in order."""
    rows = {
        "interaction_id": [901, 17, 4_000_000_000_000_000_000, 5, 6, 7],
        "user_id": ["canary-a", "canary-b", "canary-b", "canary-a", "canary-c", "canary-c"],
        "item_id": ["i1", "i1", "i2", "i3", "i1", "i2"],
        "rating": [5.0, 0.0, 9.1, 10.0, 3.5, 2.0],
        "timestamp_s": [10, 10, 10, 20, 30, 30],
        "label": [1, 0, 1, 1, 1, 0],
    }
    return pa.table({name: rows[name] for name in INTERACTIONS.column_names}, schema=INTERACTIONS.schema())


@pytest.fixture
def examples() -> pa.Table:
    """Four examples, one per split."""
    rows = {
        "example_id": [901, 17, 4_000_000_000_000_000_000, 5],
        "user_id": ["canary-a", "canary-b", "canary-b", "canary-a"],
        "item_id": ["i1", "i1", "i2", "i3"],
        "timestamp_s": [10, 10, 20, 30],
        "split": ["train", "validation", "test", "holdout"],
        "item": [0, 0, 1, 2],
        "history": [[8], [7], [7, 0], [8, 0]],
        "history_ratings": [[4.0], [None], [1.0, 0.5], [4.0, 5.0]],
        "label": [1, 0, 1, 0],
        "rating": [5.0, 1.0, 4.0, 2.0],
    }
    return pa.table({name: rows[name] for name in EXAMPLES.column_names}, schema=EXAMPLES.schema())


@pytest.fixture
def requests() -> pa.Table:
    """One request for a whole user, one for a single interaction."""
    rows = {
        "request_id": ["r1", "r2"],
        "scope": ["user", "interaction"],
        "user_id": ["canary-a", "canary-b"],
        "item_id": [None, "i2"],
        "reason": ["privacy", "pollution"],
        "requested_at": [1_700_000_000_000_000, 1_700_000_000_000_001],
    }
    return pa.table(rows, schema=DELETION_REQUEST.schema())
