"""A checkpoint's own tokenizer, and which of its tokens are the answers where they are said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.errors import BadBackbone, BadInput
from e2urec_core.pretrained.folders import HINT, TOKENIZER, tokenizer_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Spelling = Callable[[str], list[int]]
# How the shipped prompts end.
END = "Answer Yes or No:"
METASPACE, BYTE_SPACE = "▁", "Ġ"


def open_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """The fast tokenizer of a checkpoint, which cuts the oldest end of a prompt.

    Raises:
        BadInput: There is none, or it cannot be read.
    """
    names = tokenizer_files(folder)
    if not names:
        raise BadInput(f"the checkpoint has no `{TOKENIZER}`, and no older tokenizer that one could be made of", hint=HINT)
    tokenizer = _fast(folder) if names[0] == TOKENIZER else _made_of_older(folder, names[0])
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens, direction="left")
    return tokenizer


def frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Special tokens before and after a text."""
    framed, bare = (tokenizer.encode("a", add_special_tokens=special).ids for special in (True, False))
    at = next((place for place in range(len(framed)) if framed[place : place + len(bare)] == bare), 0)
    return framed[:at], framed[at + len(bare) :]


def target_spellings(tokenizer: Tokenizer) -> dict[str, Spelling]:
    """How an answer may be written that is said by itself: as the tokenizer writes it, after a space, and as an entry of its own."""

    def entry(lead: str) -> Spelling:
        def ids(word: str) -> list[int]:
            found = tokenizer.token_to_id(f"{lead}{word}")
            return [] if found is None else [found]

        return ids

    return {
        "said alone": lambda word: tokenizer.encode(word, add_special_tokens=False).ids,
        "after a space": lambda word: tokenizer.encode(f" {word}", add_special_tokens=False).ids,
        f"entry with {METASPACE}": entry(METASPACE),
        f"entry with {BYTE_SPACE}": entry(BYTE_SPACE),
        "entry": entry(""),
    }


def next_spellings(tokenizer: Tokenizer) -> dict[str, Spelling]:
    """How an answer may be written that goes on from a prompt's end, after a space or without one."""
    before = tokenizer.encode(END, add_special_tokens=False).ids

    def following(lead: str) -> Spelling:
        def ids(word: str) -> list[int]:
            whole = tokenizer.encode(f"{END}{lead}{word}", add_special_tokens=False).ids
            # Where the answer changes the tokens before it, it is none of its own.
            return whole[len(before) :] if whole[: len(before)] == before else whole

        return ids

    return {"after the prompt and a space": following(" "), "right after the prompt": following("")}


def choose_answers(tokenizer: Tokenizer, spellings: Mapping[str, Spelling], words: tuple[str, str]) -> tuple[int, int]:
    """Token ids of both answers in the first spelling in which each is one known token of its own.

    Raises:
        BadBackbone: There is none; shows what the tokenizer makes of the answers.
    """
    tried: dict[str, str] = {}
    same = None
    for name, spell in spellings.items():
        ids = [spell(word) for word in words]
        if not all(ids):
            continue
        tried[name] = " / ".join(" ".join(_shown(tokenizer, one) for one in answer) for answer in ids)
        (first, *more), (second, *others) = ids
        if more or others or _is_unknown(tokenizer, first) or _is_unknown(tokenizer, second):
            continue
        if first != second:
            return first, second
        same = first
    wrong = "are not one known token each" if same is None else f"are the same token {same}"
    raise BadBackbone(
        f"the answers {' and '.join(f'`{word}`' for word in words)} {wrong}, so they cannot be told apart at one position",
        facts=tried,
        hint="take a checkpoint whose tokenizer knows both answers as words",
    )


def refuse_uncovered(tokenizer: Tokenizer, num_embeddings: int) -> None:
    """Make sure that the network has an embedding for every token; it may have more.

    Raises:
        BadBackbone: Some tokens have none.
    """
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= num_embeddings:
        raise BadBackbone(
            f"the tokenizer has ids up to {highest:,} and the network embeds {num_embeddings:,} of them",
            hint="take the tokenizer that was published with these weights",
        )


def _shown(tokenizer: Tokenizer, token: int) -> str:
    return str(tokenizer.id_to_token(token))


def _is_unknown(tokenizer: Tokenizer, token: int) -> bool:
    return _shown(tokenizer, token) in ("<unk>", getattr(tokenizer.model, "unk_token", None))


def _fast(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str((folder / TOKENIZER).read_text(encoding="utf-8"))
    except Exception as error:
        # The tokenizers package raises plain Exception.
        raise BadInput(f"`{TOKENIZER}` of the checkpoint cannot be read: {str(error).splitlines()[0]}", hint=HINT) from None


def _made_of_older(folder: Path, name: str) -> Tokenizer:
    """A fast tokenizer out of the files of an older one, as transformers makes it."""
    from transformers import AutoTokenizer

    try:
        made: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_fast=True)
        text: str = made.backend_tokenizer.to_str()
    except Exception as error:
        raise BadInput(
            f"the checkpoint has no `{TOKENIZER}`, and none can be made of `{name}` here: {type(error).__name__}",
            hint=f"make `{TOKENIZER}` elsewhere, with `save_pretrained` of a fast tokenizer, and put it into the folder",
        ) from None
    from tokenizers import Tokenizer

    return Tokenizer.from_str(text)
