"""An ensemble is used like any recommender: it answers, is saved and loaded to the bit, and holds what is shared once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from transformers.pytorch_utils import Conv1D

from e2urec_core.data.batches import Batch, Prompts
from e2urec_core.engine import Bench
from e2urec_core.ensemble import AdaptedNetwork, Aggregation, Ensemble, MemberNetworks, gated, of_members
from e2urec_core.ops.answers import narrow
from e2urec_core.recommender import Recommender, load
from e2urec_core.scoring import yes_probabilities
from e2urec_core.settings import Lora
from tests.small_ensembles import adapted, whole

FAMILIES = ["tiny_t5", "tiny_bart", "causal_lm:gpt2", "causal_lm:llama"]
MERGED = 2e-5
"""Weights are rounded once more in 32 bits when an adapter is folded in."""

Build = Callable[..., Recommender]
Rows = Callable[[Recommender, str], Prompts]


@pytest.fixture(params=["logits", "probabilities", "gate", "adapters"])
def ensemble(request: pytest.FixtureRequest, build_tiny: Build, rows_of: Rows, bench: Bench) -> Ensemble:
    if request.param == "adapters":
        return adapted(build_tiny, rows_of(build_tiny("tiny_t5"), "validation"), bench)
    return whole(build_tiny, request.param)


def first_rows(rows: Prompts, number: int = 6) -> Batch:
    return rows.batch(numpy.arange(number))


def test_what_is_saved_and_loaded_answers_to_the_bit(ensemble: Ensemble, rows_of: Rows, bench: Bench, tmp_path: Path) -> None:
    rows = rows_of(ensemble, "forgotten")
    ensemble.save(tmp_path)
    back = load(tmp_path)
    assert isinstance(back, Ensemble)
    assert back.combining == ensemble.combining
    assert numpy.array_equal(back.score(rows), ensemble.score(rows))
    assert numpy.array_equal(yes_probabilities(back, rows, bench), yes_probabilities(ensemble, rows, bench))
    assert back.count()["total_parameters"] == ensemble.count()["total_parameters"]


def test_both_ways_to_score_agree_and_a_copy_is_an_ensemble(ensemble: Ensemble, rows_of: Rows, bench: Bench) -> None:
    rows = rows_of(ensemble, "forgotten")
    assert yes_probabilities(ensemble, rows, bench) == pytest.approx(ensemble.score(rows), abs=1e-6)
    assert ensemble.merged() is ensemble
    assert numpy.array_equal(ensemble.trainable().score(rows), ensemble.score(rows))


def test_the_words_that_are_asked_for_are_those_of_all_words(ensemble: Ensemble, rows_of: Rows) -> None:
    batch, reader = first_rows(rows_of(ensemble, "forgotten")), ensemble.reader()
    support = torch.tensor([[5, 0, 17]]).expand(6, 3)
    with torch.inference_mode():
        full = reader(batch.token_ids, batch.mask)
        for remainder in ("none", "logsumexp"):
            assert torch.allclose(reader(batch.token_ids, batch.mask, support, remainder), narrow(full, support, remainder), atol=1e-5)


def test_a_batchs_other_rows_do_not_change_an_answer(ensemble: Ensemble, rows_of: Rows) -> None:
    rows = rows_of(ensemble, "forgotten")
    alone = numpy.concatenate([ensemble.score(rows.select(numpy.array([at]))) for at in range(6)])
    assert alone == pytest.approx(ensemble.score(rows)[:6], abs=1e-5)


def test_whole_networks_meet_as_they_are_told(build_tiny: Build, rows_of: Rows) -> None:
    members = [build_tiny("tiny_t5", seed) for seed in (1, 2, 3)]
    batch = first_rows(rows_of(members[0], "forgotten"))
    with torch.inference_mode():
        logits = torch.stack([member.logits(batch) for member in members])
        assert torch.allclose(of_members(members, "logits").logits(batch), logits.mean(dim=0), atol=1e-6)
        assert torch.allclose(of_members(members, "probabilities").logits(batch).exp(), logits.softmax(dim=2).mean(dim=0), atol=1e-6)
        # A gate that hears nothing but its offsets: 2 : 1 : 1.
        gate = gated(of_members(members, "logits"), torch.zeros(3, 16), torch.tensor([2.0, 1.0, 1.0]).log())
        assert torch.allclose(gate.logits(batch), logits[0] / 2 + logits[1] / 4 + logits[2] / 4, atol=1e-6)


def by_hand(ensemble: Ensemble, weights: torch.Tensor) -> Recommender:
    """The base with one row's aggregated adapter folded into its weights."""
    network = ensemble.network
    assert isinstance(network, AdaptedNetwork)
    merged = copy.deepcopy(network.base)
    for place, adapter in zip(ensemble.combining.places, network.adapters, strict=True):
        layer, downs, ups = merged.get_submodule(place), [*adapter.down], [*adapter.up]  # type: ignore[arg-type]
        if ensemble.combining.aggregation == "nondecomposed":
            matrix = sum(weight * up @ down for weight, up, down in zip(weights, ups, downs, strict=True))
        else:
            matrix = sum(w * up for w, up in zip(weights, ups, strict=True)) @ sum(w * down for w, down in zip(weights, downs, strict=True))
        matrix = ensemble.combining.scale * matrix
        layer.weight += matrix.T if isinstance(layer, Conv1D) else matrix  # type: ignore[union-attr,operator]
    return Recommender(merged, ensemble.tokenizer, ensemble.answers)


@pytest.mark.parametrize("aggregation", ["nondecomposed", "decomposed"])
@pytest.mark.parametrize("variant", FAMILIES)
def test_one_stacked_pass_is_merging_by_hand_row_by_row(
    build_tiny: Build, rows_of: Rows, bench: Bench, variant: str, aggregation: Aggregation
) -> None:
    rows = rows_of(build_tiny(variant, 1), "validation")
    ensemble = adapted(build_tiny, rows, bench, variant, aggregation)
    batch, reader = first_rows(rows_of(ensemble, "forgotten")), ensemble.reader()
    with torch.inference_mode():
        together = reader(batch.token_ids, batch.mask)
        weights = reader.weights(reader.state(batch.token_ids, batch.mask))  # type: ignore[operator]
        assert weights.std(dim=0).max() > 0.02, "rows must differ in their weights"
        plain = Recommender(ensemble.network.base, ensemble.tokenizer, ensemble.answers).logits(batch)  # type: ignore[arg-type]
        for row, mine in enumerate(weights):
            expected = by_hand(ensemble, mine).logits(batch)[row]
            assert torch.allclose(together[row], expected, atol=MERGED * expected.abs().max().item())
            assert not torch.allclose(plain[row], expected, atol=0.01)


def test_an_adapter_that_weighs_alone_is_that_adapter(build_tiny: Build, rows_of: Rows, bench: Bench) -> None:
    base, lora = build_tiny("tiny_t5", 1), Lora(rank=2, alpha=6, targets="all_linear")
    ensemble = adapted(build_tiny, rows_of(base, "validation"), bench)
    batch = first_rows(rows_of(base, "forgotten"))
    student = base.with_adapter(lora, 2)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in student.network.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=random))
    student.network.eval()
    with torch.inference_mode():
        only = ensemble.reader().under(torch.eye(3)[1].expand(6, 3), batch.token_ids, batch.mask)  # type: ignore[operator]
        assert torch.allclose(only, student.logits(batch), atol=1e-5)


def test_shared_weights_are_written_once(build_tiny: Build, rows_of: Rows, bench: Bench, tmp_path: Path) -> None:
    ensemble = adapted(build_tiny, rows_of(build_tiny("tiny_t5"), "validation"), bench)
    ensemble.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "combiner.safetensors", "ensemble.json"]
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("model.safetensors")] == ["base/model.safetensors"]
    (tmp_path / "members").mkdir()
    whole(build_tiny, "logits").save(tmp_path / "members")
    assert sorted(path.name for path in (tmp_path / "members").iterdir() if path.is_dir()) == ["member-0", "member-1", "member-2"]


def test_only_what_was_trained_again_counts_as_trained(build_tiny: Build, rows_of: Rows, bench: Bench) -> None:
    ensemble = adapted(build_tiny, rows_of(build_tiny("tiny_t5"), "validation"), bench, targets="attention")
    # Query and value of 3 attentions of width 16 at rank 2: 6 layers of 2 * (16 + 16), in 2 of 3 adapters.
    assert ensemble.count()["trainable_parameters"] == 6 * 2 * (16 + 16) * 2
    assert isinstance(ensemble.network, AdaptedNetwork)
    assert len(ensemble.combining.places) == 6


def test_no_hook_is_left_behind(build_tiny: Build, rows_of: Rows, bench: Bench) -> None:
    ensemble = adapted(build_tiny, rows_of(build_tiny("tiny_t5"), "validation"), bench)
    batch = first_rows(rows_of(ensemble, "forgotten"))
    with pytest.raises(IndexError):
        ensemble.reader()(batch.token_ids, batch.mask, torch.full((6, 1), 99_999))
    ensemble.score(rows_of(ensemble, "forgotten"))
    assert not any(module._forward_hooks for module in ensemble.network.modules())


def test_a_hidden_state_says_what_the_logits_say(build_tiny: Build, rows_of: Rows, bench: Bench) -> None:
    for variant in FAMILIES:
        recommender = build_tiny(variant, 1)
        batch, reader = first_rows(rows_of(recommender, "forgotten")), recommender.reader()
        recommender.network.eval()
        with torch.inference_mode():
            states = bench.reader(recommender).state(batch)
            assert states.shape == (6, 16)
            assert torch.equal(reader.said(states), reader(batch.token_ids, batch.mask))


def test_members_are_the_networks_that_were_given(build_tiny: Build) -> None:
    ensemble = whole(build_tiny, "logits")
    assert isinstance(ensemble.network, MemberNetworks)
    assert not ensemble.has_adapter
    assert ensemble.count()["total_parameters"] == 3 * build_tiny("tiny_t5").count()["total_parameters"]
