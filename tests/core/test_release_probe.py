"""A probe knows its recommender again and shows nobody: what it is drawn from several people have in common."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from e2urec_core.data.examples import Events, HistoryRule, read_events
from e2urec_core.data.places import PROBE
from e2urec_core.data.prompts import PromptRule
from e2urec_core.engine import Bench
from e2urec_core.errors import Diverged
from e2urec_core.recommender import Recommender
from e2urec_core.release.probe import PEOPLE, ROWS, check_probe, invented, what_is_common, write_probe
from tests.released import own_scores
from tests.told import stored

Build = Callable[..., Recommender]
HISTORY = HistoryRule(length=4)


def drawn(events: Events, length: int) -> pa.Table:
    """Invented rows without profiles."""
    return invented(events, what_is_common(events, numpy.empty(0, numpy.int64)), length, seed=0)


@pytest.fixture
def folder(build_tiny: Build, tiny_interactions: Path, tmp_path: Path) -> Path:
    """A recommender's folder with its probe."""
    build_tiny("tiny_t5").save(tmp_path)
    assert write_probe(tiny_interactions, PromptRule(), HISTORY, tmp_path, Bench(seed=3), tmp_path) == ROWS
    return tmp_path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / PROBE).read_text())["rows"]
    return rows


def test_a_probe_holds_prompts_and_what_the_recommender_says_of_them(folder: Path, build_tiny: Build) -> None:
    rows = rows_of(folder)
    assert len(rows) == 64
    own = own_scores(build_tiny("tiny_t5"), [row["prompt"] for row in rows])
    assert [row["yes_probability"] for row in rows] == own.tolist()
    for row in rows:
        titles = [item["title"] for item in row["history"]]
        assert (", ".join(f"{item['title']} ({item['rating']:g}*)" for item in row["history"]) or "nothing") in row["prompt"]
        assert row["prompt"].startswith(row["profile"] or "Watched so far")
        assert row["candidate"] in row["prompt"]
        assert len(titles) in (0, 4)
    assert any(row["profile"] for row in rows)
    assert any(not row["profile"] for row in rows)


def test_the_same_recommender_is_known_again_to_the_bit_and_another_is_not(folder: Path, build_tiny: Build) -> None:
    assert check_probe(folder) == 0.0
    rows = rows_of(folder)
    rows[40]["yes_probability"] += 0.25
    (folder / PROBE).write_text(json.dumps({"rows": rows}))
    assert check_probe(folder) == pytest.approx(0.25)


def test_weights_or_scores_that_are_no_numbers_are_infinitely_far(folder: Path) -> None:
    told = (folder / PROBE).read_text()
    rows = rows_of(folder)
    for broken in (math.nan, math.inf, None):
        rows[1]["yes_probability"] = broken
        (folder / PROBE).write_text(json.dumps({"rows": rows}))
        assert check_probe(folder) == math.inf
    (folder / PROBE).write_text(json.dumps({"rows": []}))
    assert check_probe(folder) == math.inf
    (folder / PROBE).write_text(told)
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values()))[:] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert check_probe(folder) == math.inf


def test_a_probe_of_a_broken_network_is_not_written(folder: Path, tiny_interactions: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values()))[:] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "new").mkdir()
    with pytest.raises(Diverged, match="64 of 64 probe rows have no finite score"):
        write_probe(tiny_interactions, PromptRule(), HISTORY, folder, Bench(seed=3), tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_the_seed_decides_what_is_drawn(folder: Path, tiny_interactions: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    for place, seed in ((again, 3), (other, 4)):
        place.mkdir()
        write_probe(tiny_interactions, PromptRule(), HISTORY, folder, Bench(seed=seed), place)
    assert (again / PROBE).read_bytes() == (folder / PROBE).read_bytes()
    assert (other / PROBE).read_bytes() != (folder / PROBE).read_bytes()


def test_it_shows_only_what_several_people_have_in_common(folder: Path, tiny_interactions: Path) -> None:
    items = {row["item_id"]: row["title"] for row in pq.read_table(tiny_interactions / "items.parquet").to_pylist()}
    raters = defaultdict(set)
    for part in sorted((tiny_interactions / "interactions").glob("*.parquet")):
        for row in pq.read_table(part).to_pylist():
            raters[items[row["item_id"]]].add(row["user_id"])
    assert any(len(people) < PEOPLE for people in raters.values())
    for row in rows_of(folder):
        for title in (row["candidate"], *(item["title"] for item in row["history"])):
            assert len(raters[title]) >= PEOPLE


def test_a_profile_that_few_share_is_not_shown(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    ratings = [(f"u{number}", film, 4.0, at) for number in range(9) for at, film in enumerate("abc")]
    profiles = {f"u{number}": "The user farms." if number < 5 else "The user rules the country." for number in range(9)}
    write_probe(stored(tmp_path / "here", ratings, profiles=profiles), PromptRule(), HISTORY, folder, Bench(seed=3), tmp_path / "here")
    assert {row["profile"] for row in rows_of(tmp_path / "here")} == {"The user farms.", None}


def sequences(interactions: Path) -> list[list[int]]:
    """The items of every user, in time order, by plain Python."""
    events, by_user = read_events(interactions), defaultdict(list)
    for user, item in zip(events.users.tolist(), events.items.tolist(), strict=True):
        by_user[user].append(item)
    return list(by_user.values())


@pytest.mark.parametrize("length", [1, 2, 3])
def test_no_history_is_a_stretch_of_somebodys(length: int, tmp_path: Path) -> None:
    # Six people met the same three films in all orders, so that every pair of them is somebody's; a fourth film comes last.
    orders = ["abc", "acb", "bac", "bca", "cab", "cba"]
    ratings = [(f"u{number}", film, 4.0, 10 * at) for number, order in enumerate(orders) for at, film in enumerate(order + "d")]
    interactions = stored(tmp_path, ratings)
    table = drawn(read_events(interactions), length)
    real = {tuple(each[start : start + length]) for each in sequences(interactions) for start in range(len(each) - length + 1)}
    shown = {tuple(row) for row in table["history"].to_pylist()} - {()}
    assert not shown & real
    # Only what begins with the last film is nobody's; of one film alone, nothing is.
    assert bool(shown) == (length > 1)


def test_what_one_person_did_often_is_not_what_several_have_in_common(tmp_path: Path) -> None:
    often = [("v", "often", 2.5, at) for at in range(9)]
    interactions = stored(tmp_path, [*often, *((f"u{number}", film, 4.0, at) for number in range(5) for at, film in enumerate("abc"))])
    events = read_events(interactions)
    table = drawn(events, 2)
    shown = {*table["item"].to_pylist(), *table["history"].combine_chunks().flatten().to_pylist()}
    assert {events.item_ids[item].as_py() for item in shown} == {"a", "b", "c"}
    assert set(table["history_ratings"].combine_chunks().flatten().to_pylist()) == {4.0}


def test_where_nothing_is_shared_the_titles_are_made_up(build_tiny: Build, tmp_path: Path) -> None:
    (tmp_path / "interactions").mkdir()
    interactions = stored(tmp_path / "interactions", [("u", "Alpha", 4.0, 1), ("v", "Beta", 4.0, 2)])
    build_tiny("tiny_t5").save(tmp_path)
    assert write_probe(interactions, PromptRule(), HISTORY, tmp_path, Bench(seed=3), tmp_path) == ROWS
    titles = {title["title"] for row in rows_of(tmp_path) for title in row["history"]} | {row["candidate"] for row in rows_of(tmp_path)}
    assert len(titles) > 20
    assert all(title.startswith("Title ") for title in titles)
    assert check_probe(tmp_path) == 0.0


def test_where_ratings_are_missing_or_rare_none_is_shown(tmp_path: Path) -> None:
    ratings = [(f"u{number}", film, 1.0 + number / 10, number) for number in range(6) for film in "ab"]
    table = drawn(read_events(stored(tmp_path, ratings)), 2)
    shown = table["history_ratings"].combine_chunks().flatten().to_numpy()
    assert len(shown)
    assert numpy.isnan(shown).all()
