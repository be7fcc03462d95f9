"""Turns the stored examples into token ids, once, and reads the rows that a stage needs: ids, labels and tokens, no user and no text.

Both ways go row group by row group, so that memory holds the rows that are asked for and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.tokens import TOKENS as CONTRACT
from e2urec_core.data.batches import Prompts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EXAMPLES, MARKS, TOKENS, TOKENIZER = "examples.parquet", "parts.parquet", "tokens.parquet", "tokenizer.json"
ROWS_AT_A_TIME = 8192


def training_texts(examples: Path) -> Iterator[str]:
    """The prompts of the training rows, in time order; `examples` is the folder of an Examples artifact."""
    for batch in pq.ParquetFile(examples / EXAMPLES).iter_batches(ROWS_AT_A_TIME, columns=["split", "prompt"]):
        yield from batch.filter(pc.equal(batch["split"], "train"))["prompt"].to_pylist()


def write_tokens(examples: Path, tokenizer: Tokenizer, place: Path) -> int:
    """Write `tokens.parquet` and `tokenizer.json` into `place`; returns the number of rows."""
    file, rows = pq.ParquetFile(examples / EXAMPLES), 0
    with pq.ParquetWriter(place / TOKENS, CONTRACT.schema(), compression="zstd", write_page_checksum=True) as writer:
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=["example_id", "split", "label", "prompt"]):
            encoded = [row.ids for row in tokenizer.encode_batch_fast(batch["prompt"].to_pylist())]
            columns = [batch["example_id"], batch["split"].cast(pa.string()), batch["label"], pa.array(encoded, pa.list_(pa.int32()))]
            writer.write_table(pa.table(columns, schema=CONTRACT.schema()))
            rows += batch.num_rows
    (place / TOKENIZER).write_text(tokenizer.to_str())
    return rows


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the recommender or of the tokens in `folder`."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str((folder / TOKENIZER).read_text())


def prompts_of_split(tokens: Path, split: str) -> Prompts:
    """The rows of one split, in time order; `tokens` is the folder of a Tokens artifact."""
    return _read(tokens, lambda batch, _start: pc.equal(batch["split"], split))


def prompts_of_part(tokens: Path, request: Path, part: str) -> Prompts:
    """The rows whose part under the request is `part`, in time order; `request` is the folder of a ForgetRequest artifact."""
    marks = pq.read_table(request / MARKS, columns=["example_id", "part"]).combine_chunks()
    assert len(marks) == pq.read_metadata(tokens / TOKENS).num_rows, "the request marks other examples"

    def chosen(batch: pa.RecordBatch, start: int) -> pa.Array:
        here = marks.slice(start, batch.num_rows).combine_chunks()
        assert here["example_id"].chunk(0).equals(batch["example_id"]), "the request marks other examples"
        return pc.equal(here["part"].chunk(0), part)

    return _read(tokens, chosen)


def _read(tokens: Path, chosen: Callable[[pa.RecordBatch, int], pa.Array]) -> Prompts:
    file = pq.ParquetFile(tokens / TOKENS, page_checksum_verification=True)
    most = file.metadata.num_rows
    at = file.schema_arrow.names.index("token_ids")
    most_tokens = sum(file.metadata.row_group(group).column(at).num_values for group in range(file.num_row_groups))
    # Room for every row of the file; what is not filled never becomes memory.
    example_ids, labels, lengths = (numpy.empty(most, numpy.int64) for _ in range(3))
    flat = numpy.empty(most_tokens, numpy.int32)
    rows = filled = start = 0
    for batch in file.iter_batches(ROWS_AT_A_TIME):
        kept = batch.filter(chosen(batch, start))
        start += batch.num_rows
        here, ids = slice(rows, rows + kept.num_rows), kept["token_ids"].flatten()
        example_ids[here], labels[here] = kept["example_id"].to_numpy(), kept["label"].to_numpy()
        lengths[here] = pc.list_value_length(kept["token_ids"]).to_numpy(zero_copy_only=False)
        flat[filled : filled + len(ids)] = ids.to_numpy()
        rows, filled = rows + kept.num_rows, filled + len(ids)
    starts = numpy.zeros(rows + 1, dtype=numpy.int64)
    numpy.cumsum(lengths[:rows], out=starts[1:])
    return Prompts(example_ids[:rows], labels[:rows], flat[:filled], starts)
