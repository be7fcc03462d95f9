"""Rows as the rival reads them: prompts as text, because it tokenises them at every step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e2urec_core.data.tokens import EXAMPLES, MARKS


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


def rows_of_part(examples: Path, request: Path, part: str) -> Rows:
    """The rows whose part under the request is `part`, in time order; both are folders of artifacts."""
    table = pq.read_table(examples / EXAMPLES, columns=["example_id", "label", "prompt"])
    marks = pq.read_table(request / MARKS, columns=["example_id", "part"])
    assert marks["example_id"].equals(table["example_id"]), "the request marks other examples"
    chosen = table.filter(pc.equal(marks["part"], part))
    labels = chosen["label"].to_numpy().astype(numpy.int64)
    return Rows(chosen["example_id"].to_numpy(), labels, chosen["prompt"].to_pylist())
