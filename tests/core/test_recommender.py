"""A recommender is saved, loaded, copied, adapted and merged without its answers changing.

Tolerance `MERGED`: folding B A into W rounds every weight once more, so scores may move by some 1e-7.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file

from e2urec_core.data.batches import Prompts
from e2urec_core.recommender import ANSWERS, TOKENIZER, Recommender, load
from e2urec_core.settings import Lora

MERGED = 1e-5
KINDS = ["tiny_t5", "tiny_bart"]


@pytest.fixture(params=KINDS)
def recommender(request: pytest.FixtureRequest, build_tiny: Callable[..., Recommender]) -> Recommender:
    return build_tiny(request.param)


@pytest.fixture
def rows(recommender: Recommender, rows_of: Callable[[Recommender, str], Prompts]) -> Prompts:
    return rows_of(recommender, "forgotten")


def weights(recommender: Recommender) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in recommender.network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def adapted(recommender: Recommender, lora: Lora | None = None) -> Recommender:
    """With an adapter whose second factor is no longer zero, so that it changes the answers."""
    student, random = recommender.with_adapter(lora or Lora(rank=4), seed=0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in student.network.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=2.0, generator=random)
    return student


def test_a_loaded_recommender_gives_the_same_scores_to_the_last_bit(recommender: Recommender, rows: Prompts, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    back = load(tmp_path)
    assert back.answers == recommender.answers
    assert back.tokenizer.to_str() == recommender.tokenizer.to_str()
    assert numpy.array_equal(back.score(rows), recommender.score(rows))


def test_a_saved_recommender_is_safetensors_and_json_and_nothing_else(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", TOKENIZER, ANSWERS} <= names
    assert {Path(name).suffix for name in names} <= {".json", ".safetensors"}


def test_the_same_recommender_is_saved_to_the_same_bytes(recommender: Recommender, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        recommender.save(tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_scores_are_probabilities_in_the_order_of_the_prompts(recommender: Recommender, rows: Prompts) -> None:
    # Rows of 84 to 116 tokens: some seven share a budget of 800.
    scores = recommender.score(rows, token_budget=800)
    assert scores.dtype == numpy.float64
    assert bool(((scores > 0) & (scores < 1)).all())
    for place in (0, 3, len(rows) - 1):
        batch = rows.batch(numpy.array([place]))
        with torch.inference_mode():
            logits = recommender.logits(batch)[0].double()
        yes, no = logits[recommender.answers.yes_id], logits[recommender.answers.no_id]
        # softmax over the two answers: e^yes / (e^yes + e^no)
        assert scores[place] == pytest.approx((yes.exp() / (yes.exp() + no.exp())).item(), abs=1e-6)


def test_scoring_tells_how_many_rows_are_through(recommender: Recommender, rows: Prompts) -> None:
    told: list[int] = []
    recommender.score(rows, token_budget=10 * int(rows.lengths.max()), each=told.append)
    assert sum(told) == len(rows)
    # Longest first: the longest ten make up the first batch, and as rows become shorter more of them fit.
    assert told[0] == 10
    assert told[:-1] == sorted(told[:-1])


def test_scoring_drops_nothing_though_the_network_was_training(build_tiny: Callable[..., Recommender], rows_of) -> None:
    noisy = build_tiny("tiny_t5", dropout=0.5)
    noisy.network.train()
    rows = rows_of(noisy, "forgotten")
    assert numpy.array_equal(noisy.score(rows), noisy.score(rows))


def test_a_copy_to_train_shares_no_weight_with_the_recommender(recommender: Recommender) -> None:
    before = weights(recommender)
    copy = recommender.trainable()
    with torch.no_grad():
        for weight in copy.network.parameters():
            weight.add_(1.0)
    assert equal(weights(recommender), before)
    assert copy.count()["trainable_parameters"] == copy.count()["total_parameters"] == recommender.count()["total_parameters"]


@pytest.mark.parametrize("targets", ["attention", "all_linear"])
def test_a_fresh_adapter_changes_no_answer_and_is_all_that_trains(recommender: Recommender, rows: Prompts, targets: str) -> None:
    student = recommender.with_adapter(Lora(rank=4, targets=targets), seed=0)
    trained = [name for name, weight in student.network.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert student.score(rows) == pytest.approx(recommender.score(rows), abs=1e-7)


def test_an_adapter_has_rank_times_in_plus_out_weights_for_each_target(recommender: Recommender) -> None:
    def linears(names: tuple[str, ...]) -> list[torch.nn.Linear]:
        found = [(name.rsplit(".", 1)[-1], module) for name, module in recommender.network.named_modules()]
        return [module for name, module in found if name in names and isinstance(module, torch.nn.Linear)]

    for targets, names in (("attention", recommender.answers.attention_targets), ("all_linear", recommender.answers.linear_targets)):
        adapted_layers = linears(names)
        # One encoder attention and two decoder attentions with two targets each make six layers for `attention`.
        assert targets == "all_linear" or len(adapted_layers) == 6
        expected = sum(4 * (layer.in_features + layer.out_features) for layer in adapted_layers)
        counts = recommender.with_adapter(Lora(rank=4, targets=targets), seed=0).count()
        assert counts["trainable_parameters"] == expected
        assert counts["total_parameters"] == recommender.count()["total_parameters"] + expected


def test_a_fresh_adapter_is_drawn_from_the_seed_alone_and_leaves_the_global_state_as_it_was(recommender: Recommender) -> None:
    torch.manual_seed(1)
    undisturbed = torch.rand(2)
    torch.manual_seed(1)
    first = weights(recommender.with_adapter(Lora(rank=4), seed=5))
    assert torch.equal(torch.rand(2), undisturbed)
    assert equal(weights(recommender.with_adapter(Lora(rank=4), seed=5)), first)
    assert not equal(weights(recommender.with_adapter(Lora(rank=4), seed=6)), first)


def test_an_adapter_leaves_the_recommender_under_it_untouched(recommender: Recommender, rows: Prompts) -> None:
    before, scores = weights(recommender), recommender.score(rows)
    grads = {name: weight.requires_grad for name, weight in recommender.network.named_parameters()}
    student = adapted(recommender)
    student.merged()
    assert equal(weights(recommender), before)
    assert {name: weight.requires_grad for name, weight in recommender.network.named_parameters()} == grads
    assert numpy.array_equal(recommender.score(rows), scores)


def test_a_merged_recommender_gives_the_adapters_scores_and_the_adapter_can_no_longer_be_switched_off(
    recommender: Recommender, rows: Prompts
) -> None:
    student = adapted(recommender)
    expected = student.score(rows)
    assert numpy.abs(expected - recommender.score(rows)).max() > 100 * MERGED, "the adapter must change the answers"
    merged = student.merged()
    assert merged.score(rows) == pytest.approx(expected, abs=MERGED)
    assert not hasattr(merged.network, "peft_config")
    assert not hasattr(merged.network, "disable_adapter")
    assert [name for name in merged.network.state_dict() if "lora" in name or "base_layer" in name] == []
    assert student.score(rows) == pytest.approx(expected, abs=1e-12), "merging is done on a copy"


def test_a_merged_recommender_is_saved_without_the_weights_it_was_made_from(
    recommender: Recommender, rows: Prompts, tmp_path: Path
) -> None:
    merged = adapted(recommender).merged()
    merged.save(tmp_path)
    back = load(tmp_path)
    assert numpy.array_equal(back.score(rows), merged.score(rows))
    stored = weights(back)
    kept = weights(recommender)
    changed = [name for name in stored if not torch.equal(stored[name], kept[name])]
    # Six adapted layers: q and v of three attentions.
    assert len(changed) == 6
    assert back.count()["total_parameters"] == recommender.count()["total_parameters"]


def test_an_adapter_that_was_not_merged_is_not_saved(recommender: Recommender, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="merge the adapter before saving"):
        adapted(recommender).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_saved_alone_without_the_weights_under_it_or_the_place_they_came_from(
    recommender: Recommender, tmp_path: Path
) -> None:
    student = adapted(recommender)
    student.save_adapter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(weight.numel() for weight in stored.values()) == student.count()["trainable_parameters"]
    assert json.loads((tmp_path / "adapter_config.json").read_bytes())["base_model_name_or_path"] is None


def test_a_recommender_says_whether_it_carries_an_adapter_and_merging_without_one_changes_nothing(recommender: Recommender) -> None:
    student = adapted(recommender)
    assert (recommender.has_adapter, student.has_adapter, student.merged().has_adapter) == (False, True, False)
    assert recommender.merged() is recommender
