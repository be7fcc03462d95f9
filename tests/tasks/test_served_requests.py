"""Requests to the served model: written as training writes them, ranked, or refused in one sentence."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from e2urec_core.data.encoding import PromptEncoder
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.places import ITEMS, USERS
from e2urec_core.data.prompts import WORDINGS, Catalogue, PromptRule, texts
from e2urec_core.recommender import Recommender
from e2urec_core.release.bundle import prompt_facts
from tests.released import own_scores, release

pytestmark = pytest.mark.slow

Build = Callable[..., Recommender]
TITLES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40).filter(str.strip)
RATINGS = st.none() | st.integers(-3, 12) | st.floats(-20, 20, width=64)
PROMPTS = st.builds(PromptRule, template=st.sampled_from(sorted(WORDINGS)), longest_title=st.integers(8, 30)) | st.just(
    PromptRule(text="[{candidate}] after ({history})! {profile}", event="<{rating} of {title}>", longest_title=10)
)
HISTORY = [{"title": "Silent Saddle", "rating": 4}, {"title": "Golden Vault", "rating": None}, "Crimson Orbit"]


@pytest.fixture(scope="module")
def code() -> Any:
    """The served model's own module, as MLflow loads it."""
    import importlib.util

    import tasks

    spec = importlib.util.spec_from_file_location("served_here", Path(str(tasks.__file__)).with_name("_served_model.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer(build_tiny: Build) -> Tokenizer:
    return build_tiny("tiny_t5").tokenizer


@pytest.fixture(scope="module")
def released(build_tiny: Build, tiny_interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recommender, Path]:
    """A network whose prompts may hold 200 tokens, and its bundle."""
    import torch

    recommender = build_tiny("tiny_t5", max_tokens=200)
    with torch.no_grad():
        for weight in recommender.network.parameters():
            if weight.dim() > 1:
                weight.mul_(0.2 / max(1e-3, weight.std().item()))
    return recommender, release(recommender, tiny_interactions, tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def predict(released: tuple[Recommender, Path]) -> Callable[..., Any]:
    """Asks the bundle: `predict(rows, top=2)`."""
    import mlflow
    import pandas

    model = mlflow.pyfunc.load_model(str(released[1]))
    return lambda rows, **params: model.predict(pandas.DataFrame(rows), params=params or None)


def trained_on(rows: list[dict[str, Any]], rule: PromptRule, history: HistoryRule) -> tuple[pa.Table, Catalogue]:
    """The rows as training has them: places in a table of items, and users with profiles."""
    titles = [item["title"] for row in rows for item in row["history"]] + [row["candidate"] for row in rows]
    items = list(dict.fromkeys(titles))
    with tempfile.TemporaryDirectory() as place:
        pq.write_table(pa.table({"item_id": items, "title": items}), Path(place) / ITEMS)
        users = {"user_id": [f"u{at}" for at in range(len(rows))], "profile": pa.array([row["profile"] for row in rows], pa.string())}
        pq.write_table(pa.table(users), Path(place) / USERS)
        catalogue = Catalogue(Path(place), rule)
    shown = [row["history"][-history.length :] for row in rows]
    table = pa.table(
        {
            "user_id": users["user_id"],
            "item": pa.array([items.index(row["candidate"]) for row in rows], pa.int64()),
            "history": pa.array([[items.index(item["title"]) for item in one] for one in shown], pa.list_(pa.int64())),
            "history_ratings": pa.array([[item["rating"] for item in one] for one in shown], pa.list_(pa.float32())),
            "label": pa.array([0] * len(rows)),
        }
    )
    return table, catalogue


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "profile": st.none() | TITLES,
            "history": st.lists(st.fixed_dictionaries({"title": TITLES, "rating": RATINGS}), max_size=7),
            "candidate": TITLES,
        }
    ),
    min_size=1,
    max_size=5,
)


@given(rows=ROWS, rule=PROMPTS, length=st.integers(1, 6))
def test_a_row_is_written_as_training_writes_it(
    code: Any, tokenizer: Tokenizer, rows: list[dict[str, Any]], rule: PromptRule, length: int
) -> None:
    history = HistoryRule(length=length)
    writer = code.Writer(prompt_facts(rule, history), tokenizer)
    told = [writer.write(*one) for number, row in enumerate(rows) for one in writer.told(number, row, "candidate")]
    table, catalogue = trained_on(rows, rule, history)
    assert told == texts(table, catalogue, rule).to_pylist()


@settings(max_examples=25)
@given(rows=ROWS, limit=st.integers(30, 90))
def test_a_row_that_is_too_long_loses_the_same_items_as_in_training(
    code: Any, tokenizer: Tokenizer, rows: list[dict[str, Any]], limit: int
) -> None:
    from mlflow.exceptions import MlflowException

    from e2urec_core.errors import BadInput

    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.enable_truncation(limit, direction="left")
    rule, history = PromptRule(), HistoryRule(length=7)
    writer = code.Writer(prompt_facts(rule, history), tokenizer)
    asked = [one for number, row in enumerate(rows) for one in writer.told(number, row, "candidate")]
    table, catalogue = trained_on(rows, rule, history)
    try:
        ids, _ = PromptEncoder(tokenizer, catalogue, rule).encode(table.to_batches()[0])
    except BadInput:
        with pytest.raises(MlflowException, match="without any history"):
            writer.encoded(asked, range(len(rows)))
        return
    own = [ids.flat[start:stop].tolist() for start, stop in zip(ids.starts, ids.starts[1:], strict=False)]
    assert [list(row) for row in writer.encoded(asked, range(len(rows)))] == own


def test_a_prompt_a_candidate_and_a_bare_title_are_answered_by_the_network(predict: Any, released: tuple[Recommender, Path]) -> None:
    # The history rule of the bundle shows four items: the fifth from the end is not seen.
    seen = "Watched so far, oldest first: Silent Saddle (4*), Golden Vault, Crimson Orbit, Old Ghost (3.5*)."
    text = f"The user farms. {seen} Will the user like Last Boat? Answer Yes or No:"
    history = [{"title": "Too Old", "rating": 1.0}, *HISTORY, {"title": "Old Ghost", "rating": 3.5}]
    (own,) = own_scores(released[0], [text])
    prompted = predict([{"prompt": text}])
    asked = predict([{"profile": "The user farms.", "history": history, "candidate": "Last Boat"}])
    assert list(prompted.columns) == list(asked.columns) == ["yes_probability"]
    assert [*prompted["yes_probability"], *asked["yes_probability"]] == pytest.approx([own, own], abs=1e-6)


def test_rows_keep_their_order_and_their_index(predict: Any, released: tuple[Recommender, Path], training_prompts: list[str]) -> None:
    import mlflow
    import pandas

    prompts = sorted(training_prompts[:40], key=len)[::3]
    frame = pandas.DataFrame({"prompt": prompts}, index=range(100, 100 + len(prompts)))
    told = mlflow.pyfunc.load_model(str(released[1])).predict(frame)
    assert list(told.index) == list(frame.index)
    assert told["yes_probability"].to_numpy() == pytest.approx(own_scores(released[0], prompts), abs=1e-6, rel=0)


def test_candidates_come_best_first_and_no_more_than_are_asked_for(predict: Any) -> None:
    titles = [f"Golden Vault {number}" for number in range(7)]
    rows = [{"history": HISTORY, "candidates": titles}, {"history": [], "candidates": titles[::-1][:3]}]
    singles = predict([{"history": row["history"], "candidate": title} for row in rows for title in row["candidates"]])
    by_hand = []
    for number, scores in enumerate((singles["yes_probability"][:7], singles["yes_probability"][7:])):
        pairs = sorted(zip(rows[number]["candidates"], scores, strict=True), key=lambda pair: -pair[1])
        by_hand += [(number, place, *pair) for place, pair in enumerate(pairs, 1)]
    told = predict(rows)
    assert list(told.columns) == ["row", "rank", "candidate", "yes_probability"]
    assert [tuple(row[:3]) for row in told.to_numpy().tolist()] == [row[:3] for row in by_hand]
    assert told["yes_probability"].tolist() == pytest.approx([row[3] for row in by_hand], abs=1e-6)
    assert len({round(score, 5) for score in told["yes_probability"]}) > 3, "answers must depend on the candidate"
    assert predict(rows, top=2).to_numpy().tolist() == [row for row in told.to_numpy().tolist() if row[1] <= 2]
    assert predict(rows, top=99).equals(told)


def test_equal_candidates_keep_the_order_given_and_share_a_score(predict: Any) -> None:
    # Cut at the longest title, the first and the third are one prompt.
    long = "Crimson Orbit " * 12
    names = [f"{long}a", "Silent Saddle", f"{long}b"]
    told = predict([{"history": HISTORY, "candidates": names}])
    same = told[told["candidate"] != "Silent Saddle"]
    assert same["candidate"].tolist() == [names[0], names[2]]
    assert same["yes_probability"].nunique() == 1


def test_lists_may_be_arrays_and_what_is_missing_may_be_nan_as_tables_have_it(predict: Any) -> None:
    rows = [{"profile": "The user farms.", "history": HISTORY[:1], "candidates": ["a", "b"]}]
    plain = predict([*rows, {**rows[0], "profile": None}])
    table = {"history": numpy.array(HISTORY[:1]), "candidates": numpy.array(["a", "b"], dtype=object)}
    arrays = predict([{"profile": "The user farms.", **table}, {"profile": math.nan, **table}])
    assert arrays.equals(plain)


ASKED = {"history": HISTORY, "candidate": "Last Boat"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "the request holds no row"),
        ([{"history": HISTORY}], "row 0 holds none of the fields; it must hold one of `prompt` and `candidate` and `candidates`"),
        ([{"prompt": "a", "candidate": "b", "history": []}], "row 0 holds `prompt` and `candidate`"),
        ([{"prompt": "a", "history": []}], "row 0 holds `history` beside a ready `prompt`"),
        ([{"prompt": "a"}, ASKED], "row 0 holds `prompt` and row 1 `candidate`; send rows of two forms in two requests"),
        ([ASKED, {"history": [], "candidates": ["a"]}], "row 0 holds `candidate` and row 1 `candidates`"),
        ([{"prompt": "  "}], "`prompt` of row 0 is blank"),
        ([{"candidate": "a"}], "row 0 has no `history`; of a person who is not known yet, give an empty list"),
        ([ASKED, {"candidate": "a"}], "row 1 has no `history`"),
        ([{**ASKED, "history": "Silent Saddle"}], "`history` of row 0 is no list"),
        ([{**ASKED, "history": {"title": "a"}}], "`history` of row 0 is no list"),
        ([{**ASKED, "history": [{"rating": 4}]}], "`title` of item 0 of `history` of row 0 is missing"),
        ([{**ASKED, "history": [None]}], "`title` of item 0 of `history` of row 0 is missing"),
        ([{**ASKED, "history": ["a", {"title": 7}]}], "`title` of item 1 of `history` of row 0 is no text"),
        ([{**ASKED, "history": [{"title": "a", "stars": 4}]}], "item 0 of `history` of row 0 holds more than `title` and `rating`"),
        ([{**ASKED, "history": [{"title": "a", "rating": math.nan}]}], "`rating` of item 0 of `history` of row 0 is not finite"),
        ([{**ASKED, "history": [{"title": "a", "rating": 1e39}]}], "is not finite"),
        ([{**ASKED, "history": [{"title": "a", "rating": 10**400}]}], "is not finite"),
        ([{**ASKED, "history": [{"title": "a", "rating": "4"}]}], "is no number"),
        ([{**ASKED, "history": [{"title": "a", "rating": True}]}], "is no number"),
        ([{**ASKED, "candidate": "x" * 10_001}], "`candidate` of row 0 (place 0) has 10,001 letters; at most 10,000 are read"),
        ([{"history": [], "candidates": ["half \ud83d"]}], "holds half a character"),
        ([{**ASKED, "profile": " "}], "`profile` of row 0 is blank"),
        ([{"history": [], "candidates": []}], "`candidates` of row 0 is no list of at least one title"),
        ([{"history": [], "candidates": "Last Boat"}], "`candidates` of row 0 is no list of at least one title"),
        ([{"history": [], "candidates": ["a", None]}], "`candidates` of row 0 (place 1) is missing"),
        ([{"history": [], "candidates": ["a", math.nan]}], "`candidates` of row 0 (place 1) is missing"),
        ([{"history": [], "candidates": ["a", 2]}], "`candidates` of row 0 (place 1) is no text"),
        ([{**ASKED, "profile": "long " * 300}], "tokens without any history; the model reads 200"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_sentence(predict: Any, rows: list[dict[str, Any]], said: str) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException) as refused:
        predict(rows)
    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert (refused.value.error_code, refused.value.get_http_status_code()) == ("INVALID_PARAMETER_VALUE", 400)


def test_a_number_of_candidates_below_nothing_is_refused(predict: Any) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="`top` is -1"):
        predict([{"history": [], "candidates": ["a"]}], top=-1)
