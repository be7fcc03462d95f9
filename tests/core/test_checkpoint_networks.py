"""Which networks are opened from a checkpoint, that they say what their publisher's network says, and which are refused before training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file

from e2urec_core.backbones.bart import Bart
from e2urec_core.backbones.base import CheckpointBackbone
from e2urec_core.backbones.causal_lm import CausalLm
from e2urec_core.backbones.t5 import T5
from e2urec_core.data.batches import Prompts
from e2urec_core.errors import BadBackbone, BadInput, BadSetting
from e2urec_core.pretrained.networks import adapter_targets
from e2urec_core.recommender import Recommender, load
from e2urec_core.settings import CacheRule, Lora

SAME = 1e-5
"""The same products, summed in another order."""
VARIANTS = ["t5:plain", "t5:flan", "bart:plain", "causal_lm:gpt2", "causal_lm:llama", "causal_lm:qwen2"]
Build = Callable[..., Recommender]
RowsOf = Callable[[Recommender, str], Prompts]


@pytest.fixture
def copied(small_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    """A checkpoint of the test's own."""
    return lambda variant: Path(shutil.copytree(small_checkpoint(variant), tmp_path / variant.replace(":", "-")))


def configure(folder: Path, **facts: Any) -> None:
    """Change fields of config.json; None takes one out."""
    file = folder / "config.json"
    told = {**json.loads(file.read_text()), **facts}
    file.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))


def built(backbone: CheckpointBackbone) -> Recommender:
    return backbone.build(backbone.tokenizer([]), 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_seed_decides_nothing_of_a_whole_checkpoint(small_backbone: Callable[..., CheckpointBackbone], variant: str) -> None:
    backbone = small_backbone(variant)
    one, two = (backbone.build(backbone.tokenizer([]), seed).network.state_dict() for seed in (1, 2))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_weight_is_in_the_network_in_32_bits(
    build_tiny: Build, small_checkpoint: Callable[..., Path], variant: str
) -> None:
    network = build_tiny(variant).network
    published: dict[str, torch.Tensor] = {}
    for file in small_checkpoint(variant).glob("*.safetensors"):
        published |= load_file(file)
    # What GPT-2's file keeps as a mask is no weight.
    published.pop("h.0.attn.bias", None)
    held = {name.removeprefix("model.").removeprefix("transformer."): weight for name, weight in network.state_dict().items()}
    for name, weight in published.items():
        bare = name.removeprefix("model.").removeprefix("transformer.")
        assert torch.equal(held[bare], weight.float()), name
        assert held[bare].dtype == torch.float32


def test_flan_answers_through_its_own_output_embeddings_unscaled_and_t5_through_its_tied_ones_scaled(
    build_tiny: Build, rows_of: RowsOf
) -> None:
    for variant, own_head, scale in (("t5:plain", False, 16**-0.5), ("t5:flan", True, 1.0)):
        recommender = build_tiny(variant)
        network: Any = recommender.network
        batch = rows_of(recommender, "forgotten").batch(numpy.arange(4))
        with torch.inference_mode():
            states = network.get_encoder()(input_ids=batch.token_ids, attention_mask=batch.mask.long()).last_hidden_state
            given = torch.zeros(4, 1, dtype=torch.long)
            decoded = network.get_decoder()(
                input_ids=given, encoder_hidden_states=states, encoder_attention_mask=batch.mask.long()
            ).last_hidden_state[:, 0]
            read = recommender.logits(batch)
        assert torch.equal(network.lm_head.weight, network.shared.weight) != own_head
        assert torch.allclose(read, scale * decoded @ network.lm_head.weight.T, atol=SAME)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_merged_adapter_is_saved_and_loaded_without_a_change_of_the_answers(
    build_tiny: Build, rows_of: RowsOf, variant: str, tmp_path: Path
) -> None:
    recommender = build_tiny(variant)
    rows = rows_of(recommender, "forgotten")
    before = {name: weight.clone() for name, weight in recommender.network.state_dict().items()}
    student, random = recommender.with_adapter(Lora(rank=4, targets="all_linear"), seed=0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in student.network.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=random)
    scores, merged = student.score(rows), student.merged()
    assert numpy.abs(scores - recommender.score(rows)).max() > 100 * SAME
    assert merged.score(rows) == pytest.approx(scores, abs=SAME)
    merged.save(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ["model.safetensors"]
    back = load(tmp_path)
    assert type(back.network) is type(recommender.network)
    assert numpy.array_equal(back.score(rows), merged.score(rows))
    assert all(torch.equal(weight, before[name]) for name, weight in recommender.network.state_dict().items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_recommender_does_not_say_where_it_came_from(
    build_tiny: Build, small_checkpoint: Callable[..., Path], variant: str, tmp_path: Path
) -> None:
    build_tiny(variant).save(tmp_path)
    for file in tmp_path.glob("*.json"):
        assert str(small_checkpoint(variant).parent) not in file.read_text()


@pytest.mark.parametrize(
    ("variant", "attention", "linear"),
    [
        ("t5:plain", {"q", "v"}, {"q", "k", "v", "o", "wi", "wo"}),
        ("t5:flan", {"q", "v"}, {"q", "k", "v", "o", "wi_0", "wi_1", "wo"}),
        ("bart:plain", {"q_proj", "v_proj"}, {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        ("causal_lm:gpt2", {"c_attn"}, {"c_attn", "c_proj", "c_fc"}),
        ("causal_lm:llama", {"q_proj", "v_proj"}, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
    ],
)
def test_adapters_go_on_the_layers_that_are_there(build_tiny: Build, variant: str, attention: set[str], linear: set[str]) -> None:
    answers = build_tiny(variant).answers
    assert (set(answers.attention_targets), set(answers.linear_targets)) == (attention, linear)


def test_projections_that_cannot_be_found_are_refused_with_the_layers_that_are_there(build_tiny: Build) -> None:
    with pytest.raises(BadBackbone, match="none of 2 known names") as refused:
        adapter_targets(build_tiny("causal_lm:gpt2").network, (("q_proj", "v_proj"), ("query", "value")))
    assert refused.value.facts == {"looked for": "q_proj v_proj; query value", "linear layers": "c_attn c_proj c_fc"}


@pytest.mark.parametrize(
    ("kind", "variant", "said"),
    [
        (T5, "bart:plain", "`t5` reads t5, mt5, umt5, and the checkpoint is `bart`"),
        (Bart, "t5:flan", "`bart` reads bart, and the checkpoint is `t5`"),
        (T5, "causal_lm:llama", "`t5` reads t5, mt5, umt5, and the checkpoint is `llama`"),
        (CausalLm, "t5:plain", "`causal-lm` reads networks that say the next word, and the checkpoint is `t5`"),
        (CausalLm, "bart:plain", "`causal-lm` reads networks that say the next word, and the checkpoint is `bart`"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_with_the_backbone_that_reads_it(
    small_checkpoint: Callable[..., Path], kind: type[CheckpointBackbone], variant: str, said: str
) -> None:
    with pytest.raises(BadBackbone) as refused:
        kind(checkpoint=str(small_checkpoint(variant))).tokenizer([])
    assert refused.value.fact == said
    assert f"`{variant.split(':', maxsplit=1)[0].replace('_', '-')}`" in refused.value.hint


def test_code_that_comes_with_a_checkpoint_is_never_run(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder, touched = copied("causal_lm:gpt2"), tmp_path / "touched"
    (folder / "modeling_own.py").write_text(f"open({str(touched)!r}, 'w')")
    own = {"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.OwnLM"}
    configure(folder, model_type="own_network", auto_map=own)
    with pytest.raises(BadBackbone, match="does not know the architecture `own_network`: it comes with code of its own"):
        CausalLm(checkpoint=str(folder)).tokenizer([])
    # An architecture that transformers knows is built from transformers' own code.
    configure(folder, model_type="gpt2")
    built(CausalLm(checkpoint=str(folder)))
    assert not touched.exists()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"model_type": "own_network"}, "does not know the architecture `own_network`$"),
        ({"model_type": None}, "does not know the architecture `None`$"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "weights are quantised"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(copied: Callable[[str], Path], facts: dict[str, Any], said: str) -> None:
    folder = copied("causal_lm:gpt2")
    configure(folder, **facts)
    with pytest.raises(BadBackbone) as refused:
        CausalLm(checkpoint=str(folder)).tokenizer([])
    assert refused.match(said.removesuffix("$"))
    assert not said.endswith("$") or refused.value.fact.endswith(said[:-1])


@pytest.mark.parametrize("text", ["", "[]", "{not json"])
def test_a_configuration_that_is_no_object_is_refused(copied: Callable[[str], Path], text: str) -> None:
    folder = copied("t5:plain")
    (folder / "config.json").write_text(text)
    with pytest.raises(BadInput, match=r"`config\.json` of the checkpoint is no JSON object"):
        T5(checkpoint=str(folder)).tokenizer([])


def test_a_checkpoint_that_lacks_weights_is_refused_and_none_is_drawn_in_their_place(copied: Callable[[str], Path]) -> None:
    from small_checkpoints import change_weights

    folder = copied("t5:flan")
    change_weights(folder, lambda weights: {name: weight for name, weight in weights.items() if not name.startswith("decoder.")})
    with pytest.raises(BadBackbone, match=r"lacks \d+ weights of `T5ForConditionalGeneration`, the first is `decoder\."):
        built(T5(checkpoint=str(folder)))


def test_weights_of_another_shape_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("causal_lm:qwen2")
    configure(folder, intermediate_size=48)
    with pytest.raises((BadInput, BadBackbone)):
        built(CausalLm(checkpoint=str(folder)))


def test_a_tokenizer_with_more_entries_than_embeddings_is_refused_and_one_with_fewer_is_not(copied: Callable[[str], Path]) -> None:
    folder = copied("causal_lm:gpt2")
    backbone = CausalLm(checkpoint=str(folder))
    tokenizer = backbone.tokenizer([])
    size = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(["[PAD]"])
    with pytest.raises(BadBackbone, match=f"has ids up to {size} and the network embeds {size} of them"):
        backbone.build(tokenizer, 0)
    padded = built(CausalLm(checkpoint=str(copied("causal_lm:llama"))))
    assert padded.network.config.vocab_size == padded.tokenizer.get_vocab_size() + 8  # type: ignore[union-attr]


@pytest.mark.parametrize("variant", ["bart:plain", "causal_lm:gpt2", "causal_lm:llama"])
def test_a_longest_prompt_beyond_the_positions_is_refused_with_the_longest(
    small_backbone: Callable[..., CheckpointBackbone], variant: str
) -> None:
    with pytest.raises(BadSetting, match=r"`--backbone\.max-tokens 513` is refused: the checkpoint has 512 positions") as refused:
        small_backbone(variant, max_tokens=513).tokenizer([])
    assert refused.value.hint == "`--backbone.max-tokens 512`"


def test_relative_positions_have_no_longest_prompt(small_backbone: Callable[..., CheckpointBackbone], rows_of: RowsOf) -> None:
    recommender = built(small_backbone("t5:plain", max_tokens=2000))
    rows = recommender.prompts(numpy.array([0]), numpy.array([1]), ["Silent Saddle (5*), " * 300])
    assert rows.lengths[0] > 512
    assert 0 < recommender.score(rows)[0] < 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_dropout_is_what_is_set_and_otherwise_the_checkpoints_own(small_backbone: Callable[..., CheckpointBackbone], variant: str) -> None:
    def shares(dropout: float | None) -> set[float]:
        recommender = built(small_backbone(variant, dropout=dropout))
        found = {module.p for module in recommender.network.modules() if isinstance(module, torch.nn.Dropout)}
        # These keep it as plain numbers.
        plain = {
            float(getattr(module, name))
            for module in recommender.network.modules()
            for name in ("dropout", "attention_dropout")
            if isinstance(getattr(module, name, None), float)
        }
        return found | plain

    assert 0.375 in shares(0.375)
    assert 0.375 not in shares(None)
    own = {"t5:plain": 0.1, "t5:flan": 0.1, "bart:plain": 0.1, "causal_lm:gpt2": 0.1, "causal_lm:llama": 0.0, "causal_lm:qwen2": 0.0}
    assert own[variant] in shares(None)


class Changed(torch.nn.Module):
    """An output layer that says something else than its weights do."""

    def __init__(self, weight: torch.nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.tanh(states @ self.weight.T)


def test_a_network_that_changes_its_logits_afterwards_is_refused(build_tiny: Build) -> None:
    from e2urec_core.pretrained.networks import try_out

    recommender = build_tiny("causal_lm:llama")
    try_out(recommender)
    network: Any = recommender.network
    network.lm_head = Changed(torch.nn.Parameter(10 * network.lm_head.weight.detach()))
    with pytest.raises(BadBackbone, match="changes its logits after its output layer"):
        try_out(recommender)


def test_a_network_that_looks_ahead_is_refused(copied: Callable[[str], Path], tmp_path: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    folder = copied("causal_lm:qwen2")
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertLMHeadModel(BertConfig(vocab_size=size, initializer_range=0.5, **sizes)).save_pretrained(folder)
    with pytest.raises(BadBackbone, match=r"`BertLMHeadModel` looks ahead"):
        built(CausalLm(checkpoint=str(folder)))


def test_what_only_an_encoder_decoder_can_do_is_refused_by_the_settings_name(
    build_tiny: Build, rows_of: RowsOf, cache_teachers: Callable[..., Any], bench: Any, tmp_path: Path
) -> None:
    recommender = build_tiny("causal_lm:gpt2")
    with pytest.raises(BadSetting, match=r"`lora\.layers decoder` is refused: this network has no encoder"):
        recommender.with_adapter(Lora(layers="decoder"), seed=0)
    rule = CacheRule(retained_per_forgotten=1, encoder_states=True)
    with pytest.raises(BadSetting, match=r"`--cache\.encoder-states true` is refused"):
        cache_teachers(tmp_path, recommender, recommender, rule, bench)
    batch = rows_of(recommender, "forgotten").batch(numpy.arange(2))
    with pytest.raises(BadSetting, match=r"`--cache\.encoder-states true` is refused"):
        bench.reader(recommender).encode(batch)


@pytest.mark.parametrize("variant", ["causal_lm:gpt2", "causal_lm:llama", "causal_lm:qwen2"])
def test_what_stands_on_padding_changes_no_answer(build_tiny: Build, rows_of: RowsOf, variant: str) -> None:
    recommender = build_tiny(variant)
    rows = rows_of(recommender, "forgotten")
    shortest, longest = int(rows.lengths.argmin()), int(rows.lengths.argmax())
    batch = rows.batch(numpy.array([longest, shortest]))
    assert not bool(batch.mask.all())
    other = torch.where(batch.mask, batch.token_ids, recommender.answers.yes_id)
    reader = recommender.reader()
    with torch.inference_mode():
        assert torch.equal(reader(batch.token_ids, batch.mask), reader(other, batch.mask))


def other(folder: Path, name: str, tokenizer: Path, **facts: Any) -> CausalLm:
    """A small random checkpoint of another architecture, with GPT-2's tokenizer."""
    import transformers

    size = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    config = getattr(transformers, f"{name}Config")(vocab_size=size, hidden_size=16, num_hidden_layers=1, **facts)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    shutil.copy(tokenizer / "tokenizer.json", folder)
    return CausalLm(checkpoint=str(folder), max_tokens=128)


@pytest.mark.parametrize(
    ("name", "facts", "projections"),
    [
        ("Mistral", {"intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}, ("q_proj", "v_proj")),
        ("Phi3", {"intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0}, ("qkv_proj",)),
        ("GPTNeoX", {"intermediate_size": 32, "num_attention_heads": 2}, ("query_key_value",)),
        # Its last layer has fewer features than its blocks.
        ("OPT", {"ffn_dim": 32, "num_attention_heads": 2, "word_embed_proj_dim": 8}, ("q_proj", "v_proj")),
    ],
)
def test_further_architectures_score_alike_alone_and_in_a_batch_and_carry_adapters(
    small_checkpoint: Callable[..., Path], tmp_path: Path, name: str, facts: dict[str, Any], projections: tuple[str, ...]
) -> None:
    recommender = built(other(tmp_path / name, name, small_checkpoint("causal_lm:gpt2"), **facts))
    assert recommender.answers.attention_targets == projections
    texts = [f"{'Silent Saddle (5*), ' * (number % 5)}Golden Vault {number}. Answer Yes or No:" for number in range(16)]
    rows = recommender.prompts(numpy.arange(16), numpy.ones(16, numpy.int64), texts)
    assert recommender.score(rows, token_budget=16 * 128) == pytest.approx(recommender.score(rows, token_budget=1), abs=SAME)
    assert recommender.with_adapter(Lora(rank=2), seed=0).merged().score(rows) == pytest.approx(recommender.score(rows), abs=SAME)


@pytest.mark.parametrize(
    ("name", "facts", "said"),
    [
        ("Gemma2", {"intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}, "caps its logits"),
        ("Granite", {"intermediate_size": 32, "num_attention_heads": 2, "logits_scaling": 8.0}, "changes its logits"),
        ("Mamba", {"state_size": 4}, "none of 6 known names of query and value projections"),
    ],
)
def test_architectures_that_are_not_read_here_are_refused(
    small_checkpoint: Callable[..., Path], tmp_path: Path, name: str, facts: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadBackbone, match=said):
        built(other(tmp_path / name, name, small_checkpoint("causal_lm:gpt2"), **facts))


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_16_bits_the_answers_are_near(build_tiny: Build, rows_of: RowsOf, variant: str) -> None:
    from e2urec_core.engine import Bench
    from e2urec_core.scoring import yes_probabilities

    recommender = build_tiny(variant)
    rows = rows_of(recommender, "forgotten")
    # bf16 keeps 8 bits: products are off by some 0.4 percent, and these logits are below 10.
    assert yes_probabilities(recommender, rows, Bench(seed=0, precision="bf16")) == pytest.approx(recommender.score(rows), abs=0.02)
