"""The teacher cache: what is written is what the teachers say, read once a pass, refused when it is another's.

Tolerance `BATCHED`: the cache scores rows in other batches than a direct forward does, so 32-bit sums run in another order.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet as pq
import pytest
import torch

from data_contracts.expectations import violations
from data_contracts.teacher_logits import cache_bytes, teacher_logits
from e2urec_core.data.batches import Prompts
from e2urec_core.data.logit_cache import PARTS, CacheRule, Stamp, TeacherCache, TeacherRows, planned_rows, write_cache
from e2urec_core.errors import StaleCache
from e2urec_core.methods.base import Problem
from e2urec_core.ops.answers import narrow
from e2urec_core.recommender import Recommender

BATCHED = 2e-5
STAMP = Stamp("a" * 64, "b" * 64, "c" * 64)
RULES = [
    CacheRule(support="full", rows_per_group=16),
    CacheRule(support="top", top=5, rows_per_group=16),
    CacheRule(support="answers", rows_per_group=16),
]
SUPPORTS = [rule.support for rule in RULES]
Rows = dict[Any, Prompts]


@pytest.fixture(scope="module")
def teachers(tiny_problem: Problem) -> tuple[Recommender, Recommender]:
    """The original, and another network in place of the augmented one."""
    augmented = tiny_problem.original.trainable()
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in augmented.network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=random))
    augmented.network.eval()
    return tiny_problem.original, augmented


@pytest.fixture(scope="module")
def rows(tiny_problem: Problem) -> Rows:
    return {"forgotten": tiny_problem.forgotten, "retained": tiny_problem.retained}


@pytest.fixture(scope="module")
def caches(teachers: tuple[Recommender, Recommender], rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for every support."""
    folders = {}
    for rule in RULES:
        folders[rule.support] = tmp_path_factory.mktemp(rule.support)
        write_cache(folders[rule.support], *teachers, rows, rule, STAMP, seed=1)
    return folders


def direct(recommender: Recommender, rows: Prompts, index: numpy.ndarray) -> torch.Tensor:
    recommender.network.eval()
    with torch.inference_mode():
        return torch.cat([recommender.logits(rows.batch(numpy.array([place]))) for place in index])


def drawn(cache: TeacherCache, part: Any, number: int = 0, size: int = 6, seed: int = 1) -> list[TeacherRows]:
    return list(cache.batches(part, size, seed, number))


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("part", PARTS)
def test_what_is_read_is_what_the_teachers_say_of_the_row_itself(
    caches: dict[str, Path], teachers: tuple[Recommender, Recommender], rows: Rows, part: Any, support: str
) -> None:
    cache = TeacherCache(caches[support], STAMP, rows)
    for batch in drawn(cache, part)[:4]:
        for teacher, outputs in zip(teachers, (batch.original, batch.augmented), strict=True):
            if outputs is None:
                assert part == "retained"
                continue
            logits = direct(teacher, rows[part], batch.index)
            if support == "full":
                expected = logits
            elif support == "answers":
                expected = logits[:, [teacher.answers.yes_id, teacher.answers.no_id]]
            else:
                expected = narrow(logits, batch.support, "logsumexp")
            assert torch.allclose(outputs, expected, atol=BATCHED)
            assert torch.allclose(outputs, batch.kept(logits, cache.rule), atol=BATCHED)


def test_the_top_support_is_both_answers_and_then_the_originals_likeliest_words(
    caches: dict[str, Path], teachers: tuple[Recommender, Recommender], rows: Rows
) -> None:
    cache, answers = TeacherCache(caches["top"], STAMP, rows), teachers[0].answers
    for batch in drawn(cache, "forgotten")[:4]:
        for row, logits in zip(batch.support.tolist(), direct(teachers[0], rows["forgotten"], batch.index), strict=True):
            others = [token for token in logits.argsort(descending=True).tolist() if token not in (answers.yes_id, answers.no_id)]
            # top = 5: Yes, No and three more
            assert row == [answers.yes_id, answers.no_id, *others[:3]]


def test_probabilities_over_the_top_support_and_the_remainder_are_those_among_all_words(
    caches: dict[str, Path], teachers: tuple[Recommender, Recommender], rows: Rows
) -> None:
    batch = drawn(TeacherCache(caches["top"], STAMP, rows), "retained")[0]
    full = direct(teachers[0], rows["retained"], batch.index).softmax(1)
    assert torch.allclose(batch.original.softmax(1)[:, :-1], full.gather(1, batch.support), atol=BATCHED)


@pytest.mark.parametrize(("support", "width"), [("full", 320), ("top", 6), ("answers", 2)])
def test_the_width_is_the_vocabulary_or_the_support_and_its_remainder_or_the_two_answers(
    caches: dict[str, Path], rows: Rows, teachers: tuple[Recommender, Recommender], support: str, width: int
) -> None:
    assert support != "full" or teachers[0].network.config.vocab_size == width  # type: ignore[union-attr]
    assert drawn(TeacherCache(caches[support], STAMP, rows), "forgotten")[0].original.shape[1] == width


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("part", PARTS)
def test_every_cached_row_is_drawn_once_a_pass_and_another_pass_has_another_order(
    caches: dict[str, Path], rows: Rows, part: Any, support: str
) -> None:
    cache = TeacherCache(caches[support], STAMP, rows)
    planned = planned_rows(len(rows["retained"]), len(rows["forgotten"]), cache.rule, seed=1)[part]
    orders = [numpy.concatenate([batch.index for batch in drawn(cache, part, number)]).tolist() for number in (0, 0, 1)]
    assert sorted(orders[0]) == sorted(planned.tolist())
    assert orders[0] == orders[1] != orders[2]
    assert len(drawn(cache, part)) == cache.num_batches(part, 6)
    assert cache.num_rows(part) == len(planned)
    assert max(len(batch.index) for batch in drawn(cache, part)) <= 6


@pytest.mark.parametrize("part", PARTS)
def test_passes_take_the_row_groups_in_different_orders(caches: dict[str, Path], rows: Rows, part: Any) -> None:
    cache = TeacherCache(caches["answers"], STAMP, rows)
    # The first 16 rows of a pass are one row group, and there are three or more of them: six passes that all begin alike are no accident.
    firsts = {
        frozenset(numpy.concatenate([batch.index for batch in drawn(cache, part, number, size=16)[:1]]).tolist()) for number in range(6)
    }
    assert len(firsts) > 1


@pytest.mark.parametrize("part", PARTS)
def test_each_row_group_is_decoded_once_a_pass_and_no_more_than_one_lies_ahead(
    caches: dict[str, Path], rows: Rows, part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, decoded = TeacherCache(caches["top"], STAMP, rows), []
    read = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, group: int, *args: Any, **kwargs: Any) -> Any:
        decoded.append(group)
        return read(file, group, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    num_groups = pq.ParquetFile(caches["top"] / f"{part}.parquet").metadata.num_row_groups
    assert num_groups > 2
    seen = 0
    for batch in cache.batches(part, 6, 1, 0):
        seen += len(batch.index)
        # Groups of 16 rows: with r rows seen, no more than ceil(r / 16) groups may have been decoded, one more where a short one came.
        assert len(decoded) <= -(-seen // 16) + 1
    assert sorted(decoded) == list(range(num_groups))


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("part", PARTS)
def test_no_row_group_is_larger_than_asked(caches: dict[str, Path], part: Any, support: str) -> None:
    meta = pq.ParquetFile(caches[support] / f"{part}.parquet").metadata
    sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
    assert max(sizes) == 16
    # All but the last are full.
    assert sizes[:-1] == [16] * (len(sizes) - 1)


def test_no_more_rows_than_a_row_group_are_scored_before_they_are_written(
    teachers: tuple[Recommender, Recommender], rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[int] = []
    write = pq.ParquetWriter.write_table

    def noted(writer: pq.ParquetWriter, table: Any, *args: Any, **kwargs: Any) -> None:
        events.append(-table.num_rows)
        write(writer, table, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", noted)
    rule = CacheRule(support="answers", rows_per_group=16, retained_per_forgotten=1)
    written = write_cache(tmp_path, *teachers, rows, rule, STAMP, seed=1, each=events.append)
    waiting = numpy.cumsum(events)
    assert waiting.max() == 16
    assert waiting[-1] == 0
    assert written == -sum(event for event in events if event < 0) == 2 * len(rows["forgotten"])


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("part", PARTS)
def test_a_cache_keeps_its_contract(caches: dict[str, Path], part: Any, support: str) -> None:
    table = pq.read_table(caches[support] / f"{part}.parquet")
    width = table.schema.field("original").type.list_size
    num_ids = table.schema.field("support").type.list_size if "support" in table.column_names else None
    assert violations(teacher_logits(width, num_ids, part), table) == []
    assert table.column_names == list(teacher_logits(width, num_ids, part).column_names)


def test_retained_rows_carry_no_augmented_outputs(caches: dict[str, Path], rows: Rows) -> None:
    for support in SUPPORTS:
        assert "augmented" not in pq.read_schema(caches[support] / "retained.parquet").names
        assert "augmented" in pq.read_schema(caches[support] / "forgotten.parquet").names
        assert drawn(TeacherCache(caches[support], STAMP, rows), "retained")[0].augmented is None


def test_a_cache_names_examples_and_labels_but_no_user(caches: dict[str, Path], rows: Rows) -> None:
    for part in PARTS:
        table = pq.read_table(caches["answers"] / f"{part}.parquet").to_pydict()
        labels = dict(zip(rows[part].example_ids.tolist(), rows[part].labels.tolist(), strict=True))
        assert dict(zip(table["example_id"], table["label"], strict=True)).items() <= labels.items()
        assert not [name for name in table if "user" in name or "prompt" in name]


def test_the_file_is_about_as_large_as_its_formula_says(caches: dict[str, Path], rows: Rows) -> None:
    num_forgotten, num_retained = (pq.read_metadata(caches["full"] / f"{part}.parquet").num_rows for part in PARTS)
    size = sum((caches["full"] / f"{part}.parquet").stat().st_size for part in PARTS)
    formula = cache_bytes(num_forgotten, num_retained, 320, None)
    # Compression takes a tenth at most off floats that look random; 15 row groups add some 2 KB each for footers and page headers.
    assert 0.8 * formula < size < formula + 30_000


def test_the_plan_takes_every_forgotten_row_and_some_retained_rows_for_each() -> None:
    plan = planned_rows(100, 10, CacheRule(retained_per_forgotten=2.5), seed=0)
    assert sorted(plan["forgotten"].tolist()) == list(range(10))
    # 10 * 2.5 = 25 of 100 retained rows, none twice
    assert len(plan["retained"]) == len(set(plan["retained"].tolist())) == 25
    assert plan["forgotten"].tolist() != list(range(10)), "written in a random order"
    assert not numpy.array_equal(planned_rows(100, 10, CacheRule(retained_per_forgotten=2.5), seed=1)["retained"], plan["retained"])


def test_the_plan_takes_no_more_retained_rows_than_there_are() -> None:
    assert sorted(planned_rows(7, 10, CacheRule(), seed=0)["retained"].tolist()) == list(range(7))


def test_the_plan_takes_a_retained_row_however_small_the_share() -> None:
    # round(.1 * 3) = 0 rows would leave the remembering loss without any, and its endless draw without an end.
    assert len(planned_rows(100, 3, CacheRule(retained_per_forgotten=0.1), seed=0)["retained"]) >= 1


@pytest.mark.parametrize("name", ["original", "augmented", "tokenizer"])
def test_a_cache_of_another_model_or_tokenizer_is_refused(caches: dict[str, Path], rows: Rows, name: str) -> None:
    with pytest.raises(StaleCache, match=f"made with another {name}") as refused:
        TeacherCache(caches["top"], dataclasses.replace(STAMP, **{name: "d" * 64}), rows)
    assert refused.value.facts == {"cache has": getattr(STAMP, name)[:12], "at hand": "d" * 12}
    assert "cache-teachers" in refused.value.hint


def without(rows: Prompts, count: int) -> Prompts:
    """The same prompts without the last `count`."""
    keep = len(rows) - count
    return Prompts(rows.example_ids[:keep], rows.labels[:keep], rows.flat[: rows.starts[keep]], rows.starts[: keep + 1])


@pytest.mark.parametrize("part", PARTS)
def test_a_cache_of_another_number_of_rows_is_refused(caches: dict[str, Path], rows: Rows, part: Any) -> None:
    # The retained rows are drawn by the number of forgotten ones: so few that fewer are planned than were cached.
    count = 1 if part == "forgotten" else len(rows["retained"]) - 20
    with pytest.raises(StaleCache, match="rows, but the request has"):
        TeacherCache(caches["top"], STAMP, {**rows, part: without(rows[part], count)})


@pytest.mark.parametrize("part", PARTS)
def test_a_cache_of_as_many_but_other_rows_is_refused(caches: dict[str, Path], rows: Rows, part: Any) -> None:
    others = {**rows, part: dataclasses.replace(rows[part], example_ids=rows[part].example_ids + 1_000_000)}
    with pytest.raises(StaleCache):
        drawn(TeacherCache(caches["top"], STAMP, others), part)


def test_a_stamp_changes_with_the_weights_of_either_model_and_with_the_tokenizer(tiny_problem: Problem, tmp_path: Path) -> None:
    for name in ("original", "augmented"):
        (tmp_path / name).mkdir()
        tiny_problem.original.save(tmp_path / name)
    first = Stamp.of(tmp_path / "original", tmp_path / "augmented")
    assert first == Stamp.of(tmp_path / "original", tmp_path / "augmented")
    for file, name in (
        ("original/model.safetensors", "original"),
        ("augmented/model.safetensors", "augmented"),
        ("original/tokenizer.json", "tokenizer"),
    ):
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(whole + b" ")
        changed = Stamp.of(tmp_path / "original", tmp_path / "augmented")
        assert [field for field in ("original", "augmented", "tokenizer") if getattr(changed, field) != getattr(first, field)] == [name]
        (tmp_path / file).write_bytes(whole)


def test_the_same_teachers_and_seed_give_the_same_bytes(
    teachers: tuple[Recommender, Recommender], rows: Rows, caches: dict[str, Path], tmp_path: Path
) -> None:
    write_cache(tmp_path, *teachers, rows, RULES[1], STAMP, seed=1)
    for part in PARTS:
        assert (tmp_path / f"{part}.parquet").read_bytes() == (caches["top"] / f"{part}.parquet").read_bytes()


def test_writing_and_reading_leave_the_teachers_and_the_rows_as_they_were(
    teachers: tuple[Recommender, Recommender], rows: Rows, tmp_path: Path
) -> None:
    before = [weight.clone() for teacher in teachers for weight in teacher.network.parameters()]
    flat = {part: rows[part].flat.copy() for part in PARTS}
    write_cache(tmp_path, *teachers, rows, RULES[2], STAMP, seed=1)
    drawn(TeacherCache(tmp_path, STAMP, rows), "forgotten")
    assert all(
        torch.equal(*pair) for pair in zip(before, (weight for teacher in teachers for weight in teacher.network.parameters()), strict=True)
    )
    assert all(numpy.array_equal(flat[part], rows[part].flat) for part in PARTS)


@pytest.mark.parametrize("top", [320, 4096])
def test_a_support_as_large_as_the_vocabulary_keeps_the_contract_and_a_finite_divergence(
    teachers: tuple[Recommender, Recommender], rows: Rows, tmp_path: Path, top: int
) -> None:
    rule = CacheRule(support="top", top=top, rows_per_group=64, retained_per_forgotten=1)
    write_cache(tmp_path, *teachers, rows, rule, STAMP, seed=1)
    cache = TeacherCache(tmp_path, STAMP, rows)
    batch = drawn(cache, "forgotten")[0]
    assert bool(torch.isfinite(batch.original).all())
    assert bool(torch.isfinite(batch.kept(direct(teachers[1], rows["forgotten"], batch.index), cache.rule)).all())
