"""A few users who met a few things, as a table, and what the stages make of it. User and item ids are canaries."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from e2urec_core import stages
from e2urec_core.backbones.tiny_t5 import TinyT5
from e2urec_core.data.batches import Prompts
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.split import SplitRule
from e2urec_core.data.tokens import write_tokens
from e2urec_core.datasets.interactions import Interactions as Table

Row = tuple[str, str, int, int]
FIRST_S = 978_300_000
USERS, ITEMS = ["canary-ann", "canary-bob", "canary-cid"], [f"canary-thing-{number}" for number in range(9)]
HISTORY, SPLIT = HistoryRule(length=3, at_least=2), SplitRule(train_share=0.5, validation_share=0.25, holdout_share=0)
WHOLE_STORY = [(user, item, 1 + (place + number) % 5, FIRST_S + 10 * place + number) for number, user in enumerate(USERS)
               for place, item in enumerate(ITEMS)]  # fmt: skip


def small_tokenizer() -> Tokenizer:
    """Knows every item."""
    texts = [f"Watched so far, oldest first: {item} ({stars}*). Will the user like" for item in ITEMS for stars in range(6)]
    return TinyT5(vocabulary=400).tokenizer(texts)


def made(place: Path, rows: list[Row], tokenizer: Tokenizer) -> tuple[Path, Path, Path]:
    """Folders of interactions, examples and tokens of a table."""
    folders = (place / "interactions", place / "examples", place / "tokens")
    for folder in folders:
        folder.mkdir(parents=True)
    table = "\n".join(["user_id,item_id,rating,timestamp", *(",".join(map(str, row)) for row in rows)])
    (place / "table.csv").write_text(table)
    ingest(Table(path=str(place / "table.csv"), time_unit="s"), IngestRule(), folders[0])
    stages.split(folders[0], HISTORY, SPLIT, 0, folders[1])
    write_tokens(folders[1], folders[0], PromptRule(), tokenizer, folders[2])
    return folders


def told(rows: Prompts) -> dict[int, list[int]]:
    """Tokens by example."""
    return {int(number): rows.flat[slice(*rows.starts[at : at + 2])].tolist() for at, number in enumerate(rows.example_ids)}
