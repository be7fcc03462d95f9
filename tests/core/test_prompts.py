"""Ratings become prompts: checked by hand, and against a slow oracle in plain Python on random tables."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2urec_core.data.prompts import PromptRule, build_prompts
from e2urec_core.datasets.base import Tables
from e2urec_core.errors import BadInput

RATINGS = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp_s": pl.Int64}
Rating = tuple[str, str, float, int]


def tables(ratings: list[Rating], profiles: dict[str, str | None] | None = None, titles: dict[str, str] | None = None) -> Tables:
    users = sorted({user for user, *_ in ratings})
    items = sorted({item for _, item, *_ in ratings})
    return Tables(
        interactions=pl.DataFrame(ratings, schema=RATINGS, orient="row"),
        items=pl.DataFrame({"item_id": items, "title": [(titles or {}).get(item, f"Film {item}") for item in items]}),
        users=pl.DataFrame(
            {"user_id": users, "profile": [(profiles or {}).get(user) for user in users], "cohort": [None] * len(users)},
            schema={"user_id": pl.String, "profile": pl.String, "cohort": pl.String},
        ),
    )


def one_user(*stars: float, times: list[int] | None = None) -> list[Rating]:
    return [("u", f"i{place}", rating, (times or list(range(100)))[place]) for place, rating in enumerate(stars)]


def test_the_history_is_what_came_before_in_time_order_whatever_the_order_of_the_rows() -> None:
    rows = [("u", "b", 4.0, 20), ("u", "d", 5.0, 40), ("u", "a", 2.0, 10), ("u", "c", 1.0, 30)]
    prompts = build_prompts(tables(rows), PromptRule(min_history=2))["prompt"].to_list()
    assert prompts == [
        "Watched so far, oldest first: Film a (2*), Film b (4*). Will the user like Film c? Answer Yes or No:",
        "Watched so far, oldest first: Film a (2*), Film b (4*), Film c (1*). Will the user like Film d? Answer Yes or No:",
    ]


def test_the_profile_opens_the_prompt_where_there_is_one() -> None:
    rows = [("u", "a", 2.0, 1), ("u", "b", 4.0, 2), ("v", "a", 3.0, 3), ("v", "b", 4.0, 4)]
    prompts = build_prompts(tables(rows, {"u": "The user farms."}), PromptRule(min_history=1))["prompt"].to_list()
    assert prompts == [
        "The user farms. Watched so far, oldest first: Film a (2*). Will the user like Film b? Answer Yes or No:",
        "Watched so far, oldest first: Film a (3*). Will the user like Film b? Answer Yes or No:",
    ]


def test_the_papers_template_has_titles_alone() -> None:
    rows = one_user(5, 1, 3)
    prompts = build_prompts(tables(rows, {"u": "The user farms."}), PromptRule(template="short", min_history=2))["prompt"].to_list()
    assert prompts == ["The user watched, oldest first: Film i0, Film i1. Will the user like Film i2?"]


def test_only_the_latest_titles_are_shown() -> None:
    prompts = build_prompts(tables(one_user(1, 2, 3, 4, 5)), PromptRule(history_length=2, min_history=4))["prompt"].to_list()
    assert prompts == ["Watched so far, oldest first: Film i2 (3*), Film i3 (4*). Will the user like Film i4? Answer Yes or No:"]


def test_ratings_of_one_second_are_ordered_by_item_id() -> None:
    rows = [("u", "c", 3.0, 5), ("u", "a", 1.0, 5), ("u", "b", 2.0, 5), ("u", "0", 5.0, 6)]
    prompts = build_prompts(tables(rows), PromptRule(min_history=3))["prompt"].to_list()
    assert prompts == ["Watched so far, oldest first: Film a (1*), Film b (2*), Film c (3*). Will the user like Film 0? Answer Yes or No:"]


@pytest.mark.parametrize(("min_history", "expected"), [(1, 5), (3, 3), (5, 1)])
def test_a_row_needs_enough_earlier_ratings(min_history: int, expected: int) -> None:
    # 6 ratings: the first min_history of them have too few before them, so 6 - min_history remain.
    assert build_prompts(tables(one_user(1, 2, 3, 4, 5, 1)), PromptRule(min_history=min_history)).height == expected


def test_nobody_with_enough_ratings_is_told_with_the_numbers() -> None:
    with pytest.raises(BadInput, match="none of 1 users has more than 5 ratings") as refused:
        build_prompts(tables([(user, item, 3.0, 1) for user in ["canary-7"] for item in "abcde"]), PromptRule())
    assert "--prompt.min-history" in refused.value.hint
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(("rating", "label"), [(3.0, 0), (3.5, 1), (4.0, 1), (1.0, 0)])
def test_more_than_three_stars_is_a_yes(rating: float, label: int) -> None:
    assert build_prompts(tables(one_user(1, rating)), PromptRule(min_history=1))["label"].to_list() == [label]


def test_a_rating_just_at_the_bound_is_a_no_though_the_bound_has_no_exact_32_bit_float() -> None:
    # 3.7 in 32 bits is 3.70000005, above 3.7 in 64 bits.
    assert build_prompts(tables(one_user(1, 3.7)), PromptRule(min_history=1, like_above=3.7))["label"].to_list() == [0]


@pytest.mark.parametrize(("rating", "shown"), [(4.0, "4*"), (3.5, "3.5*"), (10.0, "10*"), (0.0, "0*"), (3.3, "3.3*")])
def test_stars_are_shown_without_a_needless_zero(rating: float, shown: str) -> None:
    prompt = build_prompts(tables(one_user(rating, 1)), PromptRule(min_history=1))["prompt"][0]
    assert f"Film i0 ({shown})." in prompt


def test_braces_in_a_title_are_only_braces() -> None:
    prompt = build_prompts(tables(one_user(5, 1), titles={"i0": "{} {0}", "i1": "}{"}), PromptRule(min_history=1))["prompt"][0]
    assert prompt == "Watched so far, oldest first: {} {0} (5*). Will the user like }{? Answer Yes or No:"


def test_examples_are_numbered_in_time_order_across_users() -> None:
    rows = [("v", "a", 1.0, 1), ("v", "b", 1.0, 9), ("u", "a", 1.0, 2), ("u", "b", 1.0, 5), ("u", "c", 1.0, 9)]
    built = build_prompts(tables(rows), PromptRule(min_history=1))
    assert built.select("example_id", "user_id", "item_id", "timestamp_s").rows() == [(0, "u", "b", 5), (1, "u", "c", 9), (2, "v", "b", 9)]
    assert [str(kind) for kind in built.dtypes] == ["Int64", "String", "String", "Int64", "Float32", "String", "Int8"]


def slow_oracle(ratings: list[Rating], profiles: dict[str, str | None], titles: dict[str, str], rule: PromptRule) -> list[tuple]:
    """The same in plain Python, row by row."""
    made = []
    for user in {user for user, *_ in ratings}:
        own = sorted((row for row in ratings if row[0] == user), key=lambda row: (row[3], row[1]))
        for place, (_, item, rating, second) in enumerate(own):
            if place < rule.min_history:
                continue
            shown = own[max(0, place - rule.history_length) : place]
            assert item not in [earlier for _, earlier, _, _ in shown]
            if rule.template == "short":
                told = ", ".join(titles[earlier] for _, earlier, _, _ in shown)
                prompt = f"The user watched, oldest first: {told}. Will the user like {titles[item]}?"
            else:
                told = ", ".join(f"{titles[earlier]} ({stars:g}*)" for _, earlier, stars, _ in shown)
                start = f"{profiles[user]} " if profiles[user] is not None else ""
                prompt = f"{start}Watched so far, oldest first: {told}. Will the user like {titles[item]}? Answer Yes or No:"
            made.append((user, item, second, rating, prompt, int(rating > rule.like_above)))
    made.sort(key=lambda row: (row[2], row[0], row[1]))
    return [(number, *row) for number, row in enumerate(made)]


ID = st.text(alphabet="ab9é", min_size=1, max_size=2)
TEXT = st.text(alphabet="aB {}*,.'\"é", min_size=1, max_size=6)


@st.composite
def random_case(draw: st.DrawFn) -> tuple[list[Rating], dict[str, str | None], dict[str, str], PromptRule]:
    users, items = draw(st.lists(ID, min_size=1, max_size=3, unique=True)), draw(st.lists(ID, min_size=2, max_size=8, unique=True))
    pairs = draw(st.lists(st.tuples(st.sampled_from(users), st.sampled_from(items)), min_size=1, max_size=20, unique=True))
    halves, seconds = st.integers(0, 10).map(lambda number: number / 2), st.integers(0, 6)
    ratings = [(user, item, draw(halves), draw(seconds)) for user, item in pairs]
    profiles = {user: draw(st.none() | TEXT) for user in users}
    rule = PromptRule(
        template=draw(st.sampled_from(["reference", "short"])),
        history_length=draw(st.integers(1, 4)),
        min_history=draw(st.integers(1, 4)),
        like_above=draw(st.sampled_from([2.5, 3.0])),
    )
    return ratings, profiles, {item: draw(TEXT) for item in items}, rule


@given(random_case())
def test_a_slow_oracle_agrees_on_random_tables(case: tuple[list[Rating], dict[str, str | None], dict[str, str], PromptRule]) -> None:
    ratings, profiles, titles, rule = case
    expected = slow_oracle(ratings, profiles, titles, rule)
    if not expected:
        with pytest.raises(BadInput):
            build_prompts(tables(ratings, profiles, titles), rule)
    else:
        assert build_prompts(tables(ratings, profiles, titles), rule).rows() == expected
