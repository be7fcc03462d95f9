"""Prompts on disk as token ids: what is read back is what tokenising the texts gives, in whatever portions the file is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_contracts.expectations import violations
from data_contracts.tokens import TOKENS as CONTRACT
from e2urec_core.data import prompts, tokens
from e2urec_core.data.batches import Prompts, tokenise
from e2urec_core.data.encoding import Encoded
from e2urec_core.data.forget import PARTS
from e2urec_core.data.places import TOKENS
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.tokens import load_tokenizer, prompts_of_part, prompts_of_split, training_texts, user_numbers, write_tokens
from e2urec_core.recommender import Recommender

SPLITS = ["train", "validation", "test", "holdout"]


@pytest.fixture(scope="module")
def tokenizer(build_tiny: Callable[..., Recommender]) -> Tokenizer:
    return build_tiny("tiny_t5").tokenizer


@pytest.fixture(scope="module")
def stored(
    tiny_interactions: Path, tiny_folders: tuple[Path, Path], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of tokens."""
    place = tmp_path_factory.mktemp("tokens")
    write_tokens(tiny_folders[0], tiny_interactions, PromptRule(), tokenizer, place)
    return place


@pytest.fixture(params=[8192, 7], ids=["at once", "seven at a time"])
def portions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read and written at once, or in many portions whose ends fall where they fall."""
    monkeypatch.setattr(tokens, "ROWS_AT_A_TIME", request.param)
    monkeypatch.setattr(prompts, "ROWS_AT_A_TIME", request.param)


def same(one: Prompts, other: Prompts) -> bool:
    return all(
        numpy.array_equal(getattr(one, name), getattr(other, name)) and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("example_ids", "labels", "flat", "starts")
    )


def direct(tokenizer: Tokenizer, rows: pl.DataFrame) -> Prompts:
    return tokenise(tokenizer, rows["example_id"].to_numpy(), rows["label"].to_numpy(), rows["prompt"].to_list())


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("split", SPLITS)
def test_the_rows_of_a_split_are_those_of_tokenising_its_texts(
    stored: Path, tokenizer: Tokenizer, tiny_examples: pl.DataFrame, split: str
) -> None:
    expected = direct(tokenizer, tiny_examples.filter(pl.col("split") == split))
    assert len(expected) > 7
    assert same(prompts_of_split(stored, split), expected)


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("part", PARTS)
def test_the_rows_of_a_part_are_those_of_tokenising_its_texts(
    stored: Path, tiny_folders: tuple[Path, Path], tokenizer: Tokenizer, tiny_examples: pl.DataFrame, part: str
) -> None:
    expected = direct(tokenizer, tiny_examples.filter(pl.col("part") == part))
    assert same(prompts_of_part(stored, tiny_folders[1], part), expected)


@pytest.mark.usefixtures("portions")
def test_every_row_is_written_once_in_its_order(
    tiny_interactions: Path,
    tiny_folders: tuple[Path, Path],
    tokenizer: Tokenizer,
    tiny_examples: pl.DataFrame,
    stored: Path,
    tmp_path: Path,
) -> None:
    told = write_tokens(tiny_folders[0], tiny_interactions, PromptRule(), tokenizer, tmp_path)
    lengths = [len(tokenizer.encode(text).ids) for text in tiny_examples["prompt"]]
    assert told == Encoded(rows=tiny_examples.height, tokens=sum(lengths))
    table = pq.read_table(tmp_path / TOKENS)
    assert table["example_id"].to_pylist() == tiny_examples["example_id"].to_list()
    assert table["token_ids"].to_pylist() == [tokenizer.encode(text).ids for text in tiny_examples["prompt"]]
    assert table.equals(pq.read_table(stored / TOKENS))


def test_no_more_than_a_portion_is_in_memory_while_writing(
    tiny_interactions: Path,
    tiny_folders: tuple[Path, Path],
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "ROWS_AT_A_TIME", 7)
    write_tokens(tiny_folders[0], tiny_interactions, PromptRule(), tokenizer, tmp_path)
    meta = pq.read_metadata(tmp_path / TOKENS)
    sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
    assert len(sizes) >= -(-meta.num_rows // 7)
    assert max(sizes) == 7


def test_the_file_keeps_its_contract_and_names_no_user(stored: Path) -> None:
    table = pq.read_table(stored / TOKENS)
    assert violations(CONTRACT, table) == []
    assert table.schema.equals(CONTRACT.schema())
    assert table.column_names == ["example_id", "user", "split", "label", "token_ids"]


def test_every_row_bears_its_users_number_which_other_users_do_not_change(stored: Path, tiny_examples: pl.DataFrame) -> None:
    rows = tiny_examples.select("example_id", "user_id").with_columns(number=pl.Series(pq.read_table(stored / TOKENS)["user"].to_numpy()))
    pairs = rows.select("user_id", "number").unique()
    assert pairs.height == pairs["user_id"].n_unique() == pairs["number"].n_unique() > 9
    assert pairs["number"].min() >= 0
    some = rows.filter(pl.col("number") != rows["number"][0])
    assert user_numbers(some["user_id"].to_arrow().cast("string")).to_pylist() == some["number"].to_list()
    train = tiny_examples.filter(pl.col("split") == "train")
    assert prompts_of_split(stored, "train").users.tolist() == train.join(rows, on="example_id", maintain_order="left")["number"].to_list()


def test_the_tokenizer_stands_beside_the_tokens_and_cuts_prompts_as_before(stored: Path, tokenizer: Tokenizer) -> None:
    back = load_tokenizer(stored)
    assert back.to_str() == tokenizer.to_str()
    long = "Silent Saddle (5*), " * 400
    assert back.encode(long).ids == tokenizer.encode(long).ids
    assert len(back.encode(long).ids) == 512


@pytest.mark.usefixtures("portions")
def test_a_tokenizer_is_trained_on_the_prompts_of_the_training_rows_alone(
    tiny_interactions: Path, tiny_folders: tuple[Path, Path], tiny_examples: pl.DataFrame
) -> None:
    assert (
        list(training_texts(tiny_folders[0], tiny_interactions, PromptRule()))
        == tiny_examples.filter(pl.col("split") == "train")["prompt"].to_list()
    )


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("most", [1, 10, 100, 10**6])
def test_of_many_training_prompts_some_are_taken_evenly(
    tiny_interactions: Path, tiny_folders: tuple[Path, Path], tiny_examples: pl.DataFrame, most: int
) -> None:
    texts = tiny_examples.filter(pl.col("split") == "train")["prompt"].to_list()
    told = list(training_texts(tiny_folders[0], tiny_interactions, PromptRule(), most))
    # Every n-th from the first on, with the least n that leaves at most `most`.
    assert told == texts[:: -(-len(texts) // most)]
    assert min(most, len(texts)) / 2 <= len(told) <= most


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("harm", ["one id", "order", "too few", "too many"])
def test_marks_of_other_examples_are_our_own_bug(stored: Path, tiny_folders: tuple[Path, Path], tmp_path: Path, harm: str) -> None:
    marks = pl.read_parquet(tiny_folders[1] / "parts.parquet")
    last = marks["example_id"][-1]
    harmed = {
        "one id": marks.with_columns(example_id=pl.when(pl.col("example_id") == last).then(10**6).otherwise("example_id")),
        "order": pl.concat([marks.tail(1), marks.head(marks.height - 1)]),
        "too few": marks.head(marks.height - 1),
        "too many": pl.concat([marks, marks.tail(1).with_columns(example_id=pl.lit(10**6, pl.Int64))]),
    }[harm]
    harmed.write_parquet(tmp_path / "parts.parquet")
    with pytest.raises(AssertionError, match="the request marks other examples"):
        prompts_of_part(stored, tmp_path, "retained")


def test_a_split_without_rows_gives_no_prompts(stored: Path) -> None:
    none = prompts_of_split(stored, "no such split")
    assert (len(none), none.starts.tolist(), none.flat.dtype, none.example_ids.dtype) == (0, [0], numpy.int32, numpy.int64)


def test_one_flipped_bit_in_the_tokens_is_refused(stored: Path, tmp_path: Path) -> None:
    content = bytearray((stored / TOKENS).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / TOKENS).write_bytes(content)
    with pytest.raises((OSError, pa.ArrowException)):
        for split in SPLITS:
            prompts_of_split(tmp_path, split)


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=12), st.data())
def test_selected_prompts_are_those_prompts_in_the_asked_order(rows: list[list[int]], data: st.DataObject) -> None:
    starts = numpy.concatenate([[0], numpy.cumsum([len(row) for row in rows])]).astype(numpy.int64)
    count = numpy.arange(len(rows))
    whole = Prompts(count * 10, count % 2, numpy.array([token for row in rows for token in row], dtype=numpy.int32), starts, count * 7)
    index = numpy.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10)), dtype=numpy.int64)
    some = whole.select(index)
    assert [some.flat[some.starts[at] : some.starts[at + 1]].tolist() for at in range(len(some))] == [rows[place] for place in index]
    assert (some.example_ids.tolist(), some.labels.tolist()) == ((index * 10).tolist(), (index % 2).tolist())
    assert some.users is not None
    assert some.users.tolist() == (index * 7).tolist()
    assert some.lengths.tolist() == whole.lengths_at(index).tolist()
