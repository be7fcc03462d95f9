"""Who is back after a restore: found in the data by keyed marks alone."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from e2urec_core.artifacts import Interactions
from e2urec_core.data import places
from e2urec_core.data.suppressed import Marks, Suppressed
from e2urec_core.pseudonyms import Pseudonyms
from e2urec_core.store import Store
from tasks import restore
from tasks.restore import KnownAgain, known_again

NAMES, MARKS = Pseudonyms(bytes(32)), Marks(bytes(32))
NOW_S = 4_000_000_000


@pytest.fixture
def rows(tiny_interactions: Path) -> list[dict[str, object]]:
    """The stored rows."""
    import pyarrow.parquet as pq

    return [row for part in places.part_files(tiny_interactions) for row in pq.read_table(part).to_pylist()]


@pytest.fixture
def store(tiny_interactions: Path, tmp_path: Path) -> Store:
    """A store with these interactions."""
    store = Store(tmp_path / "store")
    with store.workplace() as place:
        shutil.copytree(tiny_interactions, place, dirs_exist_ok=True)
        store.publish(Interactions, place, parents=(), rows=1, made_by="ingest")
    return store


def whole(user: str, until_s: int) -> Suppressed:
    return Suppressed({MARKS.of_user(user): until_s}, {}, MARKS)


def test_nobody_is_known_again_where_nobody_was_forgotten(store: Store) -> None:
    assert known_again(store, Suppressed(), {}, NAMES) == []


def test_a_suppressed_user_with_rows_of_that_time_is_known_again(store: Store, rows: list[dict[str, object]]) -> None:
    user = str(rows[0]["user_id"])
    found = known_again(store, whole(user, NOW_S), {}, NAMES)
    assert found == [KnownAgain(user, (), datetime.fromtimestamp(NOW_S, UTC))]


def test_whoever_came_back_later_is_somebody_else(store: Store, rows: list[dict[str, object]]) -> None:
    user = str(rows[0]["user_id"])
    first = min(int(str(row["timestamp_s"])) for row in rows if row["user_id"] == user)
    assert known_again(store, whole(user, first - 1), {}, NAMES) == []
    assert [each.user_id for each in known_again(store, whole(user, first), {}, NAMES)] == [user]


def test_a_suppressed_interaction_is_known_again_and_no_other(store: Store, rows: list[dict[str, object]]) -> None:
    user, item = str(rows[0]["user_id"]), str(rows[0]["item_id"])
    single = Suppressed({}, {MARKS.of_user(user): {MARKS.of_pair(user, item): NOW_S}}, MARKS)
    assert [(each.user_id, each.items) for each in known_again(store, single, {}, NAMES)] == [(user, (item,))]


def test_more_items_than_a_request_may_have_are_several(
    store: Store, rows: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    user = str(rows[0]["user_id"])
    items = sorted({str(row["item_id"]) for row in rows if row["user_id"] == user})
    monkeypatch.setattr(restore, "MOST_ITEMS", 2)
    single = Suppressed({}, {MARKS.of_user(user): {MARKS.of_pair(user, item): NOW_S for item in items}}, MARKS)
    found = [each.items for each in known_again(store, single, {}, NAMES)]
    assert len(items) > 2
    assert max(map(len, found)) == 2
    assert sorted(item for each in found for item in each) == items


def test_a_user_is_asked_for_once_where_single_interactions_are_theirs(store: Store, rows: list[dict[str, object]]) -> None:
    user, item = str(rows[0]["user_id"]), str(rows[0]["item_id"])
    both = Suppressed({MARKS.of_user(user): NOW_S}, {MARKS.of_user(user): {MARKS.of_pair(user, item): NOW_S}}, MARKS)
    assert [(each.user_id, each.items) for each in known_again(store, both, {}, NAMES)] == [(user, ())]


def test_those_whom_releases_have_forgotten_are_found_by_their_pseudonyms(store: Store, rows: list[dict[str, object]]) -> None:
    user, item = str(rows[0]["user_id"]), str(rows[0]["item_id"])
    mark, pair = NAMES.of_user(user), NAMES.of_interaction(user, item)
    assert known_again(store, Suppressed(), {mark: mark}, NAMES) == [KnownAgain(user, (), None)]
    assert known_again(store, Suppressed(), {pair: mark}, NAMES) == [KnownAgain(user, (item,), None)]


def test_the_name_of_somebody_who_is_back_is_not_printed() -> None:
    assert "anna" not in repr(KnownAgain("anna", ("film",), None))
