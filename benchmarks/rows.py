"""Rows as the rival reads them: prompts as text, because it tokenises them at every step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e2urec_core.data.places import MARKS
from e2urec_core.data.prompts import PromptRule, rendered


@dataclass(frozen=True)
class Rows:
    """Examples with their prompts.

    Args:
        example_ids: int64, one a row.
        labels: int64, 0 or 1, one a row.
        texts: The prompts.
    """

    example_ids: numpy.ndarray
    labels: numpy.ndarray
    texts: list[str]

    def __len__(self) -> int:
        return len(self.example_ids)


def rows_of_part(examples: Path, interactions: Path, rule: PromptRule, request: Path, part: str) -> Rows:
    """The rows whose part under the request is `part`, in time order; the folders are those of artifacts."""
    marks = pq.read_table(request / MARKS, columns=["example_id", "part"])
    ids, labels, texts = [], [], []
    for batch, prompts in rendered(examples, interactions, rule):
        ids.append(batch["example_id"])
        labels.append(batch["label"])
        texts.append(prompts)
    table = pa.table([pa.chunked_array(column) for column in (ids, labels, texts)], names=["example_id", "label", "prompt"])
    assert marks["example_id"].combine_chunks().equals(table["example_id"].combine_chunks()), "the request marks other examples"
    chosen = table.filter(pc.equal(marks["part"], part))
    return Rows(chosen["example_id"].to_numpy(), chosen["label"].to_numpy().astype(numpy.int64), chosen["prompt"].to_pylist())
