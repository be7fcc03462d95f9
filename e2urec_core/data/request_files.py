"""Reads a table of deletion requests, as its contract says; a file with a row that is unclear is refused as a whole.

What is said of such a file names rules, numbers of rows and counts, and never a user, an item or a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from e2urec_core.data.files import find
from e2urec_core.data.moments import NEWEST_S, seconds_of_dates, seconds_of_numbers
from e2urec_core.data.unreadable import reading
from e2urec_core.datasets.base import canonical_id
from e2urec_core.errors import BadInput
from e2urec_core.ledger.request_records import NewRequest

if TYPE_CHECKING:
    import polars
    import pyarrow

_NAMED = 10


def read_requests(path: str) -> tuple[list[NewRequest], list[str]]:
    """The requests of a CSV, NDJSON or Parquet file, each with the name that the file gives it.

    Args:
        path: A file with the columns of the contract `deletion_request`; without `item_id` where all are for whole users. Further
            columns are passed over; `requested_at` may be a time, a date in text or seconds since 1970, UTC.

    Raises:
        BadInput: The file cannot be read, lacks a column, or a row breaks a rule.
    """
    from data_contracts.deletion_request import DELETION_REQUEST
    from data_contracts.offenders import offending_rows

    table = _table(path)
    broken = {rule.name: offending_rows(rule, table).to_pylist() for rule in DELETION_REQUEST.all_rules()}
    requests: list[NewRequest | None] = []
    if not any(broken.values()):
        for place, row in enumerate(table.to_pylist()):
            try:
                requests.append(_request(row))
            except ValidationError as error:
                broken.setdefault(f"{error.errors()[0]['loc'][0]} is well-formed", []).append(place)
    wrong = {place for places in broken.values() for place in places}
    if wrong:
        raise BadInput(
            f"{len(wrong):,} of {table.num_rows:,} rows of `{path}` are no clear requests; nothing was added",
            facts={f"not: {name}": _listed(places) for name, places in broken.items() if places},
            hint="mend these rows; they are counted from 1 without the header",
        )
    return [request for request in requests if request], table.column("request_id").to_pylist()


def _table(path: str) -> pyarrow.Table:
    import polars as pl
    import pyarrow as pa

    from data_contracts.deletion_request import DELETION_REQUEST

    names = DELETION_REQUEST.column_names
    with reading(path):
        rows = find(path).scan(wanted=names).collect()
    if DELETION_REQUEST.item_id not in rows.columns:
        rows = rows.with_columns(pl.lit(None, pl.String).alias(DELETION_REQUEST.item_id))
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise BadInput(f"`{path}` lacks {len(missing)} of {len(names)} columns: {', '.join(missing)}", hint=f"it needs {', '.join(names)}")
    if rows.is_empty():
        raise BadInput(f"`{path}` is empty: 0 rows", hint="name another file")
    moment = _moment(rows)
    texts = [canonical_id(name, rows.schema[name]).alias(name) for name in names if name != DELETION_REQUEST.requested_at]
    told = rows.select(*texts, moment.alias(DELETION_REQUEST.requested_at)).select(names)
    columns = [told[name].to_arrow().cast(DELETION_REQUEST.column(name).type) for name in names]
    return pa.table(columns, schema=pa.schema([pa.field(column.name, column.type) for column in DELETION_REQUEST.columns]))


def _moment(rows: polars.DataFrame) -> polars.Expr:
    """The time of each request, UTC; missing where there is none between 1970 and 2100."""
    import polars as pl

    column, kind = pl.col("requested_at"), rows.schema["requested_at"]
    if kind.is_temporal():
        zoned = column.dt.convert_time_zone("UTC") if getattr(kind, "time_zone", None) else column.cast(pl.Datetime("us"))
        microseconds = zoned.cast(pl.Datetime("us", getattr(kind, "time_zone", None) and "UTC")).dt.timestamp("us")
    else:
        text = column.cast(pl.String)
        microseconds = pl.coalesce(seconds_of_numbers(text, pl.String(), "s"), seconds_of_dates(text)) * 10**6
    inside = pl.when(microseconds.is_between(0, NEWEST_S * 10**6)).then(microseconds)
    return inside.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _request(row: dict[str, object]) -> NewRequest:
    items = () if row["item_id"] is None else (row["item_id"],)
    return NewRequest.model_validate(
        {"user_id": row["user_id"], "items": items, "reason": row["reason"], "requested_at": row["requested_at"]}
    )


def _listed(places: Sequence[int]) -> str:
    named = ", ".join(str(place + 1) for place in places[:_NAMED])
    return f"{len(places):,} rows: {named}{', ...' if len(places) > _NAMED else ''}"
