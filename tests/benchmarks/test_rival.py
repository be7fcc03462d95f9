"""The rival does what its description says: what it draws, what it runs, what it descends on, and what it leaves alone.

Tolerance `PADDED`: a row alone and the same row padded in a batch go through products of other shapes, so 32-bit logits of size 1 to
10 differ in their last digits.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pytest
import torch

from benchmarks import rival
from benchmarks.rival import RivalResult, Teachers, draws, examples, joint_loss, loss_parts, outputs, run_rival, sentence_end
from benchmarks.rows import Rows
from e2urec_core.recommender import Recommender, load

if TYPE_CHECKING:
    import polars

PADDED = 1e-4
KNOBS: dict[str, Any] = {"suppression": 4.0, "forget_weight": 0.6, "learning_rate": 1e-2, "num_epochs": 2, "batch_size": 8, "seed": 3}


def some(rows: Rows, count: int) -> Rows:
    return Rows(rows.example_ids[:count], rows.labels[:count], rows.texts[:count])


@pytest.fixture(scope="module")
def part(tiny_examples: polars.DataFrame) -> Callable[[str], Rows]:
    def rows(name: str) -> Rows:
        chosen = tiny_examples.filter(tiny_examples["part"] == name)
        return Rows(chosen["example_id"].to_numpy(), chosen["label"].to_numpy(), chosen["prompt"].to_list())

    return rows


@pytest.fixture(scope="module")
def forgotten(part: Callable[[str], Rows]) -> Rows:
    return part("forgotten")


@pytest.fixture(scope="module")
def retained(part: Callable[[str], Rows]) -> Rows:
    return part("retained")


def fitted(recommender: Recommender, rows: Rows, num_steps: int, learning_rate: float) -> Recommender:
    """A copy trained on all target positions of `rows`."""
    copy = recommender.trainable()
    optimiser, tail = torch.optim.AdamW(copy.network.parameters(), lr=learning_rate), sentence_end(recommender)
    for index, _ in itertools.islice(draws(len(rows), len(rows), 16, num_steps, 0), num_steps):
        batch = examples(copy, rows, index, tail, "cpu")
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(outputs(copy, batch), batch.target_ids.flatten()).backward()
        optimiser.step()
    copy.network.eval()
    return copy


@pytest.fixture(scope="module")
def folders(
    build_tiny: Callable[..., Recommender], forgotten: Rows, retained: Rows, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    original = fitted(build_tiny("tiny_t5"), retained, 30, 1e-2)
    augmented = fitted(original, forgotten, 10, 5e-3)
    places = tmp_path_factory.mktemp("original"), tmp_path_factory.mktemp("augmented")
    for recommender, place in zip((original, augmented), places, strict=True):
        recommender.save(place)
    return places


@pytest.fixture(scope="module")
def result(folders: tuple[Path, Path], forgotten: Rows, retained: Rows) -> RivalResult:
    return run_rival(*folders, forgotten, retained, **KNOBS)


def ids_of(index: range, rows: Rows, recommender: Recommender) -> rival.Examples:
    return examples(recommender, rows, numpy.array(index), sentence_end(recommender), "cpu")


def test_only_the_adapter_has_changed(folders: tuple[Path, Path], result: RivalResult) -> None:
    originals = dict(load(folders[0]).network.named_parameters())
    trained = []
    for name, weight in result.student.network.named_parameters():
        assert weight.requires_grad == ("lora_" in name)
        if "lora_" in name:
            trained.append(weight)
        else:
            assert torch.equal(weight, originals[name.removeprefix("base_model.model.").replace(".base_layer", "")]), name
    # The second factors start at 0, so they tell whether the adapter was trained.
    second = [weight for name, weight in result.student.network.named_parameters() if "lora_B" in name]
    assert second
    assert all(weight.abs().max() > 0 for weight in second)
    assert {min(weight.shape) for weight in trained} == {16}


def test_both_teachers_are_left_as_they_were(
    folders: tuple[Path, Path], forgotten: Rows, retained: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Recommender] = []

    def remembered(folder: Path, device: str) -> Recommender:
        loaded.append(load(folder, device))
        return loaded[-1]

    monkeypatch.setattr(rival, "load", remembered)
    files = [sorted((path.name, path.read_bytes()) for path in folder.iterdir()) for folder in folders]
    run_rival(*folders, forgotten, retained, **KNOBS, max_steps=2)
    assert files == [sorted((path.name, path.read_bytes()) for path in folder.iterdir()) for folder in folders]
    for teacher, folder in zip(loaded[:2], folders, strict=True):
        fresh = load(folder).network.state_dict()
        assert all(torch.equal(weight, fresh[name]) for name, weight in teacher.network.state_dict().items())
        assert not any(weight.requires_grad or weight.grad is not None for weight in teacher.network.parameters())
        assert not teacher.network.training


def test_the_student_comes_nearer_to_the_forgetting_teacher(folders: tuple[Path, Path], forgotten: Rows, retained: Rows) -> None:
    original, augmented = (load(folder) for folder in folders)
    done = run_rival(*folders, forgotten, retained, **{**KNOBS, "num_epochs": 8, "forget_weight": 1.0})
    there, beside = ids_of(range(len(forgotten)), forgotten, original), ids_of(range(16), retained, original)
    with torch.no_grad():
        before, after = (loss_parts(one, Teachers(original, augmented), there, beside, 4.0) for one in (original, done.student))
    assert before["remember"].item() == pytest.approx(0, abs=1e-6)
    assert after["forget"] < 0.7 * before["forget"]


def log_softmax(logits: numpy.ndarray) -> numpy.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True))


def divergence(teacher: numpy.ndarray, student: numpy.ndarray) -> float:
    return float((numpy.exp(log_softmax(teacher)) * (log_softmax(teacher) - log_softmax(student))).sum(axis=1).mean())


def alone(recommender: Recommender, rows: Rows) -> numpy.ndarray:
    """Logits of each row asked by itself, without padding or mask: (row * 3, vocab) in 64-bit floats."""
    answers, (stop, end) = recommender.answers, sentence_end(recommender)
    said = []
    for text, label in zip(rows.texts, rows.labels.tolist(), strict=True):
        answer = answers.yes_id if label else answers.no_id
        prompt, decoder = torch.tensor([recommender.tokenizer.encode(text).ids]), torch.tensor([[*answers.decoder_prefix, answer, stop]])
        assert end == 1
        with torch.no_grad():
            said.append(recommender.network(input_ids=prompt, decoder_input_ids=decoder, use_cache=False).logits[0].double().numpy())
    return numpy.concatenate(said)


def test_the_joint_loss_of_one_batch_is_the_formulas(
    folders: tuple[Path, Path], forgotten: Rows, retained: Rows, result: RivalResult
) -> None:
    original, augmented = (load(folder) for folder in folders)
    student, there, beside = result.student, some(forgotten, 5), some(retained, 7)
    lengths = {len(original.tokenizer.encode(text).ids) for text in there.texts + beside.texts}
    assert len(lengths) > 1, "without padding the mask would not be tried"
    with torch.no_grad():
        parts = loss_parts(
            student, Teachers(original, augmented), ids_of(range(5), there, original), ids_of(range(7), beside, original), 4.0
        )
    before, after = alone(original, there), alone(augmented, there)
    # The teacher: z_o - 4 * relu(z_aug - z_o).
    forget = divergence(before - 4 * numpy.maximum(after - before, 0), alone(student, there))
    targets = [
        token for label in beside.labels for token in ((original.answers.no_id, original.answers.yes_id)[label], *sentence_end(original))
    ]
    # Mean over 7 rows and 3 positions.
    answer = -log_softmax(alone(student, beside))[range(21), targets].mean()
    remember = divergence(alone(original, beside), alone(student, beside))
    assert {name: loss.item() for name, loss in parts.items()} == pytest.approx(
        {"forget": forget, "answer": answer, "remember": remember}, abs=PADDED
    )
    assert min(forget, answer, remember) > 10 * PADDED
    assert joint_loss(parts, 0.4).item() == pytest.approx((answer + remember) * 0.6 + forget * 0.4, abs=2 * PADDED)


def test_the_forget_weight_is_the_share_of_the_forgotten_rows() -> None:
    parts = {"answer": torch.tensor(1.0), "remember": torch.tensor(2.0), "forget": torch.tensor(10.0)}
    # (1 + 2) * 0.6 + 10 * 0.4 = 5.8
    assert joint_loss(parts, 0.4).item() == pytest.approx(5.8)
    assert joint_loss(parts, 1.0).item() == 10.0


@pytest.mark.parametrize(
    ("num_forgotten", "num_retained", "steps", "rows"),
    [
        # Batches of 4. Forgotten 4 + 4 + 2 beside retained 4 + 4 + 4: 3 steps, 22 rows a pass.
        (10, 23, 6, 44),
        # Retained rows end first: forgotten 4 + 4 beside retained 4 + 1: 2 steps, 13 rows a pass.
        (10, 5, 4, 26),
    ],
)
def test_rows_and_steps_are_those_of_the_shorter_side(
    folders: tuple[Path, Path], forgotten: Rows, retained: Rows, num_forgotten: int, num_retained: int, steps: int, rows: int
) -> None:
    done = run_rival(*folders, some(forgotten, num_forgotten), some(retained, num_retained), **{**KNOBS, "batch_size": 4})
    assert (done.steps, done.rows) == (steps, rows)
    assert len(done.losses) == steps


def test_no_row_is_drawn_twice_in_a_pass_and_each_pass_has_an_order_of_its_own() -> None:
    drawn = list(draws(10, 23, 4, 2, seed=0))
    for half in (drawn[:3], drawn[3:]):
        assert sorted(numpy.concatenate([there for there, _ in half]).tolist()) == list(range(10))
        beside = numpy.concatenate([beside for _, beside in half]).tolist()
        assert len(set(beside)) == len(beside) == 12
    assert not numpy.array_equal(drawn[0][0], drawn[3][0])
    assert not numpy.array_equal(drawn[0][0], next(draws(10, 23, 4, 2, seed=1))[0])


def test_every_step_asks_both_teachers_again_and_the_student_twice_on_retained_rows(
    folders: tuple[Path, Path], forgotten: Rows, retained: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, bool]] = []

    def counted(recommender: Recommender, batch: rival.Examples) -> torch.Tensor:
        given = outputs(recommender, batch)
        who = "student" if recommender.has_adapter else "teacher"
        asked.append((who, len(batch.token_ids), given.requires_grad))
        return given

    monkeypatch.setattr(rival, "outputs", counted)
    run_rival(*folders, some(forgotten, 5), some(retained, 40), **KNOBS, max_steps=1)
    # 5 forgotten and 8 retained rows: original on both, augmented on the forgotten ones; student once and twice.
    assert sorted(asked) == sorted(
        [
            ("teacher", 5, False),
            ("teacher", 5, False),
            ("teacher", 8, False),
            ("student", 5, True),
            ("student", 8, True),
            ("student", 8, True),
        ]
    )


def test_what_happens_after_a_step_is_told_the_student_and_costs_no_time_and_no_dropout(
    folders: tuple[Path, Path], forgotten: Rows, retained: Rows
) -> None:
    told: list[tuple[int, bool]] = []
    counted: list[float] = []

    def after(step: int, seconds: float, student: Recommender) -> bool:
        told.append((step, student.network.training))
        counted.append(seconds)
        student.network.eval()
        time.sleep(0.4)
        return True

    started = time.perf_counter()
    done = run_rival(*folders, forgotten, retained, **KNOBS, max_steps=2, after_step=after)
    assert told == [(1, True), (2, True)]
    assert 0 < counted[0] < counted[1] <= done.seconds <= time.perf_counter() - started - 0.8
    assert not done.student.network.training


def test_what_happens_after_a_step_may_end_the_loop(folders: tuple[Path, Path], forgotten: Rows, retained: Rows) -> None:
    done = run_rival(*folders, forgotten, retained, **KNOBS, after_step=lambda step, seconds, student: step < 2)
    assert done.steps == 2


def test_the_same_seed_gives_the_same_losses_and_another_seed_does_not(
    folders: tuple[Path, Path], forgotten: Rows, retained: Rows, result: RivalResult
) -> None:
    torch.rand(5)
    again, other = (run_rival(*folders, forgotten, retained, **{**KNOBS, "seed": seed}, max_steps=3) for seed in (3, 4))
    assert again.losses == result.losses[:3]
    assert other.losses != again.losses


@pytest.mark.parametrize("kind", ["tiny_t5", "tiny_bart"])
def test_the_targets_are_the_answer_the_full_stop_and_the_end(build_tiny: Callable[..., Recommender], retained: Rows, kind: str) -> None:
    recommender = build_tiny(kind)
    batch = ids_of(range(4), retained, recommender)
    words = [[recommender.tokenizer.id_to_token(token) for token in row] for row in batch.target_ids.tolist()]
    assert words == [["Yes" if label else "No", ".", "</s>"] for label in retained.labels[:4]]
    # Teacher forcing: before each target the decoder has seen the ones before it.
    assert batch.decoder_ids[:, -2:].tolist() == batch.target_ids[:, :2].tolist()
    assert outputs(recommender, batch).shape == (12, recommender.tokenizer.get_vocab_size())


@pytest.mark.parametrize("kind", ["tiny_t5", "tiny_bart"])
@pytest.mark.parametrize("tail", ["whole", "none"])
def test_the_first_position_is_where_a_recommender_reads_its_answer(
    build_tiny: Callable[..., Recommender], retained: Rows, kind: str, tail: str
) -> None:
    recommender = build_tiny(kind)
    recommender.network.eval()
    given = examples(recommender, retained, numpy.arange(6), sentence_end(recommender) if tail == "whole" else (), "cpu")
    with torch.no_grad():
        said = outputs(recommender, given).unflatten(0, (6, -1))[:, 0]
        read = recommender.logits(recommender.prompts(retained.example_ids, retained.labels, retained.texts).batch(numpy.arange(6)))
    assert said.numpy() == pytest.approx(read.numpy(), abs=PADDED)
