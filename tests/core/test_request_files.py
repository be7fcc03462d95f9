"""Files of deletion requests: three formats are one, an unclear row refuses the whole file, and nobody is named on the way."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from e2urec_core.data.request_files import read_requests
from e2urec_core.errors import BadInput
from e2urec_core.ledger.request_records import NewRequest

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GOOD: dict[str, list[Any]] = {
    "request_id": ["canary-a", "canary-b", "canary-c"],
    "scope": ["user", "interaction", "user"],
    "user_id": ["canary-1", "canary-1", "007"],
    "item_id": [None, "canary-x", None],
    "reason": ["privacy", "pollution", "privacy"],
    "requested_at": ["2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00", "1767268800"],
}
EXPECTED = [
    NewRequest(user_id="canary-1", requested_at=NOON),
    NewRequest(user_id="canary-1", items=("canary-x",), reason="pollution", requested_at=NOON),
    NewRequest(user_id="007", requested_at=NOON),
]


def written(path: Path, columns: dict[str, list[Any]]) -> str:
    frame = pl.DataFrame(columns, strict=False)
    {".csv": frame.write_csv, ".ndjson": frame.write_ndjson, ".parquet": frame.write_parquet}[path.suffix](path)
    return str(path)


@pytest.mark.parametrize("ending", [".csv", ".ndjson", ".parquet"])
def test_every_format_tells_the_same_requests(tmp_path: Path, ending: str) -> None:
    requests, names = read_requests(written(tmp_path / f"asked{ending}", GOOD))
    assert requests == EXPECTED
    assert names == GOOD["request_id"]


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ([NOON] * 3, NOON),
        ([datetime(2026, 1, 1, 12)] * 3, NOON),
        ([date(2026, 1, 1)] * 3, datetime(2026, 1, 1, tzinfo=UTC)),
        ([1767268800] * 3, NOON),
    ],
)
def test_times_and_numbers_of_a_parquet_file_are_read_as_utc(tmp_path: Path, moments: list[Any], expected: datetime) -> None:
    requests, _ = read_requests(written(tmp_path / "asked.parquet", GOOD | {"requested_at": moments}))
    assert {request.requested_at for request in requests} == {expected}


def test_whole_numbers_that_a_table_keeps_as_real_ones_are_the_same_users(tmp_path: Path) -> None:
    requests, _ = read_requests(written(tmp_path / "asked.parquet", GOOD | {"user_id": [7.0, 8.0, 9.0]}))
    assert [request.user_id for request in requests] == ["7", "8", "9"]


def test_a_file_of_whole_users_needs_no_items(tmp_path: Path) -> None:
    columns = {name: values[:1] for name, values in GOOD.items() if name != "item_id"}
    assert read_requests(written(tmp_path / "asked.csv", columns))[0] == EXPECTED[:1]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("request_id", None, "request_id not null"),
        ("request_id", "canary-a", "request_id unique"),
        ("scope", "canary", "scope one of user, interaction"),
        ("scope", "interaction", "item_id present exactly when scope is interaction"),
        ("user_id", None, "user_id not null"),
        ("user_id", "   ", "user_id not null"),
        ("user_id", "canary" * 50, "user_id is well-formed"),
        ("user_id", "canary\x07", "user_id is well-formed"),
        ("item_id", "canary-y", "item_id present exactly when scope is interaction"),
        ("reason", "canary", "reason one of privacy, pollution"),
        ("requested_at", "canary", "requested_at not null"),
        ("requested_at", "1767268800000", "requested_at not null"),
        ("requested_at", None, "requested_at not null"),
    ],
)
def test_an_unclear_row_refuses_the_file_by_its_number_and_names_nobody(tmp_path: Path, column: str, value: Any, said: str) -> None:
    spoilt = GOOD | {column: [*GOOD[column][:2], value]}
    with pytest.raises(BadInput, match=r"[12] of 3 rows") as refused:
        read_requests(written(tmp_path / "asked.csv", spoilt))
    assert refused.value.facts == {f"not: {said}": "2 rows: 1, 3" if "unique" in said else "1 rows: 3"}
    assert "canary" not in str(refused.value)


def test_of_many_unclear_rows_the_first_are_numbered(tmp_path: Path) -> None:
    columns = {name: values[:1] * 30 for name, values in GOOD.items()} | {
        "request_id": [f"{row}" for row in range(30)],
        "user_id": [None] * 30,
    }
    with pytest.raises(BadInput) as refused:
        read_requests(written(tmp_path / "asked.csv", columns))
    assert refused.value.facts == {"not: user_id not null": "30 rows: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..."}


@pytest.mark.parametrize("column", [name for name in GOOD if name != "item_id"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    with pytest.raises(BadInput, match=f"lacks 1 of 6 columns: {column}"):
        read_requests(written(tmp_path / "asked.csv", {name: values for name, values in GOOD.items() if name != column}))


@pytest.mark.parametrize("content", [b"", b"request_id,scope,user_id,reason,requested_at\n", b"\xff\xfe\x00canary", b"canary"])
def test_a_file_that_is_no_table_of_requests_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "asked.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput) as refused:
        read_requests(str(path))
    assert "canary" not in str(refused.value)
