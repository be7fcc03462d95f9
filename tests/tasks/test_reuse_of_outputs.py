"""A second request against the same original takes over what the first has made it say, byte by byte, and runs no network for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from e2urec_core.artifacts import Augmented, ForgetRequest, Original, OriginalLogits, TeacherLogits, Tokens
from e2urec_core.settings import CacheRule, EngineRule, Seat

if TYPE_CHECKING:
    from tasks._room import Room

pytestmark = pytest.mark.slow

GROUP, SEAT = 16, Seat(seed=0)
RULE = CacheRule(top=4, rows_per_group=GROUP, retained_per_forgotten=2.0)


RoomIn = Callable[[Path], AbstractContextManager["Room"]]


class Made(NamedTuple):
    """What the stages before the cache have made; `requests` by the share of users who are forgotten."""

    workspace: Path
    tokens: Tokens
    original: Original
    requests: dict[float, ForgetRequest]


@pytest.fixture(scope="module")
def made(prefect: None, room_in: RoomIn, tmp_path_factory: pytest.TempPathFactory) -> Made:
    from e2urec_core.backbones.tiny_t5 import TinyT5
    from e2urec_core.data.examples import HistoryRule
    from e2urec_core.data.forget import ForgetRule
    from e2urec_core.data.ingest import IngestRule
    from e2urec_core.data.prompts import PromptRule
    from e2urec_core.data.split import SplitRule
    from e2urec_core.datasets.sample import Sample
    from e2urec_core.settings import Training
    from tasks.forget import choose_forgotten
    from tasks.ingest import ingest
    from tasks.split import split_by_time
    from tasks.tokenise import tokenise
    from tasks.train import train_original

    workspace, backbone = tmp_path_factory.mktemp("reuse"), TinyT5(width=16, num_layers=1, num_heads=2, inner_width=32, vocabulary=400)
    with room_in(workspace):
        rows = ingest(Sample(num_users=60, ratings_per_user=12), IngestRule())
        examples = split_by_time(rows, HistoryRule(), SplitRule(), 0)
        tokens = tokenise(rows, examples, PromptRule(), backbone)
        original = train_original(tokens, backbone, Training(num_epochs=1), SEAT)
        # Other users for every share: the seeds differ.
        requests = {
            share: choose_forgotten(rows, examples, ForgetRule(share=share), seed) for share, seed in ((0.05, 3), (0.1, 1), (0.3, 2))
        }
    return Made(workspace, tokens, original, requests)


@dataclass
class Cache:
    """Runs cache stages in a copy of that workspace, and counts the rows that networks read for them."""

    room: Room
    made: Made
    read: list[int]

    def original(self, share: float, rule: CacheRule = RULE, seat: Seat = SEAT) -> tuple[OriginalLogits, int]:
        """What `cache-original` gives for the request that forgets `share` of the users, and how many rows were read for it."""
        from tasks.cache_logits import cache_original_logits

        self.read.clear()
        return cache_original_logits(self.made.original, self.made.tokens, self.made.requests[share], rule, seat), sum(self.read)

    def teachers(self, share: float) -> tuple[TeacherLogits, int]:
        """The same of `cache-teachers`, with the original in the augmented model's place."""
        from tasks.cache_logits import cache_teacher_logits

        self.read.clear()
        given = self.made.tokens, self.made.requests[share], RULE, SEAT
        return cache_teacher_logits(self.made.original, self.augmented, *given), sum(self.read)

    @property
    def augmented(self) -> Augmented:
        store = self.room.store
        with store.workplace() as place:
            shutil.copytree(store.open(self.made.original), place, dirs_exist_ok=True)
            (place / "manifest.json").unlink()
            return store.publish(Augmented, place, parents=(), rows=1, made_by="toy")

    def file(self, kept: OriginalLogits) -> Path:
        """The only file of the original's outputs."""
        return self.room.store.open(kept) / "original.parquet"


@pytest.fixture
def cache(made: Made, room_in: RoomIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    from e2urec_core.reader import AnswerReader

    read: list[int] = []
    forward = AnswerReader.forward

    def counted(self: AnswerReader, token_ids: Any, *others: Any) -> Any:
        read.append(len(token_ids))
        return forward(self, token_ids, *others)

    monkeypatch.setattr(AnswerReader, "forward", counted)
    shutil.copytree(made.workspace / "store", tmp_path / "store")
    with room_in(tmp_path) as room:
        yield Cache(room, made, read)


def raw_groups(path: Path) -> list[bytes]:
    """The bytes of each row group as they lie in the file."""
    data, about = path.read_bytes(), pq.ParquetFile(path).metadata
    found = []
    for number in range(about.num_row_groups):
        columns = [about.row_group(number).column(place) for place in range(about.num_columns)]
        found.append(b"".join(data[column.data_page_offset :][: column.total_compressed_size] for column in columns))
    return found


def test_every_row_is_read_by_the_network_once_when_nothing_was_kept_before(cache: Cache) -> None:
    kept, read = cache.original(0.1)
    assert read == kept.rows == GROUP * len(raw_groups(cache.file(kept)))
    assert kept.rows > 2 * GROUP


def test_a_later_request_takes_the_common_row_groups_and_reads_only_the_rows_beyond_them(cache: Cache) -> None:
    first, _ = cache.original(0.1)
    second, read = cache.original(0.3)
    before, after = raw_groups(cache.file(first)), raw_groups(cache.file(second))
    assert 0 < len(before) < len(after)
    assert after[: len(before)] == before
    assert read == second.rows - GROUP * len(before) > 0


def test_a_request_that_needs_no_more_rows_than_an_earlier_one_runs_no_network(cache: Cache) -> None:
    first, _ = cache.original(0.1)
    second, read = cache.original(0.05)
    groups = raw_groups(cache.file(second))
    assert read == 0
    assert 0 < len(groups) < len(raw_groups(cache.file(first)))
    assert groups == raw_groups(cache.file(first))[: len(groups)]


def test_what_was_taken_over_is_what_would_have_been_made(cache: Cache) -> None:
    cache.original(0.1)
    taken, read = cache.original(0.3)
    assert read < taken.rows
    shutil.rmtree(cache.room.store.root / "objects" / "OriginalLogits")
    assert cache.original(0.3) == (taken, taken.rows)


def test_outputs_whose_bytes_have_changed_are_not_taken_over(cache: Cache) -> None:
    path = cache.file(cache.original(0.1)[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    second, read = cache.original(0.05)
    assert read == second.rows


@pytest.mark.parametrize(
    ("rule", "seat"),
    [
        (RULE.model_copy(update={"top": 5}), SEAT),
        (RULE.model_copy(update={"support": "answers"}), SEAT),
        (RULE, Seat(seed=1)),
        (RULE, Seat(seed=0, engine=EngineRule(token_budget=512))),
    ],
    ids=["columns", "support", "seed", "token-budget"],
)
def test_outputs_that_were_kept_in_another_way_are_not_taken_over(cache: Cache, rule: CacheRule, seat: Seat) -> None:
    cache.original(0.1)
    second, read = cache.original(0.05, rule, seat)
    assert read == second.rows


def test_of_several_earlier_requests_the_one_with_most_rows_is_taken(cache: Cache) -> None:
    cache.original(0.05)
    cache.original(0.3)
    cache.original(0.05, RULE.model_copy(update={"top": 5}))
    assert cache.original(0.1)[1] == 0


def test_the_rows_to_forget_are_read_by_both_teachers_anew_for_every_request(cache: Cache) -> None:
    for share in (0.1, 0.05):
        kept, read = cache.teachers(share)
        assert read == 2 * kept.rows > 0
