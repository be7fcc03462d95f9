"""What holds of every backbone, built at the smallest size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from transformers.pytorch_utils import Conv1D

from e2urec_core.backbones.base import Backbone, CheckpointBackbone
from e2urec_core.data.batches import Prompts
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.engine import Bench
from e2urec_core.methods.base import Problem
from e2urec_core.recommender import Recommender, load
from e2urec_core.settings import CacheRule, Lora, Training
from e2urec_core.training import fit_answers

PADDED = 1e-5
"""A padded row is summed in another order by 32-bit kernels."""
Build = Callable[..., Recommender]
RowsOf = Callable[[Recommender, str], Prompts]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(backbone_kind: str, build_tiny: Build) -> None:
    torch.rand(3)
    one, two, other = (build_tiny(backbone_kind, seed=seed) for seed in (1, 1, 2))
    weights = [recommender.network.state_dict() for recommender in (one, two, other)]
    assert [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])] == []
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_its_tokenizer_is_the_same_however_often_and_from_whatever_it_reads_the_prompts(
    backbone_kind: str, small_backbone: Callable[..., Backbone]
) -> None:
    backbone = small_backbone(backbone_kind)
    texts = [f"Silent Saddle {number} (5*), Golden Vault {number % 7} (2*)." for number in range(50)]
    first = backbone.tokenizer(texts).to_str()
    assert backbone.tokenizer(iter(texts)).to_str() == first
    # A checkpoint brings its own, whatever the prompts are.
    assert (backbone.tokenizer(texts[:5] * 3).to_str() == first) == isinstance(backbone, CheckpointBackbone)


def test_it_builds_on_the_tokenizer_it_is_given_and_leaves_it_as_it_was(
    backbone_kind: str, build_tiny: Build, small_backbone: Callable[..., Backbone]
) -> None:
    given = build_tiny(backbone_kind).tokenizer
    before = given.to_str()
    backbone = small_backbone(backbone_kind)
    recommender = backbone.build(given, 1)
    assert recommender.tokenizer.to_str() == given.to_str() == before
    size = recommender.network.config.vocab_size  # type: ignore[union-attr]
    # A checkpoint may have more embeddings than its tokenizer has entries.
    assert size >= given.get_vocab_size() if isinstance(backbone, CheckpointBackbone) else size == given.get_vocab_size()


def test_both_answers_are_different_known_tokens_within_the_vocabulary(backbone_kind: str, build_tiny: Build) -> None:
    recommender = build_tiny(backbone_kind)
    size = recommender.network.config.vocab_size  # type: ignore[union-attr]
    assert recommender.answers.yes_id != recommender.answers.no_id
    assert min(recommender.answers.yes_id, recommender.answers.no_id) >= 0
    assert max(recommender.answers.yes_id, recommender.answers.no_id) < size
    assert recommender.tokenizer.id_to_token(recommender.answers.yes_id).strip("▁Ġ ") == "Yes"
    assert recommender.tokenizer.id_to_token(recommender.answers.no_id).strip("▁Ġ ") == "No"


def test_it_scores_alone_and_in_a_batch_alike(backbone_kind: str, build_tiny: Build, rows_of: RowsOf) -> None:
    recommender = build_tiny(backbone_kind)
    with torch.no_grad():
        for weight in recommender.network.parameters():
            if weight.dim() > 1:
                weight.mul_(0.2 / max(1e-3, weight.std().item()))
    rows = rows_of(recommender, "forgotten")
    alone = recommender.score(rows, token_budget=1)
    assert numpy.ptp(alone) > 10 * PADDED, "answers must depend on the prompt"
    assert recommender.score(rows, token_budget=16 * int(rows.lengths.max())) == pytest.approx(alone, abs=PADDED)


def test_attention_targets_are_some_and_linear_targets_are_all_linear_layers_but_the_output(backbone_kind: str, build_tiny: Build) -> None:
    recommender = build_tiny(backbone_kind)
    layers = (torch.nn.Linear, Conv1D)
    linear = {name.rsplit(".", 1)[-1] for name, module in recommender.network.named_modules() if isinstance(module, layers)}
    assert set(recommender.answers.linear_targets) == linear - {"lm_head"}
    assert set(recommender.answers.attention_targets) < set(recommender.answers.linear_targets)
    for targets in ("attention", "all_linear"):
        student = recommender.with_adapter(Lora(rank=2, targets=targets), seed=0)
        assert [name for name, _ in student.network.named_modules() if "lm_head" in name and "lora" in name] == []
        assert student.count()["trainable_parameters"] > 0


def test_it_learns_saves_and_answers_alike_when_loaded(
    backbone_kind: str, build_tiny: Build, rows_of: RowsOf, bench: Bench, tmp_path: Path
) -> None:
    recommender = build_tiny(backbone_kind)
    rows = rows_of(recommender, "retained")
    training = Training(num_epochs=2, batch_size=32, learning_rate=1e-2)
    curve = fit_answers(recommender, rows, rows, training, bench, purpose="original").curve
    assert curve[-1].loss < 0.8 * curve[0].loss
    recommender.save(tmp_path)
    back = load(tmp_path)
    assert numpy.array_equal(back.score(rows), recommender.score(rows))
    assert back.prompts(numpy.array([0]), numpy.array([0]), ["Golden Vault (5*)"]).flat.tolist() == (
        recommender.prompts(numpy.array([0]), numpy.array([0]), ["Golden Vault (5*)"]).flat.tolist()
    )


def test_it_can_be_unlearned_from(
    backbone_kind: str, build_tiny: Build, rows_of: RowsOf, cache_teachers: Callable[..., TeacherCache], bench: Bench, tmp_path: Path
) -> None:
    from e2urec_core.methods.e2urec import E2URec

    original, augmented = build_tiny(backbone_kind), build_tiny(backbone_kind, seed=1)
    retained, forgotten, validation = (rows_of(original, part) for part in ("retained", "forgotten", "validation"))
    teachers = cache_teachers(tmp_path, original, augmented, CacheRule(retained_per_forgotten=1), bench)
    method = E2URec(training=Training(num_epochs=1, batch_size=16, learning_rate=1e-2), lora=Lora(rank=2, targets="all_linear"))
    outcome = method.unlearn(Problem(original, retained, forgotten, validation, teachers), bench)
    before = original.score(forgotten)
    assert not numpy.array_equal(outcome.recommender.score(forgotten), before)
    assert outcome.recommender.merged().score(forgotten) == pytest.approx(outcome.recommender.score(forgotten), abs=1e-5)
