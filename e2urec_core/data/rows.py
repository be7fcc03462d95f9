"""Reads the rows that a stage needs from the stored examples: ids, labels and prompts, nothing that names a user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from e2urec_core.data.batches import Prompts
    from e2urec_core.recommender import Recommender

EXAMPLES, MARKS = "examples.parquet", "parts.parquet"


@dataclass(frozen=True)
class Rows:
    """Some examples, in time order.

    Args:
        example_ids: int64, rising.
        labels: int8, 0 or 1.
        texts: The prompts.
    """

    example_ids: numpy.ndarray
    labels: numpy.ndarray
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def tokenised(self, recommender: Recommender) -> Prompts:
        """The rows as token ids of `recommender`'s tokenizer."""
        return recommender.prompts(self.example_ids, self.labels, self.texts)


def rows_of_split(examples: Path, *splits: str) -> Rows:
    """The examples whose `split` is one of `splits`; `examples` is the folder of an Examples artifact."""
    table = pq.read_table(examples / EXAMPLES, columns=["example_id", "label", "prompt", "split"])
    return _rows(table, table["split"], splits)


def rows_of_part(examples: Path, request: Path, *parts: str) -> Rows:
    """The examples whose part under the request is one of `parts`; `request` is the folder of a ForgetRequest artifact."""
    table = pq.read_table(examples / EXAMPLES, columns=["example_id", "label", "prompt"])
    marks = pq.read_table(request / MARKS, columns=["example_id", "part"])
    assert table["example_id"].equals(marks["example_id"]), "the request marks other examples"
    return _rows(table, marks["part"], parts)


def _rows(table: pa.Table, belongs: pa.ChunkedArray, wanted: tuple[str, ...]) -> Rows:
    chosen = table.filter(pc.is_in(belongs, value_set=pa.array(wanted, type=belongs.type)))
    return Rows(chosen["example_id"].to_numpy(), chosen["label"].to_numpy(), chosen["prompt"].to_pylist())
