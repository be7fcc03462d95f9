"""Examples become text: checked by hand, and against a slow oracle in plain Python on random tables."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.prompts import NOTHING, WORDINGS, Part, PromptRule, parts_of
from tests.told import Rating, examples_of, prompts_of, stored


def one_user(*stars: float | None, times: list[int] | None = None) -> list[Rating]:
    return [("u", f"i{place}", rating, (times or list(range(100)))[place]) for place, rating in enumerate(stars)]


def prompts(place: Path, ratings: list[Rating], history: HistoryRule, prompt: PromptRule | None = None, **told: object) -> list[str]:
    return prompts_of(stored(place, ratings, **told), history, prompt or PromptRule())  # type: ignore[arg-type]


def test_the_history_is_what_came_before_in_time_order_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = [("u", "b", 4.0, 20), ("u", "d", 5.0, 40), ("u", "a", 2.0, 10), ("u", "c", 1.0, 30)]
    assert prompts(tmp_path, rows, HistoryRule(at_least=2)) == [
        "Watched so far, oldest first: Film a (2*), Film b (4*). Will the user like Film c? Answer Yes or No:",
        "Watched so far, oldest first: Film a (2*), Film b (4*), Film c (1*). Will the user like Film d? Answer Yes or No:",
    ]


def test_the_profile_opens_the_prompt_where_there_is_one(tmp_path: Path) -> None:
    rows = [("u", "a", 2.0, 1), ("u", "b", 4.0, 2), ("v", "a", 3.0, 3), ("v", "b", 4.0, 4)]
    assert prompts(tmp_path, rows, HistoryRule(at_least=1), profiles={"u": "The user farms."}) == [
        "The user farms. Watched so far, oldest first: Film a (2*). Will the user like Film b? Answer Yes or No:",
        "Watched so far, oldest first: Film a (3*). Will the user like Film b? Answer Yes or No:",
    ]


def test_the_papers_template_has_titles_alone(tmp_path: Path) -> None:
    told = prompts(tmp_path, one_user(5, 1, 3), HistoryRule(at_least=2), PromptRule(template="paper"), profiles={"u": "The user farms."})
    assert told == ["The user watched, oldest first: Film i0, Film i1. Will the user like Film i2?"]


def test_the_template_for_books_reads_and_does_not_watch(tmp_path: Path) -> None:
    told = prompts(tmp_path, one_user(5, 1), HistoryRule(at_least=1), PromptRule(template="book"), titles={"i0": "Emma", "i1": "Ulysses"})
    assert told == ["Read so far, oldest first: Emma (5*). Will the user like the book Ulysses? Answer Yes or No:"]


def test_an_own_wording_is_used_as_it_stands(tmp_path: Path) -> None:
    rule = PromptRule(text="[{candidate}] after ({history})! {profile}", event="<{rating} of {title}>")
    told = prompts(tmp_path, one_user(5, 1, 2), HistoryRule(at_least=2), rule, profiles={"u": "A farmer."})
    assert told == ["[Film i2] after (<5 of Film i0>, <1 of Film i1>)! A farmer."]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"text": "{history}"}, "text must hold {candidate} once, not 0 times"),
        ({"text": "{history} {candidate} {candidate}"}, "text must hold {candidate} once, not 2 times"),
        (
            {"text": "{history} {candidate} {label}"},
            "text may hold the fields {profile}, {history}, {candidate} and nothing else in braces",
        ),
        ({"text": "{history} {candidate!r}"}, "nothing else in braces"),
        ({"text": "{history} {candidate:>9}"}, "nothing else in braces"),
        ({"text": "{history} {candidate} {"}, "text is no template"),
        ({"text": "{history} {} {candidate}"}, "nothing else in braces"),
        ({"text": "{history}{candidate}"}, "touch each other"),
        ({"event": "({rating})"}, "event must hold {title} once, not 0 times"),
        ({"event": "{title} {item_id}"}, "event may hold the fields {title}, {rating} and nothing else in braces"),
    ],
)
def test_a_wording_that_misses_a_field_or_invents_one_is_refused(setting: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        PromptRule(**setting)
    assert said in str(refused.value)


def test_no_shipped_wording_can_tell_the_answer() -> None:
    for wording in WORDINGS.values():
        assert {part.field for part in parts_of(wording.text)} <= {"", "profile", "history", "candidate"}


def test_only_the_latest_titles_are_shown(tmp_path: Path) -> None:
    told = prompts(tmp_path, one_user(1, 2, 3, 4, 5), HistoryRule(length=2, at_least=4))
    assert told == ["Watched so far, oldest first: Film i2 (3*), Film i3 (4*). Will the user like Film i4? Answer Yes or No:"]


def test_interactions_of_one_second_are_ordered_by_item_id(tmp_path: Path) -> None:
    rows = [("u", "c", 3.0, 5), ("u", "a", 1.0, 5), ("u", "b", 2.0, 5), ("u", "0", 5.0, 6)]
    told = prompts(tmp_path, rows, HistoryRule(at_least=3))
    assert told == ["Watched so far, oldest first: Film a (1*), Film b (2*), Film c (3*). Will the user like Film 0? Answer Yes or No:"]


def test_an_item_that_is_met_again_is_not_in_its_own_history(tmp_path: Path) -> None:
    rows = [("u", "a", 5.0, 1), ("u", "b", 2.0, 2), ("u", "a", 1.0, 3), ("u", "c", 4.0, 4)]
    assert prompts(tmp_path, rows, HistoryRule(at_least=2)) == [
        "Watched so far, oldest first: Film b (2*). Will the user like Film a? Answer Yes or No:",
        "Watched so far, oldest first: Film a (5*), Film b (2*), Film a (1*). Will the user like Film c? Answer Yes or No:",
    ]


def test_a_history_of_nothing_but_the_candidate_says_nothing(tmp_path: Path) -> None:
    told = prompts(tmp_path, [("u", "a", 5.0, 1), ("u", "a", 1.0, 2)], HistoryRule(at_least=1))
    assert told == [f"Watched so far, oldest first: {NOTHING}. Will the user like Film a? Answer Yes or No:"]


@pytest.mark.parametrize(("at_least", "expected"), [(1, 5), (3, 3), (5, 1)])
def test_a_row_needs_enough_earlier_interactions(tmp_path: Path, at_least: int, expected: int) -> None:
    # 6 ratings: the first at_least of them have too few before them, so 6 - at_least remain.
    assert examples_of(stored(tmp_path, one_user(1, 2, 3, 4, 5, 1)), HistoryRule(at_least=at_least)).num_rows == expected


@pytest.mark.parametrize(("rating", "shown"), [(4.0, "4*"), (3.5, "3.5*"), (10.0, "10*"), (0.0, "0*"), (3.3, "3.3*")])
def test_stars_are_shown_without_a_needless_zero(tmp_path: Path, rating: float, shown: str) -> None:
    assert f"Film i0 ({shown})." in prompts(tmp_path, one_user(rating, 1), HistoryRule(at_least=1))[0]


def test_where_a_rating_is_missing_the_title_stands_alone(tmp_path: Path) -> None:
    told = prompts(tmp_path, one_user(None, 2, 1), HistoryRule(at_least=2))
    assert told == ["Watched so far, oldest first: Film i0, Film i1 (2*). Will the user like Film i2? Answer Yes or No:"]


def test_braces_in_a_title_are_only_braces(tmp_path: Path) -> None:
    told = prompts(tmp_path, one_user(5, 1), HistoryRule(at_least=1), titles={"i0": "{} {0}", "i1": "}{"})
    assert told == ["Watched so far, oldest first: {} {0} (5*). Will the user like }{? Answer Yes or No:"]


def test_a_long_title_ends_in_three_points_and_counts_letters_not_bytes(tmp_path: Path) -> None:
    titles = {"i0": "é" * 12, "i1": "é" * 13}
    told = prompts(tmp_path, one_user(5, 1), HistoryRule(at_least=1), PromptRule(longest_title=12), titles=titles)
    assert told == [f"Watched so far, oldest first: {'é' * 12} (5*). Will the user like {'é' * 9}...? Answer Yes or No:"]


def test_a_template_is_cut_at_its_spaces() -> None:
    assert parts_of("{profile}! So far: ({history}). Is it {candidate}? Say.") == [
        Part("profile", "", "!"),
        Part("", "So far:"),
        Part("history", "(", ")."),
        Part("", "Is it"),
        Part("candidate", "", "?"),
        Part("", "Say."),
    ]


def slow_oracle(
    ratings: list[Rating], profiles: dict[str, str | None], titles: dict[str, str], history: HistoryRule, template: str
) -> list[tuple[str, str, int, str]]:
    """The same in plain Python, row by row."""
    made = []
    for user in {user for user, *_ in ratings}:
        own = sorted((row for row in ratings if row[0] == user), key=lambda row: (row[3], row[1]))
        for place, (_, item, _, second) in enumerate(own):
            if place < history.at_least:
                continue
            shown = [row for row in own[max(0, place - history.length) : place] if row[1] != item]
            if template == "paper":
                told = ", ".join(titles[earlier] for _, earlier, _, _ in shown) or NOTHING
                prompt = f"The user watched, oldest first: {told}. Will the user like {titles[item]}?"
            else:
                told = ", ".join(f"{titles[earlier]} ({stars:g}*)" for _, earlier, stars, _ in shown) or NOTHING
                start = f"{profiles[user]} " if profiles[user] is not None else ""
                prompt = f"{start}Watched so far, oldest first: {told}. Will the user like {titles[item]}? Answer Yes or No:"
            made.append((second, user, item, prompt))
    return [(user, item, second, prompt) for second, user, item, prompt in sorted(made)]


ID = st.text(alphabet="ab9é", min_size=1, max_size=2)
TEXT = st.text(alphabet="aB{}*,.'\"é", min_size=1, max_size=6)


@st.composite
def random_case(draw: st.DrawFn) -> tuple[list[Rating], dict[str, str | None], dict[str, str], HistoryRule, str]:
    users, items = draw(st.lists(ID, min_size=1, max_size=3, unique=True)), draw(st.lists(ID, min_size=2, max_size=8, unique=True))
    seconds = st.integers(0, 6)
    keys = draw(st.lists(st.tuples(st.sampled_from(users), st.sampled_from(items), seconds), min_size=1, max_size=20, unique=True))
    halves = st.integers(0, 10).map(lambda number: number / 2)
    ratings = [(user, item, draw(halves), second) for user, item, second in keys]
    profiles = {user: draw(st.none() | TEXT) for user in users}
    rule = HistoryRule(length=draw(st.integers(1, 4)), at_least=draw(st.integers(1, 4)))
    return ratings, profiles, {item: draw(TEXT) for item in items}, rule, draw(st.sampled_from(["reference", "paper"]))


@given(random_case())
def test_a_slow_oracle_agrees_on_random_tables(case: tuple[list[Rating], dict[str, str | None], dict[str, str], HistoryRule, str]) -> None:
    ratings, profiles, titles, history, template = case
    with tempfile.TemporaryDirectory() as place:
        folder = stored(Path(place), ratings, profiles=profiles, titles=titles)
        told = prompts_of(folder, history, PromptRule(template=template, longest_title=8))
        table = examples_of(folder, history)
        keys = [table[name].to_pylist() for name in ("user_id", "item_id", "timestamp_s")] if table.num_rows else [[], [], []]
    assert list(zip(*keys, told, strict=True)) == slow_oracle(ratings, profiles, titles, history, template)
