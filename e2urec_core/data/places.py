"""What the files inside of artifacts are called, for all who write or read them."""

from __future__ import annotations

from pathlib import Path

PARTS, ITEMS, USERS, QUARANTINE = "interactions", "items.parquet", "users.parquet", "quarantine.parquet"
"""Of stored interactions: a folder of part files, the tables of items and users, and what was put aside."""
EXAMPLES, MARKS, TOKENS, TOKENIZER = "examples.parquet", "parts.parquet", "tokens.parquet", "tokenizer.json"
ENSEMBLE = "ensemble.json"
"""What an ensemble of networks, see `ensemble.py`, has in the place of a network's own files."""
BUNDLE, PROBE, PROMPT = "artifacts/bundle", "probe.json", "prompt.json"
"""Of a bundle: where the released recommender lies, and beside it invented rows with its scores, and how its prompts are written."""
NAMED, GONE = "interactions.parquet", "gone.parquet"
"""Of a request: users and items of single interactions, where some are named, and then its `examples.parquet` holds the rows that are
told anew; and the numbers of all examples that are no longer there once it is carried out."""
SCORES, FACTS = "scores.parquet", "facts.json"
"""What models answered; and what a stage notes about itself, in numbers that do not depend on the clock."""
HELD_OUT, PROPOSED = "held_out.parquet", "proposed.parquet"
"""What networks answer to users they never trained on; and who and what is proposed to be forgotten, by name."""
VERDICT = "verdict.json"
"""What every gate said."""


def part_files(interactions: Path) -> list[Path]:
    """The part files of a folder of stored interactions, in the order in which they were appended."""
    return sorted((interactions / PARTS).glob("part-*.parquet"))


def part_file(interactions: Path, number: int) -> Path:
    """Where part `number`, from 0, of a folder of stored interactions lies."""
    return interactions / PARTS / f"part-{number:05}.parquet"
