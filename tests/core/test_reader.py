"""The reader gives what the network's own forward gives at the decoder's last position, with one word or with all.

Tolerance `FLOAT32`: fewer decoder positions and narrower products sum in another order; these logits are below 10.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from e2urec_core.data.batches import Batch, Prompts
from e2urec_core.engine import Bench
from e2urec_core.ops.answers import narrow
from e2urec_core.reader import AnswerReader
from e2urec_core.recommender import Recommender, load
from e2urec_core.settings import Lora

FLOAT32 = 1e-4
KINDS = ["tiny_t5", "tiny_bart", "t5:flan", "bart:plain", "causal_lm:gpt2", "causal_lm:llama", "causal_lm:qwen2"]
Build = Callable[..., Recommender]
RowsOf = Callable[[Recommender, str], Prompts]


def sensitive(build_tiny: Build, kind: str, adapter: str) -> Recommender:
    """A network whose answers depend on every token, with an adapter that changes them or without."""
    recommender, random = build_tiny(kind), torch.Generator().manual_seed(5)
    if adapter == "adapter":
        recommender = recommender.with_adapter(Lora(rank=3, targets="all_linear"), seed=0)
    with torch.no_grad():
        for name, weight in recommender.network.named_parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=random) * (0.3 if "relative" not in name else 1.0))
        if "bart" in kind:
            base: Any = recommender.network.get_base_model() if recommender.has_adapter else recommender.network  # type: ignore[operator]
            base.final_logits_bias.copy_(torch.randn(base.final_logits_bias.shape, generator=random))
    recommender.network.eval()
    return recommender


@pytest.fixture(params=[(kind, adapter) for kind in KINDS for adapter in ("plain", "adapter")], ids="-".join)
def recommender(request: pytest.FixtureRequest, build_tiny: Build) -> Recommender:
    return sensitive(build_tiny, *request.param)


@pytest.fixture
def rows(recommender: Recommender, rows_of: RowsOf) -> Prompts:
    return rows_of(recommender, "forgotten")


def own_forward(recommender: Recommender, batch: Batch) -> torch.Tensor:
    """The network's own logits after its decoder's prefix, or after each row's last token."""
    if not recommender.answers.decoder_prefix:
        all_logits = recommender.network(input_ids=batch.token_ids, attention_mask=batch.mask.long(), use_cache=False).logits
        ends: torch.Tensor = all_logits[torch.arange(len(batch.labels)), batch.mask.sum(1) - 1]
        return ends
    given = torch.tensor([recommender.answers.decoder_prefix]).expand(len(batch.labels), -1)
    outputs = recommender.network(input_ids=batch.token_ids, attention_mask=batch.mask.long(), decoder_input_ids=given, use_cache=False)
    logits: torch.Tensor = outputs.logits[:, -1]
    return logits


def test_full_logits_are_the_networks_own_at_the_last_decoder_position(recommender: Recommender, rows: Prompts) -> None:
    batch = rows.batch(numpy.arange(6))
    assert not bool(batch.mask.all()), "some rows must be padded"
    with torch.inference_mode():
        expected, found = own_forward(recommender, batch), recommender.reader()(batch.token_ids, batch.mask)
    assert found.shape == (6, recommender.network.config.vocab_size)  # type: ignore[union-attr]
    assert expected.std(dim=0).max() > 100 * FLOAT32, "answers must depend on the prompt"
    assert torch.allclose(found, expected, rtol=0, atol=FLOAT32)


def test_a_padded_row_reads_as_it_does_alone(recommender: Recommender, rows: Prompts) -> None:
    shortest = int(rows.lengths.argmin())
    together, alone = rows.batch(numpy.array([int(rows.lengths.argmax()), shortest])), rows.batch(numpy.array([shortest]))
    reader = recommender.reader()
    with torch.inference_mode():
        padded, plain = reader(together.token_ids, together.mask)[1], own_forward(recommender, alone)[0]
    assert torch.allclose(padded, plain, rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("remainder", ["none", "logsumexp"])
def test_some_words_are_read_as_narrow_keeps_them_of_all(recommender: Recommender, rows: Prompts, remainder: str) -> None:
    batch, support = rows.batch(numpy.arange(6)), torch.tensor([[7, 190, 12]] * 6)
    with torch.inference_mode():
        found = recommender.reader()(batch.token_ids, batch.mask, support, remainder)
        expected = narrow(own_forward(recommender, batch), support, remainder)
    assert torch.allclose(found, expected, rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapters_gradient_is_the_same_through_some_words_as_through_all(build_tiny: Build, rows_of: RowsOf, kind: str) -> None:
    student, support, gradients = sensitive(build_tiny, kind, "adapter"), torch.tensor([[7, 190, 12]] * 4), []
    batch = rows_of(student, "forgotten").batch(numpy.arange(4))
    for outputs in (
        narrow(own_forward(student, batch), support, "logsumexp"),
        student.reader()(batch.token_ids, batch.mask, support, "logsumexp"),
    ):
        student.network.zero_grad()
        outputs.log_softmax(1)[:, 0].mean().backward()
        gradients.append({name: weight.grad.clone() for name, weight in student.network.named_parameters() if weight.grad is not None})
    expected, found = gradients
    assert expected.keys() == found.keys()
    # T5 does not scale its attention, so some of these gradients are in the thousands.
    apart = {name: (found[name] - values).abs().max() / max(1.0, values.abs().max()) for name, values in expected.items()}
    assert max(values.abs().max() for values in expected.values()) > 1
    assert {name: size for name, size in apart.items() if size > FLOAT32} == {}


def test_the_reader_changes_nothing_of_the_network(recommender: Recommender) -> None:
    names = list(recommender.network.state_dict())
    reader = recommender.reader()
    assert list(recommender.network.state_dict()) == names
    assert reader.network is recommender.network
    # The prefix is no weight and is not saved.
    assert {name.removeprefix("network.") for name in reader.state_dict()} == set(names)


def test_only_a_bench_that_compiles_compiles_and_for_rows_of_any_length(build_tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[torch.nn.Module, bool]] = []

    def noted(reader: AnswerReader, *, dynamic: bool) -> AnswerReader:
        asked.append((reader.network, dynamic))
        return reader

    monkeypatch.setattr(torch, "compile", noted)
    recommender = build_tiny("tiny_t5")
    Bench(seed=0).reader(recommender)
    assert asked == []
    Bench(seed=0, compiled=True).reader(recommender)
    assert asked == [(recommender.network, True)]


def test_an_output_that_is_scaled_by_its_width_is_read_scaled(build_tiny: Build, rows_of: RowsOf, tmp_path: Path) -> None:
    # The published T5 scales what the decoder gives before the output embeddings; a saved config says whether.
    build_tiny("tiny_t5").save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    found = []
    for scaled in (False, True):
        (tmp_path / "config.json").write_text(json.dumps({**config, "scale_decoder_outputs": scaled}))
        recommender = load(tmp_path)
        batch = rows_of(recommender, "forgotten").batch(numpy.arange(3))
        with torch.inference_mode():
            found.append(recommender.reader()(batch.token_ids, batch.mask))
            assert torch.allclose(found[-1], own_forward(recommender, batch), rtol=0, atol=FLOAT32)
    assert not torch.allclose(*found, atol=FLOAT32)
