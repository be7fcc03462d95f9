"""A real `mlflow models serve`, on this machine alone: both forms, a ranking, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.server import ask, server
from e2urec_core.data.places import BUNDLE, PROBE
from e2urec_core.recommender import Recommender
from tests.released import release

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(build_tiny: Callable[..., Recommender], tiny_interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(build_tiny("tiny_t5"), tiny_interactions, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with server(folder) as address:
        yield address


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    probed: list[dict[str, Any]] = json.loads((folder / BUNDLE / PROBE).read_text())["rows"]
    return probed


def test_ready_prompts_and_histories_are_answered_as_the_probe_says(address: str, rows: list[dict[str, Any]]) -> None:
    known = [row["yes_probability"] for row in rows]
    structured = [{field: row[field] for field in ("profile", "history", "candidate")} for row in rows]
    for asked in ([{"prompt": row["prompt"]} for row in rows], structured):
        status, told = ask(address, {"dataframe_records": asked})
        assert status == 200
        assert [row["yes_probability"] for row in told["predictions"]] == pytest.approx(known, abs=1e-6, rel=0)


def test_candidates_are_ranked_and_the_best_are_told(address: str, rows: list[dict[str, Any]]) -> None:
    titles = list(dict.fromkeys(row["candidate"] for row in rows))[:6]
    asked = [{"history": [{"title": titles[0], "rating": 4}, titles[1]], "candidates": titles}]
    status, told = ask(address, {"dataframe_records": asked, "params": {"top": 3}})
    assert status == 200
    best = told["predictions"]
    assert [(row["row"], row["rank"]) for row in best] == [(0, 1), (0, 2), (0, 3)]
    _, everyone = ask(address, {"dataframe_records": asked})
    assert everyone["predictions"][:3] == best
    assert len(everyone["predictions"]) == 6


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"dataframe_records": [{"prompt": "a"}, {"history": [], "candidate": "b"}]}, "send rows of two forms in two requests"),
        ({"dataframe_records": [{"history": [], "candidates": []}]}, "no list of at least one title"),
        ({"dataframe_records": [{"history": [], "candidates": ["a", None]}]}, "(place 1) is missing"),
        ({"dataframe_records": [{"history": [{"title": "a", "rating": float("nan")}], "candidate": "b"}]}, "is not finite"),
        ({"dataframe_records": [{"candidate": "b"}]}, "row 0 has no `history`"),
        ({"dataframe_records": [{"history": [], "candidate": "b" * 10_001}]}, "10,001 letters"),
        ({"dataframe_records": [{"history": [], "candidate": "half \ud83d"}]}, ""),
        ({"dataframe_records": [{"history": [], "candidates": ["half \ud83d"]}]}, "half a character"),
        ({"dataframe_records": [{"prompt": 7}]}, "`prompt` of row 0 is no text"),
        ({"dataframe_records": []}, "the request holds no row"),
        ({"dataframe_records": [{"prompt": "a"}], "params": {"top": "many"}}, "top"),
        ({"rows": []}, ""),
    ],
)
def test_what_cannot_be_answered_is_a_400_with_a_reason(address: str, request_: dict[str, Any], said: str) -> None:
    status, told = ask(address, request_)
    assert status == 400
    assert told["error_code"] in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
    assert said in told["message"]


def test_after_every_refusal_it_still_answers(address: str) -> None:
    assert ask(address, {"dataframe_split": {"columns": ["prompt"], "data": [["Is it liked?"]]}})[0] == 200
