"""Networks of several sizes from random weights, and rows to run them on: what utilisation and memory are measured with.

What a network has learned does not change how long its products take, so nothing here is trained for its own sake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.tokens import TOKENS as CONTRACT
from e2urec_core.backbones.base import Backbone
from e2urec_core.data.batches import Prompts
from e2urec_core.data.places import MARKS, TOKENIZER, TOKENS
from e2urec_core.data.tokens import load_tokenizer, prompts_of_split
from e2urec_core.seeding import numpy_generator

if TYPE_CHECKING:
    from tokenizers import Tokenizer

T5, BART = "tiny_t5", "tiny_bart"
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"kind": T5},
    "tiny-bart": {"kind": BART},
    "width-256": {"kind": T5, "width": 256, "num_layers": 4, "num_decoder_layers": 4, "inner_width": 1024},
    "width-512": {"kind": T5, "width": 512, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8, "inner_width": 2048},
    "t5-base": {
        "kind": T5,
        "width": 768,
        "num_layers": 12,
        "num_decoder_layers": 12,
        "num_heads": 12,
        "inner_width": 3072,
        "dropout": 0.1,
        "vocabulary": 32128,
    },
    "bart-base": {
        "kind": BART,
        "width": 768,
        "num_layers": 6,
        "num_decoder_layers": 6,
        "num_heads": 12,
        "inner_width": 3072,
        "dropout": 0.1,
        "vocabulary": 50265,
        "max_tokens": 1024,
    },
}
"""Sizes by name; what is not named is the backbone's default. The last two are those of the published T5-base and BART-base."""
FULL_VOCABULARY = ("t5-base", "bart-base")
ROWS_AT_A_TIME = 8192


@dataclass(frozen=True)
class Folders:
    """Rows and the marks of a request."""

    tokens: Path
    request: Path


def backbone_of(shape: str) -> Backbone:
    """The backbone of a named size."""
    return Backbone.model_validate(SHAPES[shape])


def tokenizer_for(shape: str, tokenizer: Tokenizer) -> Tokenizer:
    """A copy of `tokenizer`, filled up with unused words where the shape is that of a published network with its vocabulary."""
    from tokenizers import Tokenizer

    copied = Tokenizer.from_str(tokenizer.to_str())
    if shape in FULL_VOCABULARY:
        missing = SHAPES[shape]["vocabulary"] - copied.get_vocab_size()
        copied.add_tokens([f"<unused {number}>" for number in range(max(0, missing))])
    return copied


def untrained_tokenizer(shape: str) -> Tokenizer:
    """A tokenizer that knows bytes and the two answers."""
    return tokenizer_for(shape, backbone_of(shape).tokenizer([]))


def cut_rows(tokens: Path, tokenizer: Tokenizer, num_rows: int, forgotten_share: float, place: Path) -> Folders:
    """The first training rows of `tokens`, over again where there are too few, as folders below `place`."""
    rows = prompts_of_split(tokens, "train")
    return write_rows(rows.select(numpy.arange(num_rows) % len(rows)), tokenizer, forgotten_share, place)


def random_rows(tokenizer: Tokenizer, num_rows: int, num_tokens: int, forgotten_share: float, place: Path) -> Folders:
    """Rows of random tokens, `num_tokens` on average and half as many to half as many again, as folders below `place`."""
    random = numpy_generator(0, "benchmark-rows")
    starts = numpy.concatenate([[0], random.integers(num_tokens // 2, num_tokens * 3 // 2 + 1, num_rows).cumsum()])
    flat = random.integers(4, tokenizer.get_vocab_size(), starts[-1], dtype=numpy.int32)
    rows = Prompts(numpy.arange(num_rows), random.integers(0, 2, num_rows), flat, starts)
    return write_rows(rows, tokenizer, forgotten_share, place)


def write_rows(rows: Prompts, tokenizer: Tokenizer, forgotten_share: float, place: Path) -> Folders:
    """Write training rows and a request that forgets an evenly spread share of them, as the stages of this project would."""
    folders = Folders(place / "tokens", place / "request")
    for folder in (folders.tokens, folders.request):
        folder.mkdir(parents=True)
    with pq.ParquetWriter(folders.tokens / TOKENS, CONTRACT.schema(), compression="zstd", write_page_checksum=True) as writer:
        for table in _tables(rows):
            writer.write_table(table)
    (folders.tokens / TOKENIZER).write_text(tokenizer.to_str())
    numbers = numpy.arange(len(rows))
    is_forgotten = numpy.floor((numbers + 1) * forgotten_share) > numpy.floor(numbers * forgotten_share)
    parts = numpy.where(is_forgotten, "forgotten", "retained")
    pq.write_table(pa.table({"example_id": pa.array(numbers), "part": pa.array(parts.tolist())}), folders.request / MARKS)
    return folders


def tokenizer_of(folder: Path, shape: str) -> Tokenizer:
    """The tokenizer that lies in `folder`, filled up for the shape."""
    return tokenizer_for(shape, load_tokenizer(folder))


def _tables(rows: Prompts) -> Iterator[pa.Table]:
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        numbers = numpy.arange(start, min(start + ROWS_AT_A_TIME, len(rows)))
        some = rows.select(numbers)
        columns = [
            pa.array(numbers),
            pa.array(numpy.zeros(len(some), dtype=numpy.int64)),
            pa.array(["train"] * len(some)),
            pa.array(some.labels.astype(numpy.int8)),
            pa.ListArray.from_arrays(pa.array(some.starts.astype(numpy.int32)), pa.array(some.flat)),
        ]
        yield pa.table(columns, schema=CONTRACT.schema())
