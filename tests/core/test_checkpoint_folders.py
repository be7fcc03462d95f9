"""Which folders and names are taken for a checkpoint, what is refused before it is opened, and what its digest depends on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from e2urec_core.backbones.base import CheckpointBackbone
from e2urec_core.backbones.causal_lm import CausalLm
from e2urec_core.backbones.t5 import T5
from e2urec_core.errors import BadInput, BadSetting
from e2urec_core.pretrained.folders import find, fingerprint, weights_of


@pytest.fixture
def folder(small_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A GPT-2 of the test's own, in one file."""
    return Path(shutil.copytree(small_checkpoint("causal_lm:gpt2"), tmp_path / "gpt2"))


@pytest.fixture
def sharded(small_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A Llama of the test's own, in several files."""
    return Path(shutil.copytree(small_checkpoint("causal_lm:llama"), tmp_path / "llama"))


@pytest.mark.parametrize("kind", [T5, CausalLm])
def test_without_a_checkpoint_every_use_is_refused_with_the_flag(kind: type[CheckpointBackbone]) -> None:
    for use in (kind().fingerprint, lambda: kind().tokenizer([])):
        with pytest.raises(BadSetting, match="was given none") as refused:
            use()
        assert refused.value.hint == "add `--backbone.checkpoint FOLDER`"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "one/two/three"])
def test_a_folder_that_is_not_there_is_refused_and_never_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(BadSetting, match="there is no folder") as refused:
        find(name, "main", "auto")
    assert "--backbone.checkpoint FOLDER" in refused.value.hint


def test_a_folder_has_no_revision(folder: Path) -> None:
    with pytest.raises(BadSetting, match="has no revision `v2`"):
        find(str(folder), "v2", "auto")


@pytest.mark.parametrize(("offline", "said"), [("auto", "the hub cannot be reached"), ("on", "the hub is not asked")])
def test_a_name_that_the_hub_cannot_give_is_one_sentence_with_the_flag(offline: str, said: str) -> None:
    with pytest.raises(BadSetting, match=said) as refused:
        find("somebody/some-network", "main", offline)
    assert "\n" not in refused.value.fact
    assert "--backbone.checkpoint FOLDER" in refused.value.hint


def test_what_is_no_name_at_all_is_said_to_be_none() -> None:
    with pytest.raises(BadSetting, match="neither a folder nor a name"):
        find("bad name!", "main", "auto")


def test_a_name_is_found_in_the_hubs_cache_without_the_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789" * 4
    place = tmp_path / "cache" / "models--somebody--small"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    found = find("somebody/small", "main", "on")
    assert found.name == commit
    assert fingerprint(found) == fingerprint(folder)


def test_a_pickle_alone_is_refused_by_its_name_and_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04no pickle at all")
    with pytest.raises(BadInput, match=r"no weights in safetensors, and `pytorch_model\.bin` is refused"):
        weights_of(folder)


def test_no_weights_at_all_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"has no `model\.safetensors`"):
        weights_of(folder)


def test_a_missing_part_of_the_weights_is_refused_by_its_name(sharded: Path) -> None:
    parts = weights_of(sharded)
    assert len(parts) > 1
    parts[1].unlink()
    with pytest.raises(BadInput, match=f"1 of {len(parts)} files of weights are missing, the first is `{parts[1].name}`"):
        weights_of(sharded)


def test_an_index_that_points_out_of_its_folder_is_refused(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    told["weight_map"] = dict.fromkeys(told["weight_map"], "../elsewhere.safetensors")
    index.write_text(json.dumps(told))
    with pytest.raises(BadInput, match="does not say in which file beside it"):
        weights_of(sharded)


def head_of(file: Path) -> tuple[str, bytes]:
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size].decode().rstrip(), data[8 + size :]


def test_a_weight_that_is_named_twice_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    head, rest = head_of(file)
    name, told = next((name, told) for name, told in json.loads(head).items() if name != "__metadata__")
    twice = f'{{"{name}":{json.dumps(told)},{head[1:]}'.encode()
    file.write_bytes(len(twice).to_bytes(8, "little") + twice + rest)
    with pytest.raises(BadInput, match="names a weight twice"):
        weights_of(folder)


@pytest.mark.parametrize("harm", ["cut in the head", "no head", "a head of 2 EiB", "empty"])
def test_a_file_that_is_no_whole_safetensors_file_is_refused(folder: Path, harm: str) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes({"cut in the head": data[:40], "no head": b"\0" * 64, "a head of 2 EiB": b"\xff" * 8 + data[8:], "empty": b""}[harm])
    with pytest.raises(BadInput, match="no whole safetensors file"):
        weights_of(folder)


@pytest.mark.parametrize("harm", ["cut in the weights", "trailing bytes", "overlap"])
def test_weights_that_do_not_fill_their_file_are_refused_when_they_are_opened(folder: Path, harm: str) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    if harm == "overlap":
        head, rest = head_of(file)
        told = json.loads(head)
        first, second = [name for name in told if name != "__metadata__"][:2]
        told[first]["data_offsets"] = told[second]["data_offsets"]
        changed = json.dumps(told).encode()
        data = len(changed).to_bytes(8, "little") + changed + rest
    else:
        data = data[:-64] if harm == "cut in the weights" else data + b"\0" * 8
    file.write_bytes(data)
    backbone = CausalLm(checkpoint=str(folder))
    with pytest.raises(BadInput, match="weights are refused"):
        backbone.build(backbone.tokenizer([]), 0)


def test_the_digest_is_of_the_files_and_not_of_their_place(folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "of another name"))
    assert CausalLm(checkpoint=str(folder)).fingerprint() == CausalLm(checkpoint=str(moved)).fingerprint()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_another_checkpoint_in_the_same_folder_has_another_digest(folder: Path, name: str) -> None:
    before, file = fingerprint(folder), folder / name
    data, stat = file.read_bytes(), file.stat()
    changed = data[:-1] + bytes([data[-1] ^ 1]) if name == "model.safetensors" else data.replace(b":", b" ", 1)
    file.write_bytes(changed)
    assert len(changed) == len(data)
    # Not even a tool that keeps the time of the file hides the change.
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(folder) != before


def test_every_part_of_the_weights_counts_and_what_is_not_read_does_not(sharded: Path) -> None:
    before = fingerprint(sharded)
    (sharded / "README.md").write_text("A card.")
    (sharded / "generation_config.json").write_text("{}")
    assert fingerprint(sharded) == before
    last = weights_of(sharded)[-1]
    data = last.read_bytes()
    last.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert fingerprint(sharded) != before


def test_where_the_files_lie_is_no_part_of_the_key_and_how_they_are_read_is(folder: Path) -> None:
    keyed = CausalLm(checkpoint=str(folder), max_tokens=64).keyed()
    assert keyed == {"kind": "causal_lm", "max_tokens": 64, "dropout": None}
