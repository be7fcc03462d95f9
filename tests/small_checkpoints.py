"""Small random checkpoints in the formats in which real ones are published, with tokenizers of the real kinds.

Each is a folder of config.json, weights in safetensors, tokenizer.json and tokenizer_config.json. The fields of config.json are those
that the published files have, and no more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ANSWERS = ["Yes", "No", " Yes", " No"] * 200
PADDED = 8
"""Embeddings beyond the tokenizer's vocabulary, as published networks have them for the sake of speed."""


def pieces_of_sentences(texts: Sequence[str]) -> Tokenizer:
    """T5's kind: Unigram over words that carry a mark of the space before them."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=260, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # So small a vocabulary has no room for every frequent word; the published one knows both.
    learned = json.loads(tokenizer.to_str())["model"]["vocab"]
    known = [(piece, score) for piece, score in learned if piece not in ("▁Yes", "▁No")]
    tokenizer.model = models.Unigram([*known, ("▁Yes", -3.0), ("▁No", -3.0)], unk_id=2)
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.add_special_tokens([f"<extra_id_{number}>" for number in range(3)])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def pieces_of_bytes(texts: Sequence[str], *, framed: bool) -> Tokenizer:
    """BART's and GPT-2's kind: BPE over bytes; `framed` puts `<s>` and `</s>` around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = list(SPECIAL) if framed else ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*texts, *ANSWERS], trainer)
    if framed:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def pieces_with_fallback(texts: Sequence[str]) -> Tokenizer:
    """Llama's kind: BPE over letters, a mark for each space and one before the text, and bytes for what it does not know."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator([*texts, *ANSWERS], trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    entries = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learned["merges"]]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def write_t5(folder: Path, texts: Sequence[str], seed: int) -> None:
    """As google-t5/t5-small is published: tied embeddings, no word of how outputs are scaled."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = pieces_of_sentences(texts)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": _padded(tokenizer)}
    facts = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "dropout_rate": 0.1, "feed_forward_proj": "relu"}
    network = _drawn(lambda: T5ForConditionalGeneration(T5Config(**sizes, **facts)), seed)
    more = {"n_positions": 512, "task_specific_params": {"summarization": {"num_beams": 4, "prefix": "summarize: "}}}
    _write(folder, network, {"model_type": "t5", "is_encoder_decoder": True, **sizes, **facts, **more}, tokenizer, "T5Tokenizer")


def write_flan_t5(folder: Path, texts: Sequence[str], seed: int) -> None:
    """As google/flan-t5-small is published: gated layers, output embeddings of its own, nothing scaled."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = pieces_of_sentences(texts)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    sizes |= {"vocab_size": _padded(tokenizer)}
    facts = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "feed_forward_proj": "gated-gelu", "n_positions": 512}
    network = _drawn(lambda: T5ForConditionalGeneration(T5Config(**sizes, **facts)), seed)
    told = {"model_type": "t5", "is_encoder_decoder": True, "tie_word_embeddings": False, **sizes, **facts}
    _write(folder, network, told, tokenizer, "T5Tokenizer")
    head = torch.randn(network.shared.weight.shape, generator=torch.Generator().manual_seed(seed))
    change_weights(folder, lambda weights: {**weights, "lm_head.weight": head})


def write_bart(folder: Path, texts: Sequence[str], seed: int) -> None:
    """As facebook/bart-base is published: the body's weights alone, knobs of generation in config.json."""
    from transformers import BartConfig, BartForConditionalGeneration

    tokenizer = pieces_of_bytes(texts, framed=True)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 512, "vocab_size": _padded(tokenizer)}
    facts = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "dropout": 0.1}
    network = _drawn(lambda: BartForConditionalGeneration(BartConfig(**sizes, **facts)), seed)
    more = {"early_stopping": True, "num_beams": 4, "no_repeat_ngram_size": 3, "forced_eos_token_id": 2, "forced_bos_token_id": 0}
    told = {"model_type": "bart", "is_encoder_decoder": True, **sizes, **facts, **more}
    _write(folder, network, told, tokenizer, "BartTokenizer")
    change_weights(folder, lambda weights: {name[6:]: weight for name, weight in weights.items() if name.startswith("model.")})


def write_gpt2(folder: Path, texts: Sequence[str], seed: int) -> None:
    """As openai-community/gpt2 is published: the body's weights and its masks, no padding token, not one embedding too many."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = pieces_of_bytes(texts, framed=False)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 512, "n_ctx": 512, "vocab_size": tokenizer.get_vocab_size()}
    facts = {"bos_token_id": 0, "eos_token_id": 0, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
    network = _drawn(lambda: GPT2LMHeadModel(GPT2Config(**sizes, **facts)), seed)
    _write(folder, network, {"model_type": "gpt2", **sizes, **facts}, tokenizer, "GPT2Tokenizer")
    mask = torch.ones(1, 1, 512, 512).tril()
    bare = "transformer."
    change_weights(folder, lambda weights: {"h.0.attn.bias": mask, **{name.removeprefix(bare): each for name, each in weights.items()}})


def write_llama(folder: Path, texts: Sequence[str], seed: int) -> None:
    """As Llama 2 is published: weights in several files with an index, output embeddings of its own, no padding token."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = pieces_with_fallback(texts)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes |= {"max_position_embeddings": 512, "vocab_size": _padded(tokenizer)}
    facts = {"bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "rms_norm_eps": 1e-5}
    network = _drawn(lambda: LlamaForCausalLM(LlamaConfig(**sizes, **facts)), seed)
    _write(folder, network, {"model_type": "llama", **sizes, **facts}, tokenizer, "LlamaTokenizer", shard="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def write_qwen2(folder: Path, texts: Sequence[str], seed: int) -> None:
    """As the small Qwen 2.5 are published: tied embeddings, biases at the projections, 16-bit weights."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = pieces_of_bytes(texts, framed=False)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes |= {"max_position_embeddings": 512, "vocab_size": _padded(tokenizer)}
    facts = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, "use_sliding_window": False}
    network = _drawn(lambda: Qwen2ForCausalLM(Qwen2Config(**sizes, **facts)), seed).to(torch.bfloat16)
    _write(folder, network, {"model_type": "qwen2", "torch_dtype": "bfloat16", **sizes, **facts}, tokenizer, "Qwen2Tokenizer")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Write other weights into `model.safetensors`."""
    from safetensors.torch import load_file, save_file

    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


CHECKPOINTS: dict[str, dict[str, Callable[[Path, Sequence[str], int], None]]] = {
    "t5": {"plain": write_t5, "flan": write_flan_t5},
    "bart": {"plain": write_bart},
    "causal_lm": {"gpt2": write_gpt2, "llama": write_llama, "qwen2": write_qwen2},
}
"""By backbone and name; a new backbone that starts from checkpoints needs an entry."""


def variants(kinds: Iterable[str]) -> list[str]:
    """Every backbone, those that start from checkpoints once for each: `causal_lm:llama`."""
    return [f"{kind}:{name}" if name else kind for kind in kinds for name in CHECKPOINTS.get(kind, ("",))]


def write_checkpoint(variant: str, folder: Path, texts: Sequence[str], seed: int = 0) -> Path:
    """Write the checkpoint that `causal_lm:llama` names into a new folder; its tokenizer is trained on `texts`."""
    kind, name = variant.split(":")
    folder.mkdir(parents=True)
    CHECKPOINTS[kind][name](folder, texts, seed)
    return folder


def _padded(tokenizer: Tokenizer) -> int:
    return tokenizer.get_vocab_size(with_added_tokens=True) + PADDED


def _drawn(build: Callable[[], torch.nn.Module], seed: int) -> Any:
    from e2urec_core.seeding import seeded

    with seeded(seed, "small-checkpoint"):
        return build()


def _write(folder: Path, network: Any, config: dict[str, Any], tokenizer: Tokenizer, kind: str, shard: str = "1GB") -> None:
    network.save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = {"architectures": [type(network).__name__], "transformers_version": "4.40.0", **config}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, "model_max_length": 512}))
