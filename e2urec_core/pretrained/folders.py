"""Finds a published checkpoint, as a folder on this machine or by its name on the hub, and refuses what cannot be read safely.

Read are JSON and safetensors, nothing else: a checkpoint that comes as a pickle alone is refused, and code that lies beside the weights
is never run.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from e2urec_core.artifacts import file_digest
from e2urec_core.errors import BadInput, BadSetting

CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
# Tokenizers of older checkpoints, from which a fast one can be made.
OLDER_TOKENIZERS = (("vocab.json", "merges.txt"), ("spiece.model",), ("tokenizer.model",), ("sentencepiece.bpe.model",))
TOKENIZER_FACTS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
# Longest head of a safetensors file, as its format has it.
LONGEST_HEAD = 100_000_000
HINT = "let `--backbone.checkpoint FOLDER` name a folder with config.json, model.safetensors and tokenizer.json"


def find(checkpoint: str | None, revision: str, offline: str) -> Path:
    """The folder of a checkpoint.

    Args:
        checkpoint: A folder, or the name of a checkpoint on the hub.
        revision: Branch, tag or commit on the hub.
        offline: `on` never asks the hub; `auto` does for what its cache on this machine lacks.

    Raises:
        BadSetting: None was named, there is no such folder, or the hub cannot give it.
    """
    if not checkpoint:
        raise BadSetting("this backbone starts from a checkpoint and was given none", hint="add `--backbone.checkpoint FOLDER`")
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        if revision != "main":
            raise BadSetting(f"the folder `{checkpoint}` has no revision `{revision}`", hint="leave `--backbone.revision` out")
        return folder
    if folder.is_absolute() or checkpoint[0] in ".~" or checkpoint.count("/") > 1 or "\\" in checkpoint:
        raise BadSetting(f"there is no folder `{checkpoint}`", hint=HINT)
    return _from_hub(checkpoint, revision, offline)


def weights_of(folder: Path) -> list[Path]:
    """The files that hold the weights, heads checked.

    Raises:
        BadInput: There are none in safetensors, some are missing, or one names a weight twice.
    """
    if (folder / WEIGHTS).is_file():
        files = [folder / WEIGHTS]
    elif (folder / INDEX).is_file():
        told = read_json(folder / INDEX).get("weight_map")
        if not isinstance(told, dict) or not told or any(not isinstance(name, str) or Path(name).name != name for name in told.values()):
            raise BadInput(f"`{INDEX}` does not say in which file beside it each weight stands", hint=HINT)
        files = [folder / name for name in sorted(set(told.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise BadInput(f"{len(missing)} of {len(files)} files of weights are missing, the first is `{missing[0]}`", hint=HINT)
    else:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            raise BadInput(
                f"the checkpoint has no weights in safetensors, and `{pickles[0]}` is refused: opening it could run code",
                hint="convert it elsewhere, with `save_pretrained` of transformers, and name the new folder",
            )
        raise BadInput(f"the checkpoint has no `{WEIGHTS}`", hint=HINT)
    for file in files:
        _check_head(file)
    return files


def tokenizer_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that a tokenizer is made of; none where there is none."""
    kinds = ((TOKENIZER,), *OLDER_TOKENIZERS)
    return next((names for names in kinds if all((folder / name).is_file() for name in names)), ())


def fingerprint(folder: Path) -> str:
    """Digest of the names and bytes of the files that are used; the folder's own place and name are not in it."""
    tokenizers = {name for names in OLDER_TOKENIZERS for name in names} | {TOKENIZER, *TOKENIZER_FACTS}
    files = [folder / CONFIG, *weights_of(folder), *sorted(folder / name for name in tokenizers)]
    if (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        files.append(folder / INDEX)
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            stat = file.stat()
            same = stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
            digest.update(f"{file.name} {_digest_of(file.resolve(), same)}\n".encode())
    return digest.hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """An object from a JSON file.

    Raises:
        BadInput: The file is missing or holds something else.
    """
    try:
        told = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"the checkpoint has no `{file.name}`", hint=HINT) from None
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise BadInput(f"`{file.name}` of the checkpoint is no JSON object", hint=HINT)
    return told


@lru_cache(maxsize=256)
def _digest_of(file: Path, same: tuple[int, ...]) -> str:
    """Digest of a file; files of the same inode, size and times are read once."""
    return file_digest(file)


def _check_head(file: Path) -> None:
    """Refuse a head in which a weight stands twice; safetensors itself refuses overlaps, overflows and trailing bytes."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise BadInput(f"`{file.name}` names a weight twice", hint="fetch the checkpoint again")
        return dict(pairs)

    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        head = opened.read(length) if 2 <= length <= LONGEST_HEAD else b""
    try:
        if not isinstance(json.loads(head, object_pairs_hook=once), dict):
            raise ValueError
    except ValueError:
        raise BadInput(f"`{file.name}` is no whole safetensors file", hint="fetch the checkpoint again") from None


def _from_hub(name: str, revision: str, offline: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    older = [part for names in OLDER_TOKENIZERS for part in names]
    wanted = [CONFIG, "model*.safetensors", INDEX, TOKENIZER, *older, *TOKENIZER_FACTS]
    try:
        cached = Path(snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=True))
        if weights_of(cached) and read_json(cached / CONFIG) and tokenizer_files(cached):
            return cached
        raise BadInput("the cache holds the checkpoint without its tokenizer", hint=HINT)
    except HFValidationError:
        raise BadSetting(f"`{name}` is neither a folder nor a name on the hub", hint=HINT) from None
    except (BadInput, OSError):
        if offline == "on":
            raise BadSetting(f"the checkpoint `{name}` is not in the hub's cache, and the hub is not asked", hint=HINT) from None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as error:
        raise BadSetting(f"the hub does not give the checkpoint `{name}` at `{revision}`: {type(error).__name__}", hint=HINT) from None
    except Exception as error:
        # Its HTTP client has errors of its own that share no base with OSError.
        told = {} if isinstance(error, LocalEntryNotFoundError) else {"the hub said": type(error).__name__}
        raise BadSetting(
            f"`{name}` is no folder, is not in the hub's cache, and the hub cannot be reached", facts=told, hint=HINT
        ) from None
