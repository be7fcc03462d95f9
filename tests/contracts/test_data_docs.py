"""Great Expectations' own pages about a table: every rule has its verdict, and no value of the table is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts import expectations
from data_contracts.expectations import CouldNotEvaluate, data_docs
from data_contracts.interactions import ITEMS, USERS


def broken_users() -> pa.Table:
    """Each canary stands twice, and one is missing."""
    names = [f"canary{number}" for number in range(5)] * 2 + [None]
    return pa.table({"user_id": names, "profile": [f"profile of {name}" for name in names], "cohort": pa.nulls(11, pa.string())})


def good_items() -> pa.Table:
    return pa.table({"item_id": ["a", "b"], "title": ["canary title", "B"]})


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*.html")}


def test_broken_rules_are_shown_and_no_value_is(tmp_path: Path) -> None:
    first = data_docs([(USERS, broken_users()), (ITEMS, good_items())], tmp_path / "docs")
    pages = texts(tmp_path / "docs")
    assert first == tmp_path / "docs" / "index.html"
    assert set(pages) == {"index.html", "users.html", "items.html", "users-users.html", "items-items.html"}
    outcomes = {name: re.findall(r"Status: (\w+)", re.sub(r"(<[^>]+>|\s)+", " ", page)) for name, page in pages.items()}
    assert (outcomes["users-users.html"], outcomes["items-items.html"]) == (["Failed"], ["Succeeded"])
    for path in (tmp_path / "docs").rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes(), path


def test_a_second_call_replaces_the_pages_and_leaves_other_files(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    data_docs([(USERS, broken_users())], docs)
    (docs / "mine.txt").write_text("mine")
    data_docs([(ITEMS, good_items())], docs)
    assert set(texts(docs)) == {"index.html", "items.html", "items-items.html"}
    assert (docs / "mine.txt").exists()


def test_no_page_is_written_where_a_rule_could_not_be_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_contract: Any, _table: pa.Table) -> Any:
        import pandas as pd

        return pd.DataFrame({"another": ["canary"]})

    monkeypatch.setattr(expectations, "_frame", wrong)
    with pytest.raises(CouldNotEvaluate) as raised:
        data_docs([(ITEMS, good_items())], tmp_path / "docs")
    assert "canary" not in str(raised.value)
    assert not texts(tmp_path / "docs")
