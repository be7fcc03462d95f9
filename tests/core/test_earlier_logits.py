"""A later request against the same original takes the outputs that an earlier one has left, as they are, and runs only what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2urec_core.data.batches import Prompts
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.data.teacher_scoring import FILES, Stamp, write_forgotten
from e2urec_core.engine import Bench
from e2urec_core.recommender import Recommender
from e2urec_core.settings import CacheRule

BENCH = Bench(seed=1)
RULE = CacheRule(support="top", top=5, rows_per_group=16, retained_per_forgotten=1)
OF_ROWS, OF_FORGOTTEN = Stamp("a" * 64, "b" * 64, "e" * 64), Stamp("a" * 64, "b" * 64, "c" * 64, "d" * 64)
Teachers = tuple[Recommender, Recommender]


@pytest.fixture(scope="module")
def others_gone(gone: numpy.ndarray) -> numpy.ndarray:
    """A later request for as many rows, some of them the same."""
    return numpy.roll(gone, 3)


def groups(folder: Path) -> list[pa.Table]:
    file = pq.ParquetFile(folder / FILES["retained"])
    return [file.read_row_group(number) for number in range(file.num_row_groups)]


def ids(folder: Path) -> list[int]:
    found: list[int] = pq.read_table(folder / FILES["retained"])["example_id"].to_pylist()
    return found


def test_a_later_request_takes_the_groups_bit_for_bit_and_runs_the_original_on_no_row_of_them(
    first: Path, write: Callable[..., Path], teachers: Teachers, others_gone: numpy.ndarray, asked: Any, tmp_path: Path
) -> None:
    more = RULE.model_copy(update={"retained_per_forgotten": 2})
    alone = write(tmp_path / "alone", others_gone, more)
    scored_alone = asked.by(teachers[0])
    asked.rows.clear()
    later = write(tmp_path / "later", others_gone, more, earlier=[first])
    taken = len(groups(first))
    assert groups(later)[:taken] == groups(first)
    assert (later / FILES["retained"]).read_bytes() == (alone / FILES["retained"]).read_bytes()
    assert scored_alone == len(ids(alone))
    assert asked.total() == len(ids(later)) - 16 * taken > 0


def test_a_later_request_that_needs_no_more_runs_no_network_at_all(
    first: Path, write: Callable[..., Path], others_gone: numpy.ndarray, asked: Any, tmp_path: Path
) -> None:
    fewer = RULE.model_copy(update={"retained_per_forgotten": 0.5})
    later = write(tmp_path, others_gone, fewer, earlier=[first])
    assert asked.total() == 0
    assert 0 < len(groups(later)) < len(groups(first))


def test_of_several_earlier_requests_the_longest_is_taken(
    first: Path, write: Callable[..., Path], gone: numpy.ndarray, others_gone: numpy.ndarray, asked: Any, tmp_path: Path
) -> None:
    short = write(tmp_path / "short", gone, RULE.model_copy(update={"retained_per_forgotten": 0.2}))
    assert len(groups(short)) < len(groups(first))
    asked.rows.clear()
    write(tmp_path / "later", others_gone, earlier=[short, first, short])
    assert asked.total() <= 16


@pytest.mark.parametrize(
    "other",
    [
        {"stamp": dataclasses.replace(OF_ROWS, original="f" * 64)},
        {"stamp": dataclasses.replace(OF_ROWS, tokenizer="f" * 64)},
        {"stamp": dataclasses.replace(OF_ROWS, rows="f" * 64)},
        {"rule": RULE.model_copy(update={"top": 6})},
        {"rule": RULE.model_copy(update={"support": "answers"})},
        {"rule": RULE.model_copy(update={"rows_per_group": 17})},
        {"bench": Bench(seed=2)},
        {"bench": Bench(seed=1, precision="bf16")},
        {"bench": Bench(seed=1, token_budget=500)},
    ],
    ids=["original", "tokenizer", "rows", "top", "support", "group size", "seed", "precision", "budget"],
)
def test_outputs_of_another_kind_are_not_taken(
    first: Path, write: Callable[..., Path], gone: numpy.ndarray, asked: Any, tmp_path: Path, other: dict[str, Any]
) -> None:
    later = write(tmp_path, gone, **other, earlier=[first])
    assert asked.total() == len(ids(later))


def test_rows_that_a_later_request_forgets_are_in_the_file_but_never_drawn(
    first: Path, write: Callable[..., Path], teachers: Teachers, train: Prompts, others_gone: numpy.ndarray, tmp_path: Path
) -> None:
    later = write(tmp_path, others_gone, earlier=[first])
    rows: dict[Any, Prompts] = {
        "forgotten": train.select(numpy.flatnonzero(others_gone)),
        "retained": train.select(numpy.flatnonzero(~others_gone)),
    }
    write_forgotten(tmp_path, *teachers, rows["forgotten"], RULE, OF_FORGOTTEN, BENCH)
    cache = TeacherCache(later, tmp_path, rows, {"forgotten": OF_FORGOTTEN, "retained": OF_ROWS}, RULE)
    drawn = {int(rows["retained"].example_ids[place]) for batch in cache.batches("retained", 8, 1, 0) for place in batch.index}
    gone = set(rows["forgotten"].example_ids.tolist())
    assert gone & set(ids(later))
    assert drawn == set(ids(later)) - gone
