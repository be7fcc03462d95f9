"""The teacher cache: what is read is what the teachers say, once a pass, less what the request forgets; another's is refused.

Tolerance `BATCHED`: the cache scores rows in other batches than a direct forward does, so 32-bit sums run in another order.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet as pq
import pytest
import torch

from e2urec_core.data import draws
from e2urec_core.data.batches import Prompts
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.data.teacher_scoring import FILES, Stamp, write_forgotten, write_original
from e2urec_core.engine import Bench
from e2urec_core.errors import StaleCache
from e2urec_core.ops.answers import narrow
from e2urec_core.recommender import Recommender
from e2urec_core.settings import CacheRule

BATCHED = 2e-5
BENCH = Bench(seed=1)
PARTS = ["forgotten", "retained"]
STAMPS: dict[Any, Stamp] = {"forgotten": Stamp("a" * 64, "b" * 64, "c" * 64, "d" * 64), "retained": Stamp("a" * 64, "b" * 64, "e" * 64)}
RULES = {
    "full": CacheRule(support="full", rows_per_group=16, retained_per_forgotten=4),
    "top": CacheRule(support="top", top=5, rows_per_group=16, retained_per_forgotten=4),
    "answers": CacheRule(support="answers", rows_per_group=16, retained_per_forgotten=2),
}
SUPPORTS = list(RULES)
Rows = dict[Any, Prompts]
Teachers = tuple[Recommender, Recommender]


@pytest.fixture(scope="module")
def rows(teachers: Teachers, rows_of: Callable[[Recommender, str], Prompts]) -> Rows:
    return {part: rows_of(teachers[0], part) for part in (*PARTS, "train")}


@pytest.fixture(scope="module")
def folders(teachers: Teachers, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for every support, with both files."""
    made, gone = {}, numpy.isin(rows["train"].example_ids, rows["forgotten"].example_ids)
    for support, rule in RULES.items():
        made[support] = tmp_path_factory.mktemp(support)
        write_original(made[support], teachers[0], rows["train"], gone, rule, STAMPS["retained"], BENCH)
        write_forgotten(made[support], *teachers, rows["forgotten"], rule, STAMPS["forgotten"], BENCH)
    return made


@pytest.fixture(scope="module")
def caches(folders: dict[str, Path], rows: Rows) -> dict[str, TeacherCache]:
    return {support: opened(folder, rows, RULES[support]) for support, folder in folders.items()}


def opened(folder: Path, rows: Rows, rule: CacheRule, stamps: dict[Any, Stamp] = STAMPS) -> TeacherCache:
    return TeacherCache(folder, folder, {part: rows[part] for part in PARTS}, stamps, rule)


def direct(recommender: Recommender, rows: Prompts, index: numpy.ndarray) -> torch.Tensor:
    recommender.network.eval()
    with torch.inference_mode():
        return torch.cat([recommender.logits(rows.batch(numpy.array([place]))) for place in index])


def drawn(cache: TeacherCache, part: Any, number: int = 0, size: int = 6, seed: int = 1) -> list[draws.Part]:
    return list(cache.batches(part, size, seed, number))


def places(batches: list[draws.Part]) -> list[int]:
    return [int(place) for batch in batches for place in batch.index]


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("part", PARTS)
def test_what_is_read_is_what_the_teachers_say_of_the_row_itself(
    caches: dict[str, TeacherCache], teachers: Teachers, rows: Rows, part: str, support: str
) -> None:
    names = ("original", "augmented") if part == "forgotten" else ("original",)
    for batch in drawn(caches[support], part)[:4]:
        for teacher, name in zip(teachers, names, strict=False):
            logits = direct(teacher, rows[part], batch.index)
            if support == "full":
                expected = logits
            elif support == "answers":
                expected = logits[:, [teacher.answers.yes_id, teacher.answers.no_id]]
            else:
                expected = narrow(logits, batch.beside["support"], "logsumexp")
            assert torch.allclose(batch.beside[name], expected, atol=BATCHED)


@pytest.mark.parametrize("support", SUPPORTS)
def test_a_retained_row_has_no_augmented_outputs_and_only_a_cut_vocabulary_has_a_support(
    caches: dict[str, TeacherCache], support: str
) -> None:
    told = {part: set(drawn(caches[support], part)[0].beside) for part in PARTS}
    kept = set() if support == "full" else {"support"}
    assert told == {"forgotten": {"original", "augmented"} | kept, "retained": {"original"} | kept}


@pytest.mark.parametrize(("support", "width"), [("full", 320), ("top", 6), ("answers", 2)])
def test_the_width_is_the_vocabulary_or_the_support_and_its_remainder_or_the_two_answers(
    caches: dict[str, TeacherCache], teachers: Teachers, support: str, width: int
) -> None:
    assert support != "full" or teachers[0].network.config.vocab_size == width  # type: ignore[union-attr]
    assert drawn(caches[support], "forgotten")[0].beside["original"].shape[1] == width


def test_the_top_support_is_both_answers_and_then_the_originals_likeliest_words(
    caches: dict[str, TeacherCache], teachers: Teachers, rows: Rows
) -> None:
    answers = teachers[0].answers
    for batch in drawn(caches["top"], "forgotten")[:4]:
        for row, logits in zip(batch.beside["support"].tolist(), direct(teachers[0], rows["forgotten"], batch.index), strict=True):
            others = [token for token in logits.argsort(descending=True).tolist() if token not in (answers.yes_id, answers.no_id)]
            # top = 5: Yes, No and three more
            assert row == [answers.yes_id, answers.no_id, *others[:3]]


def test_probabilities_over_the_top_support_and_the_remainder_are_those_among_all_words(
    caches: dict[str, TeacherCache], teachers: Teachers, rows: Rows
) -> None:
    batch = drawn(caches["top"], "retained")[0]
    full = direct(teachers[0], rows["retained"], batch.index).softmax(1)
    assert torch.allclose(batch.beside["original"].softmax(1)[:, :-1], full.gather(1, batch.beside["support"]), atol=BATCHED)


@pytest.mark.parametrize("support", SUPPORTS)
def test_a_student_is_read_on_the_teachers_columns_and_its_answers_among_all_words(
    caches: dict[str, TeacherCache], teachers: Teachers, rows: Rows, support: str
) -> None:
    cache, student = caches[support], teachers[1]
    parts = {part: next(cache.batches(part, 5, 1, 0)) for part in PARTS}  # type: ignore[arg-type]
    piece = draws.Draw(parts).load()
    with torch.inference_mode():
        logits = cache.read(BENCH.reader(student), piece)
    full = torch.cat([direct(student, rows[part], parts[part].index) for part in PARTS])
    for part in PARTS:
        whole, outputs, beside = full[piece.rows[part]], logits[piece.rows[part]], piece.beside[part]
        expected = whole if support == "full" else narrow(whole, beside["support"], "none" if support == "answers" else "logsumexp")
        assert torch.allclose(cache.compared(outputs), expected, atol=BATCHED)
        assert cache.compared(outputs).shape == beside["original"].shape
        answers = student.answer_ids(piece.batch)[piece.rows[part]]
        column = cache.columns(beside, answers)
        # The answer's log-probability is that among all words, whatever was kept.
        among_all = whole.log_softmax(1).gather(1, answers[:, None])
        assert torch.allclose(outputs.log_softmax(1).gather(1, column[:, None]), among_all, atol=BATCHED)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("part", PARTS)
def test_every_cached_row_is_drawn_once_a_pass_and_another_pass_has_another_order(
    caches: dict[str, TeacherCache], folders: dict[str, Path], rows: Rows, part: Any, support: str
) -> None:
    cache = caches[support]
    orders = [places(drawn(cache, part, number)) for number in (0, 0, 1)]
    stored = set(pq.read_table(folders[support] / FILES[part])["example_id"].to_pylist()) & set(rows[part].example_ids.tolist())
    assert sorted(rows[part].example_ids[orders[0]].tolist()) == sorted(stored)
    assert sorted(orders[0]) == sorted(orders[2])
    assert orders[0] == orders[1] != orders[2]
    assert len(drawn(cache, part)) == cache.num_batches(part, 6)
    assert cache.num_rows(part) == len(stored)
    assert max(len(batch.index) for batch in drawn(cache, part)) <= 6


def test_retained_rows_are_never_those_to_forget_though_the_file_holds_some(
    caches: dict[str, TeacherCache], folders: dict[str, Path], rows: Rows
) -> None:
    gone = set(rows["forgotten"].example_ids.tolist())
    assert set(pq.read_table(folders["top"] / FILES["retained"])["example_id"].to_pylist()) & gone
    batches = drawn(caches["top"], "retained")
    assert set(rows["retained"].example_ids[places(batches)].tolist()) & gone == set()
    # What stands beside a row is still its own, though rows before it were passed over.
    assert all(len(batch.beside["original"]) == len(batch.index) == batch.total for batch in batches)


def test_passes_one_after_another_draw_every_cached_row_evenly(caches: dict[str, TeacherCache]) -> None:
    cache = caches["answers"]
    size = cache.num_batches("retained", 6)
    stream = list(itertools.islice(cache.endless("retained", 6, 1, 0), 3 * size))
    everyone = sorted(places(drawn(cache, "retained")))
    assert [sorted(places(stream[first : first + size])) for first in (0, size, 2 * size)] == [everyone] * 3
    assert places(stream[:size]) != places(stream[size : 2 * size])


@pytest.mark.parametrize("passes", [0, 1])
def test_passes_can_be_taken_up_from_any_batch(caches: dict[str, TeacherCache], passes: int) -> None:
    cache = caches["answers"]
    first = passes * cache.num_batches("retained", 6) + 3
    stream = list(itertools.islice(cache.endless("retained", 6, 1, 0), first + 4))
    later = list(itertools.islice(cache.endless("retained", 6, 1, first), 4))
    assert places(later) == places(stream[first:])


@pytest.mark.parametrize("part", PARTS)
def test_passes_take_the_row_groups_in_different_orders(caches: dict[str, TeacherCache], part: Any) -> None:
    # The first rows of a pass are one row group, and there are three or more of them: six passes that all begin alike are no accident.
    firsts = {frozenset(places(drawn(caches["answers"], part, number, size=16)[:1])) for number in range(6)}
    assert len(firsts) > 1


@pytest.mark.parametrize("part", PARTS)
def test_each_row_group_is_decoded_once_a_pass_and_no_more_than_one_lies_ahead(
    caches: dict[str, TeacherCache], folders: dict[str, Path], part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, decoded = caches["top"], []
    read = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, group: int, *rest: Any, **more: Any) -> Any:
        decoded.append(group)
        return read(file, group, *rest, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    num_groups = pq.ParquetFile(folders["top"] / FILES[part]).metadata.num_row_groups
    assert num_groups > 2
    seen: set[int] = set()
    for number, batch in enumerate(cache.batches(part, 16, 1, 0), 1):
        # Batches of 16 rows are whole groups, less what is forgotten.
        assert len(decoded) == number
        assert not seen & set(batch.index.tolist())
        seen |= set(batch.index.tolist())
    assert sorted(decoded) == list(range(num_groups))


@pytest.mark.parametrize(("part", "name"), [*itertools.product(PARTS, ["original", "tokenizer"]), ("forgotten", "augmented")])
def test_a_cache_of_another_model_or_tokenizer_is_refused(folders: dict[str, Path], rows: Rows, part: Any, name: str) -> None:
    stamps = {**STAMPS, part: dataclasses.replace(STAMPS[part], **{name: "f" * 64})}
    with pytest.raises(StaleCache, match=f"cache of {part} rows was made from another {name}") as refused:
        opened(folders["top"], rows, RULES["top"], stamps)
    assert refused.value.facts == {"cache has": getattr(STAMPS[part], name)[:12], "at hand": "f" * 12}
    assert "cache-teachers" in refused.value.hint


@pytest.mark.parametrize("part", PARTS)
def test_a_cache_of_other_rows_is_refused(folders: dict[str, Path], rows: Rows, part: Any) -> None:
    stamps = {**STAMPS, part: dataclasses.replace(STAMPS[part], rows="f" * 64)}
    with pytest.raises(StaleCache, match=f"cache of {part} rows was made from other rows"):
        opened(folders["top"], rows, RULES["top"], stamps)


def test_a_cache_of_another_rule_is_refused(folders: dict[str, Path], rows: Rows) -> None:
    with pytest.raises(StaleCache, match="made from another rule"):
        opened(folders["top"], rows, RULES["top"].model_copy(update={"top": 6}))


def test_a_cache_with_fewer_retained_rows_than_will_be_drawn_is_refused_with_both_numbers(folders: dict[str, Path], rows: Rows) -> None:
    more = RULES["answers"].model_copy(update={"retained_per_forgotten": 100})
    held = opened(folders["answers"], rows, RULES["answers"]).num_rows("retained")
    with pytest.raises(StaleCache, match=f"holds {held} of {len(rows['retained'])} retained rows"):
        opened(folders["answers"], rows, more)


def test_a_cache_with_fewer_forgotten_rows_than_the_request_is_refused_with_both_numbers(folders: dict[str, Path], rows: Rows) -> None:
    # 47 forgotten rows are cached; a request for all 244 training rows finds 47 of its own.
    with pytest.raises(StaleCache, match="holds 47 of 244 forgotten rows"):
        opened(folders["answers"], {**rows, "forgotten": rows["train"]}, RULES["answers"])
