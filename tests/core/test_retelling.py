"""Single interactions: what is left is what a data set without them would have given. User and item ids are canaries."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy
import polars as pl
import pytest
from canaries import FIRST_S, ITEMS, USERS, WHOLE_STORY, Row, made, small_tokenizer, told
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from e2urec_core import stages
from e2urec_core.artifacts import Examples, ForgetRequest, Interactions, Retold, Tokens
from e2urec_core.data.batches import Prompts
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.named import named_interactions
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.relations import relations
from e2urec_core.data.tokens import prompts_of_part, prompts_of_split, prompts_retold
from e2urec_core.errors import BadInput, BadRequest
from e2urec_core.methods.base import Changed
from tasks import _gate

PARTS = ("retained", "forgotten", "validation", "forgotten_validation", "test", "forgotten_test", "holdout", "other")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


def asked(place: Path, folders: tuple[Path, Path, Path], named: list[tuple[str, str]]) -> tuple[Path, Path]:
    """Folders of the request for the named interactions and of what it tells anew."""
    file, request, retold = place / "named.csv", place / "request", place / "retold"
    request.mkdir()
    retold.mkdir()
    file.write_text("\n".join(["user_id,item_id", *(",".join(pair) for pair in named)]))
    stages.forget(folders[0], folders[1], ForgetRule(interactions_file=file), 0, request)
    stages.retell(request, folders[0], folders[2], PromptRule(), retold)
    return request, retold


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(USERS), st.sampled_from(ITEMS), st.integers(1, 5), st.integers(FIRST_S, FIRST_S + 30)),
        min_size=24,
        max_size=40,
        unique_by=lambda row: (row[0], row[1], row[3]),
    ),
    wanted=st.lists(st.integers(0, 39), min_size=1, max_size=5),
)
def test_what_stays_is_told_token_by_token_as_if_the_interactions_had_never_been_ingested(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, rows: list[Row], wanted: list[int]
) -> None:
    place = tmp_path_factory.mktemp("story")
    named = sorted({rows[number % len(rows)][:2] for number in wanted})
    without = [row for row in rows if row[:2] not in named]
    try:
        folders = made(place / "all", rows, tokenizer)
        never = made(place / "never", without, tokenizer)
        request, retold = asked(place, folders, named)
    except (BadInput, BadRequest):
        assume(False)
    parts = {part: prompts_of_part(folders[2], request, part, retold) for part in PARTS}
    stay = {number: ids for part in ("retained", "validation", "test") for number, ids in told(parts[part]).items()}
    expected = {number: ids for split in ("train", "validation", "test") for number, ids in told(prompts_of_split(never[2], split)).items()}
    assert stay == expected
    counts = stages.facts(request)["counts"]
    before = {number: ids for split in ("train", "validation", "test") for number, ids in told(prompts_of_split(folders[2], split)).items()}
    assert set(told(prompts_retold(retold))) == {number for number, ids in stay.items() if before[number] != ids}
    assert counts["changed"] == len(prompts_retold(retold))


@pytest.fixture(scope="module")
def story(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Path, Path, Path]]:
    """Three users who met the same nine things, some seconds apart."""
    place = tmp_path_factory.mktemp("three")
    return place, made(place, WHOLE_STORY, tokenizer)


def test_one_interaction_changes_the_rows_that_showed_it_and_no_others(
    story: tuple[Path, tuple[Path, Path, Path]], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folders = story[1]
    request, retold = asked(tmp_path, folders, [(USERS[0], ITEMS[3])])
    # The third item of a history of three; the user's rows about items 4, 5 and 6 showed it. Rows begin with item 2.
    counts = stages.facts(request)["counts"]
    assert {name: counts[name] for name in ("forgotten", "forgotten_interactions", "changed")} == {
        "forgotten": 1,
        "forgotten_interactions": 1,
        "changed": 3,
    }
    rows = pl.read_parquet(request / "examples.parquet")
    assert rows.select("user_id", "item_id").rows() == [(USERS[0], ITEMS[item]) for item in (4, 5, 6)]
    assert rows["history"].to_list() == [[0, 1, 2], [1, 2, 4], [2, 4, 5]]
    texts = [tokenizer.decode(ids) for ids in told(prompts_retold(retold)).values()]
    assert len(texts) == 3
    assert not [text for text in texts if ITEMS[3] in text]
    assert all(ITEMS[2] in text for text in texts)


def test_a_row_with_too_little_history_left_goes_as_well(story: tuple[Path, tuple[Path, Path, Path]], tmp_path: Path) -> None:
    folders = story[1]
    request, _ = asked(tmp_path, folders, [(USERS[1], ITEMS[0])])
    marks = pl.read_parquet(request / "parts.parquet").join(
        pl.read_parquet(folders[1] / "examples.parquet").select("example_id", "user_id", "item_id"), on="example_id"
    )
    # Item 0 has no row of its own: a row needs two earlier items. That about item 2 had two and has one left.
    assert marks.filter(part="forgotten").select("user_id", "item_id").rows() == [(USERS[1], ITEMS[2])]


def test_rows_of_every_part_are_told_anew_and_the_others_keep_their_tokens(
    story: tuple[Path, tuple[Path, Path, Path]], tmp_path: Path
) -> None:
    folders = story[1]
    request, retold = asked(tmp_path, folders, [(user, ITEMS[item]) for user in USERS for item in (2, 5)])
    anew = told(prompts_retold(retold))
    seen = set()
    for part in ("retained", "validation", "test", "forgotten"):
        old, new = (told(prompts_of_part(folders[2], request, part, of)) for of in (None, retold))
        assert list(old) == list(new)
        assert new == {number: anew.get(number, ids) for number, ids in old.items()}
        seen |= {part} if old != new else set()
    assert seen == {"retained", "validation", "test"}


def test_the_changed_training_rows_stand_side_by_side(story: tuple[Path, tuple[Path, Path, Path]], tmp_path: Path) -> None:
    folders = story[1]
    request, retold = asked(tmp_path, folders, [(USERS[0], ITEMS[3]), (USERS[2], ITEMS[2])])
    changed = Changed.of(prompts_of_part(folders[2], request, "retained"), prompts_retold(retold))
    assert changed is not None
    assert numpy.array_equal(changed.before.example_ids, changed.after.example_ids)
    before, after = told(changed.before), told(changed.after)
    assert all(before[number] != after[number] for number in before)
    assert len(before) == stages.facts(request)["counts"]["changed_training"]
    assert Changed.of(prompts_of_part(folders[2], request, "forgotten"), prompts_retold(retold)) is None


def test_what_the_stages_write_keeps_its_contracts(story: tuple[Path, tuple[Path, Path, Path]], tmp_path: Path) -> None:
    folders = story[1]
    request, retold = asked(tmp_path, folders, [(USERS[0], ITEMS[3])])
    parents = dict(zip((Interactions, Examples, Tokens), folders, strict=True))
    _gate.check(ForgetRequest, request, parents)
    _gate.check(Retold, retold, {**parents, ForgetRequest: request})
    marks = pl.read_parquet(request / "parts.parquet")
    anew = pl.read_parquet(request / "examples.parquet")["example_id"].to_list()
    spoiled = marks.with_columns(part=pl.when(pl.col("example_id").is_in(anew)).then(pl.lit("forgotten")).otherwise("part"))
    spoiled.write_parquet(request / "parts.parquet")
    numbers = [table["forgotten_rows_told_anew"][0].as_py() for _, table in relations(ForgetRequest, request, parents)]
    assert numbers == [len(anew)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,thing\ncanary-ann,canary-thing-3\n", "lacks 1 of 2 columns: item_id"),
        ("", "lacks 2 of 2 columns"),
        ("user_id,item_id\n", "names 0 of them"),
        ("user_id,item_id\ncanary-ann,\ncanary-bob,canary-thing-1\n", "1 of 2 rows have no user or no item"),
        (b"\xff\xfe\x00", "it is no CSV text"),
        ("user_id,item_id\ncanary-ann,canary-thing-3\ncanary-zoe,canary-thing-3\ncanary-ann,canary-else\n", "2 of 3 named interactions"),
        ("user_id,item_id\n" + "\n".join(",".join(pair) for pair in itertools.product(USERS, ITEMS)), "all 10 training rows"),
        ("user_id,item_id\ncanary-ann,canary-thing-8\n", "are those of none of 10 training rows"),
    ],
    ids=["column", "empty", "nothing", "nameless", "bytes", "unknown", "everything", "no training row"],
)
def test_a_request_that_cannot_be_carried_out_is_refused_with_counts_and_without_names(
    story: tuple[Path, tuple[Path, Path, Path]], tmp_path: Path, text: str | bytes, message: str
) -> None:
    (tmp_path / "request.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    (tmp_path / "place").mkdir()
    with pytest.raises(BadRequest, match=message) as refused:
        stages.forget(*story[1][:2], ForgetRule(interactions_file=tmp_path / "request.csv"), 0, tmp_path / "place")
    assert "canary" not in str(refused.value)
    assert refused.value.hint
    assert not list((tmp_path / "place").iterdir())


def test_the_file_is_read_as_spreadsheets_write_it(tmp_path: Path) -> None:
    (tmp_path / "named.csv").write_bytes('\ufeffitem_id,user_id,note\r\n"thing, one", ann ,x\r\n"thing, one",ann,again\r\n'.encode())
    assert named_interactions(tmp_path / "named.csv") == [("ann", "thing, one")]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read: No such file"):
        named_interactions(tmp_path / "none.csv")


def test_users_and_interactions_are_not_asked_for_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two requests"):
        ForgetRule(users_file=tmp_path / "users.txt", interactions_file=tmp_path / "named.csv")


def test_the_fingerprint_follows_the_bytes_of_the_file(tmp_path: Path) -> None:
    file, prints = tmp_path / "named.csv", []
    for text in ("user_id,item_id\na,b\n", "user_id,item_id\na,c\n"):
        file.write_text(text)
        prints.append(ForgetRule(interactions_file=file).fingerprint())
    assert len({*prints, ""}) == 3


def test_prompts_are_joined_and_chosen_as_they_were(rows_of: Callable[..., Prompts], build_tiny: Callable[..., object]) -> None:
    rows = rows_of(build_tiny("tiny_t5"), "forgotten")
    both = rows.joined(rows)
    assert told(both.select(numpy.arange(len(rows)) + len(rows))) == told(rows)
    assert len(both) == 2 * len(rows)
