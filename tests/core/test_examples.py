"""Stored interactions become examples: in portions, from several parts, with numbers that stay the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.examples import EXAMPLES
from data_contracts.expectations import violations
from e2urec_core.data import examples
from e2urec_core.data.examples import HistoryRule, order_by_user, read_events, write_examples
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.interaction_rows import interaction_ids
from e2urec_core.data.split import SplitRule
from e2urec_core.errors import BadInput
from tests.told import Rating, Told, examples_of, stored

SPLIT = SplitRule(holdout_share=0.0)


def many(num_users: int = 7, num_ratings: int = 12) -> list[Rating]:
    return [
        (f"u{user}", f"i{(user + 3 * at) % 17}", 1.0 + (user * at) % 5, 100 * at + user)
        for user in range(num_users)
        for at in range(num_ratings)
    ]


def written(interactions: Path, place: Path, history: HistoryRule | None = None, rule: SplitRule = SPLIT) -> pl.DataFrame:
    place.mkdir()
    rows = write_examples(interactions, history or HistoryRule(at_least=2), rule, 0, place)
    table = pq.read_table(place / "examples.parquet")
    assert table.num_rows == rows
    assert violations(EXAMPLES, table) == []
    return pl.from_arrow(table)  # type: ignore[return-value]


def test_the_file_is_the_same_whatever_the_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stored(tmp_path, many())
    whole = written(folder, tmp_path / "whole")
    monkeypatch.setattr(examples, "ROWS_AT_A_TIME", 5)
    assert written(folder, tmp_path / "portions").equals(whole)
    assert pq.read_metadata(tmp_path / "portions" / "examples.parquet").num_row_groups == -(-whole.height // 5)


def test_parts_appended_over_many_nights_give_the_examples_of_one_ingestion(tmp_path: Path) -> None:
    rows = many()
    before: Path | None = None
    # The second night brings older rows too, and the third one a row that is known already.
    for night, some in enumerate((rows[::2], rows[1::4], rows[3::4] + rows[:1])):
        folder = tmp_path / f"night-{night}"
        folder.mkdir()
        ingest(Told(ratings=tuple(some)), IngestRule(), folder, before)
        before = folder
    assert before is not None
    assert len(list((before / "interactions").iterdir())) == 3
    assert written(before, tmp_path / "one").equals(written(stored(tmp_path, rows), tmp_path / "other"))


def test_an_example_has_the_same_number_whatever_the_rules_and_the_other_rows(tmp_path: Path) -> None:
    keys = ["user_id", "item_id", "timestamp_s"]
    first = written(stored(tmp_path, many()), tmp_path / "first")
    second = written(
        stored(tmp_path, many(5)), tmp_path / "second", HistoryRule(length=3, at_least=4), SplitRule(holdout_share=0.0, last_examples=20)
    )
    both = first.join(second, on=keys, suffix="_second")
    assert both.height == second.height
    assert both["example_id"].to_list() == both["example_id_second"].to_list()


def test_an_interactions_number_is_the_same_in_another_process_and_on_another_day() -> None:
    # Fixed on 2026-11-21: a change would orphan every stored score and every teacher's output.
    program = (
        "import numpy, polars\n"
        "from e2urec_core.data.interaction_rows import interaction_ids, name_hashes\n"
        "users, items = (name_hashes(polars.Series([name])) for name in ('anna', 'film'))\n"
        "print(interaction_ids(users, items, numpy.array([978300019])).tolist())\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == [NUMBER_OF_ANNA]


NUMBER_OF_ANNA = 558571614116155574


def test_numbers_of_a_million_interactions_differ() -> None:
    random = numpy.random.default_rng(0)
    # Names whose hashes are near each other, and moments one second apart: what a weak mixer would confuse.
    users, items = random.integers(0, 1000, 1_000_000).astype(numpy.uint64), random.integers(0, 1000, 1_000_000).astype(numpy.uint64)
    times = numpy.arange(1_000_000)
    numbers = interaction_ids(users, items, times)
    assert len(numpy.unique(numbers)) == len(numbers)
    assert numbers.min() >= 0
    # Every bit is set about half of the time: 5 standard deviations of a fair coin thrown a million times are 0.0025.
    shares = [float(((numbers >> bit) & 1).mean()) for bit in range(63)]
    assert max(abs(share - 0.5) for share in shares) < 0.0025


@given(st.lists(st.integers(0, 300_000), max_size=60))
def test_rows_are_ordered_by_user_and_rows_of_one_user_stay_in_their_order(users: list[int]) -> None:
    # Numbers above 65,535 take the second pass of the sort.
    order = examples._stable_order(numpy.array(users, numpy.uint32))
    assert order.tolist() == sorted(range(len(users)), key=lambda row: users[row])


def test_histories_are_kept_as_places_in_the_table_of_items(tmp_path: Path) -> None:
    folder = stored(tmp_path, [("u", "b", 4.0, 1), ("u", "a", None, 2), ("u", "c", 1.0, 3)])
    table = examples_of(folder, HistoryRule(at_least=2))
    items = pq.read_table(folder / "items.parquet")["item_id"].to_pylist()
    assert items == ["a", "b", "c"]
    assert table["item"].to_pylist() == [2]
    assert table["history"].to_pylist() == [[1, 0]]
    assert table["history_ratings"].to_pylist() == [[4.0, None]]


def test_only_the_newest_examples_are_used_and_their_histories_stay_whole(tmp_path: Path) -> None:
    folder = stored(tmp_path, many())
    rows = written(folder, tmp_path / "rows", rule=SplitRule(holdout_share=0.0, last_examples=10))
    every = written(folder, tmp_path / "every")
    assert rows.drop("split").equals(every.tail(10).drop("split"))
    assert dict(rows["split"].value_counts().iter_rows()) == {"train": 6, "validation": 2, "test": 2}
    assert written(folder, tmp_path / "more", rule=SplitRule(holdout_share=0.0, last_examples=1000)).equals(every)


def test_where_the_rows_were_cut_is_noted(tmp_path: Path) -> None:
    rows = written(stored(tmp_path, many()), tmp_path / "rows")
    noted = json.loads((tmp_path / "rows" / "facts.json").read_text())
    assert noted["rows"] == rows.height
    assert noted["cut_validation_s"] == rows.filter(split="validation")["timestamp_s"].min()
    assert noted["cut_test_s"] == rows.filter(split="test")["timestamp_s"].min()


def test_nobody_with_enough_interactions_is_told_with_the_numbers(tmp_path: Path) -> None:
    folder = stored(tmp_path, [("canary-7", item, 3.0, 1) for item in "abcde"])
    with pytest.raises(BadInput, match="none of 1 users has more than 5 interactions") as refused:
        write_examples(folder, HistoryRule(), SPLIT, 0, tmp_path)
    assert "--history.at-least" in refused.value.hint
    assert "canary" not in str(refused.value)


def test_a_table_of_users_that_misses_one_is_our_own_bug(tmp_path: Path) -> None:
    folder = stored(tmp_path, many())
    users = pq.read_table(folder / "users.parquet")
    pq.write_table(users.slice(1), folder / "users.parquet")
    with pytest.raises(AssertionError, match="do not list"):
        read_events(folder)


def test_events_are_read_in_the_order_of_time_then_user_then_item(tmp_path: Path) -> None:
    folder = stored(tmp_path, [("v", "b", 1.0, 5), ("u", "c", 1.0, 5), ("u", "b", 1.0, 5), ("z", "a", 1.0, 4)])
    events = read_events(folder)
    told = [
        (events.user_ids[int(user)].as_py(), events.item_ids[int(item)].as_py())
        for user, item in zip(events.users, events.items, strict=True)
    ]
    assert told == [("z", "a"), ("u", "b"), ("u", "c"), ("v", "b")]
    assert order_by_user(events).num_earlier.tolist() == [0, 0, 1, 0]
