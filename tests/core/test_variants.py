"""What changes the method and is offered as a setting: adapters above a frozen encoder, an augmented adapter, stopping on the objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from e2urec_core import stages
from e2urec_core.backbones.tiny_t5 import TinyT5
from e2urec_core.data.draws import States
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.data.prompts import PromptRule
from e2urec_core.engine import Bench
from e2urec_core.methods.base import Outcome, Problem
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.reader import AnswerReader
from e2urec_core.recommender import Recommender, load
from e2urec_core.settings import Augment, CacheRule, Lora, Training

SHORT = Training(num_epochs=2, batch_size=8, learning_rate=1e-2, schedule="constant", warmup_share=0)
DECODER = Lora(rank=4, layers="decoder", targets="all_linear", dropout=0)
RULE = CacheRule(rows_per_group=16, retained_per_forgotten=2)
SAME = 2e-5
"""Relative: states are cached from passes over other rows, whose sums are rounded otherwise."""
BF16 = 0.02
"""Absolute, of losses near 1: eight bits of mantissa."""


@pytest.fixture(scope="module")
def with_cache(
    tiny_problem: Problem,
    teachers: tuple[Recommender, Recommender],
    cache_teachers: Callable[..., TeacherCache],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Problem]:
    """The tiny problem with a cache of its own: `with_cache(bench, encoder_states=True)`."""

    def build(bench: Bench, **knobs: object) -> Problem:
        rule = RULE.model_copy(update=knobs)
        return dataclasses.replace(tiny_problem, teachers=cache_teachers(tmp_path_factory.mktemp("cache"), *teachers, rule, bench))

    return build


def unlearned(problem: Problem, bench: Bench, **knobs: object) -> Outcome:
    return E2URec.model_validate({"training": SHORT, "lora": DECODER, "suppression": 4, **knobs}).unlearn(problem, bench)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every run of an encoder."""
    rows, encode = [], AnswerReader.encode

    def counted(reader: AnswerReader, token_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows.append(len(token_ids))
        return encode(reader, token_ids, mask)

    monkeypatch.setattr(AnswerReader, "encode", counted)
    return rows


@pytest.mark.parametrize("support", ["top", "answers", "full"])
def test_cached_states_give_the_losses_of_an_encoder_that_is_run_and_it_is_not_run(
    with_cache: Callable[..., Problem], bench: Bench, encoded: list[int], support: str
) -> None:
    cached, plain = (with_cache(bench, encoder_states=kept, support=support) for kept in (True, False))
    encoded.clear()
    without = unlearned(cached, bench).fitted.curve
    assert encoded == []
    run = unlearned(plain, bench).fitted.curve
    assert sum(encoded) > 0
    assert len(without) == len(run) > 8
    assert [point.loss for point in without] == pytest.approx([point.loss for point in run], rel=SAME)
    assert max(point.loss for point in run) - min(point.loss for point in run) > 1000 * SAME


def test_cached_states_survive_being_cut_into_pieces(with_cache: Callable[..., Problem], bench: Bench) -> None:
    problem = with_cache(bench, encoder_states=True)
    whole = unlearned(problem, bench).fitted.curve
    cut = unlearned(problem, dataclasses.replace(bench, token_budget=128)).fitted.curve
    assert [point.loss for point in cut] == pytest.approx([point.loss for point in whole], rel=SAME)


def test_states_of_16_bits_take_half_the_room_and_lead_to_nearly_the_same_losses(with_cache: Callable[..., Problem], bench: Bench) -> None:
    half = dataclasses.replace(bench, precision="bf16")
    of_half, of_whole = (unlearned(with_cache(each, encoder_states=True), each).fitted.curve for each in (half, bench))
    assert [point.loss for point in of_half] == pytest.approx([point.loss for point in of_whole], abs=BF16)
    assert [point.loss for point in of_half] != [point.loss for point in of_whole]


def test_an_adapter_of_the_decoder_leaves_every_weight_of_the_encoder_as_it_was(with_cache: Callable[..., Problem], bench: Bench) -> None:
    problem = with_cache(bench, encoder_states=True)
    merged, before = unlearned(problem, bench).recommender.merged().network.state_dict(), problem.original.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], merged[name])}
    assert changed
    assert all(name.startswith("decoder.block") for name in changed)


@pytest.mark.parametrize("kind", ["tiny_t5", "tiny_bart"])
@pytest.mark.parametrize("targets", ["attention", "all_linear"])
def test_where_adapters_stand_is_what_the_settings_say(build_tiny: Callable[..., Recommender], kind: str, targets: str) -> None:
    def carriers(layers: str) -> set[str]:
        lora = Lora.model_validate({"rank": 2, "layers": layers, "targets": targets})
        network = build_tiny(kind).with_adapter(lora, 0).network
        return {name.split(".lora_A")[0] for name, _ in network.named_parameters() if ".lora_A." in name}

    everywhere, decoder = carriers("all"), carriers("decoder")
    assert decoder == {name for name in everywhere if ".decoder." in name}
    assert {".encoder." in name for name in everywhere} == {True, False}


def test_states_are_taken_and_padded_row_by_row() -> None:
    states = States(torch.arange(12.0).reshape(6, 2), numpy.array([0, 1, 4]), numpy.array([1, 3, 2]))
    padded = states.take(numpy.array([2, 0])).padded(3)
    assert padded.shape == (2, 3, 2)
    assert padded[0, :2].tolist() == [[8.0, 9.0], [10.0, 11.0]]
    assert padded[1, 0].tolist() == [0.0, 1.0]


def test_the_objective_is_judged_on_validation_rows_and_stops_the_training(with_cache: Callable[..., Problem], bench: Bench) -> None:
    problem = with_cache(bench)
    # A rate so high that the loss soon rises again.
    training = SHORT.model_copy(update={"num_epochs": 6, "learning_rate": 0.5, "check_every": 3, "patience": 2})
    fitted = unlearned(problem, bench, training=training, stop_on="objective").fitted
    size = problem.teachers.num_batches("forgotten", SHORT.batch_size) if problem.teachers else 0
    assert len(fitted.validation) - fitted.best_check == 2
    assert len(fitted.curve) == 3 * len(fitted.validation) < 6 * size
    answers = unlearned(problem, bench, training=training, stop_on="answers").fitted
    assert answers.validation[0] != fitted.validation[0]


def test_before_any_step_the_objective_is_the_forgetting_loss_and_the_answers_to_validation_rows(
    with_cache: Callable[..., Problem], bench: Bench
) -> None:
    problem = with_cache(bench)
    # A rate that moves nothing: the student is the original at the check.
    training = SHORT.model_copy(update={"num_epochs": 1, "learning_rate": 1e-12, "patience": 1})
    fitted = unlearned(problem, bench, training=training, stop_on="objective", forget_weight=0).fitted
    answers = unlearned(problem, bench, training=training, stop_on="answers").fitted
    # With no weight on forgetting, the objective of the original is its answers' loss: it is not yet away from itself.
    assert fitted.validation == pytest.approx(answers.validation, rel=SAME)


def test_an_augmented_model_can_be_an_adapter_that_is_merged(
    tiny_interactions: Path, tiny_folders: tuple[Path, Path], tmp_path: Path, bench: Bench
) -> None:
    examples, request = tiny_folders
    backbone = TinyT5(width=16, num_layers=1, num_decoder_layers=1, num_heads=2, inner_width=32, vocabulary=320)
    tokens, original, adapter, network = (tmp_path / name for name in ("tokens", "original", "adapter", "network"))
    for place in (tokens, original, adapter, network):
        place.mkdir()
    stages.tokenise(examples, tiny_interactions, PromptRule(), backbone, tokens)
    stages.train_original(tokens, backbone, Training(num_epochs=1), bench, original)
    for place, trains in ((adapter, "adapter"), (network, "network")):
        augment = Augment.model_validate({"num_epochs": 1, "learning_rate": 1e-2, "trains": trains, "lora": {"rank": 2}})
        stages.train_augmented(original, tokens, request, augment, bench, place)
    facts = {place: stages.facts(place) for place in (adapter, network)}
    assert facts[network]["trainable_parameters"] == facts[network]["total_parameters"] == facts[adapter]["total_parameters"]
    # Rank 2 on query and value (16 by 16) of three attentions: 3 * 2 * 2 * (16 + 16).
    assert facts[adapter]["trainable_parameters"] == 384
    before, after = (load(place).network.state_dict() for place in (original, adapter))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rsplit(".", 2)[1] for name in changed} == {"q", "v"}
