"""Turns the stored examples into token ids, once, and reads the rows that a stage needs: numbers, labels and tokens, no name and no text.

Both ways go row group by row group, so that memory holds the rows that are asked for and no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.tokens import TOKENS as CONTRACT
from e2urec_core.data.batches import Prompts
from e2urec_core.data.encoding import Encoded, PromptEncoder
from e2urec_core.data.places import EXAMPLES, MARKS, TOKENIZER, TOKENS
from e2urec_core.data.prompts import COLUMNS, ROWS_AT_A_TIME, Catalogue, PromptRule, rendered

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_TEXTS = 200_000


def training_texts(examples: Path, interactions: Path, prompt: PromptRule, most: int = MOST_TEXTS) -> Iterator[str]:
    """Prompts of the training rows, in time order; the folders are those of an Examples and its Interactions artifact.

    Where there are more than `most`, every second, third, ... is taken: what words a tokenizer learns does not need them all.
    """
    split = pq.read_table(examples / EXAMPLES, columns=["split"], read_dictionary=["split"])["split"]
    every, seen = -(-pc.sum(pc.equal(split, "train")).as_py() // most), 0
    for batch, told in rendered(examples, interactions, prompt):
        chosen = told.filter(pc.equal(batch["split"], "train"))
        yield from chosen.take(pa.array(range(-seen % every, len(chosen), every), pa.int64())).to_pylist() if every else []
        seen += len(chosen)


def write_tokens(examples: Path, interactions: Path, prompt: PromptRule, tokenizer: Tokenizer, place: Path) -> Encoded:
    """Write `tokens.parquet` and `tokenizer.json` into `place`.

    A prompt that is longer than the tokenizer's limit loses the oldest items of its history until it fits; its end is never cut.

    Args:
        examples: Folder of an Examples artifact.
        interactions: Folder of the interactions that it was made of.
        prompt: The wording.
        tokenizer: Its truncation, if any, is the limit.
        place: Where the files go.

    Raises:
        BadInput: A prompt is too long without any history.
    """
    encoder, told = PromptEncoder(tokenizer, Catalogue(interactions, prompt), prompt), Encoded()
    file = pq.ParquetFile(examples / EXAMPLES)
    with pq.ParquetWriter(place / TOKENS, CONTRACT.schema(), compression="zstd", write_page_checksum=True) as writer:
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=COLUMNS):
            made, left_out = encoder.encode(batch)
            ids = pa.ListArray.from_arrays(pa.array(made.starts.astype(numpy.int32)), pa.array(made.flat))
            columns = [batch["example_id"], user_numbers(batch["user_id"]), batch["split"].cast(pa.string()), batch["label"], ids]
            writer.write_table(pa.table(columns, schema=CONTRACT.schema()))
            told = told.plus(made, left_out)
    (place / TOKENIZER).write_text(tokenizer.to_str())
    return told


def user_numbers(ids: pa.Array) -> pa.Array:
    """63 bits of each user id's digest: the same number in every run, and no name."""
    names = ids.dictionary_encode() if not isinstance(ids, pa.DictionaryArray) else ids
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names.dictionary.to_pylist())
    numbers = (numpy.frombuffer(digests, dtype="<u8") >> numpy.uint64(1)).astype(numpy.int64)
    return pa.array(numbers[names.indices.to_numpy(zero_copy_only=False)] if len(names) else numbers)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the recommender or of the tokens in `folder`."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str((folder / TOKENIZER).read_text())


def prompts_of_split(tokens: Path, split: str, retold: Path | None = None) -> Prompts:
    """The rows of one split, in time order.

    Args:
        tokens: Folder of a Tokens artifact.
        split: Name of the split.
        retold: Folder of a Retold artifact, whose prompts take the place of the same rows' in `tokens`.
    """
    return _told_anew(_read(tokens, lambda batch, _start: pc.equal(batch["split"], split)), retold)


def prompts_of_part(tokens: Path, request: Path, part: str, retold: Path | None = None) -> Prompts:
    """The rows whose part under the request is `part`, in time order.

    Args:
        tokens: Folder of a Tokens artifact.
        request: Folder of a ForgetRequest artifact.
        part: Name of the part.
        retold: See `prompts_of_split`.
    """
    marks = pq.read_table(request / MARKS, columns=["example_id", "part"]).combine_chunks()
    assert len(marks) == pq.read_metadata(tokens / TOKENS).num_rows, "the request marks other examples"

    def chosen(batch: pa.RecordBatch, start: int) -> pa.Array:
        here = marks.slice(start, batch.num_rows).combine_chunks()
        assert here["example_id"].chunk(0).equals(batch["example_id"]), "the request marks other examples"
        return pc.equal(here["part"].chunk(0), part)

    return _told_anew(_read(tokens, chosen), retold)


def prompts_retold(retold: Path) -> Prompts:
    """The rows of a Retold artifact, whatever their part, in time order."""
    return _read(retold, lambda batch, _start: pa.repeat(pa.scalar(value=True), batch.num_rows))


def _told_anew(rows: Prompts, retold: Path | None) -> Prompts:
    if retold is None:
        return rows
    anew = prompts_retold(retold)
    order = numpy.argsort(anew.example_ids)
    at = order[numpy.minimum(numpy.searchsorted(anew.example_ids, rows.example_ids, sorter=order), len(order) - 1)]
    changed = anew.example_ids[at] == rows.example_ids
    return rows.joined(anew).select(numpy.where(changed, len(rows) + at, numpy.arange(len(rows))))


def _read(tokens: Path, chosen: Callable[[pa.RecordBatch, int], pa.Array]) -> Prompts:
    file = pq.ParquetFile(tokens / TOKENS, page_checksum_verification=True)
    most = file.metadata.num_rows
    at = file.schema_arrow.names.index("token_ids")
    most_tokens = sum(file.metadata.row_group(group).column(at).num_values for group in range(file.num_row_groups))
    # Room for every row of the file; what is not filled never becomes memory.
    example_ids, users, labels, lengths = (numpy.empty(most, numpy.int64) for _ in range(4))
    flat = numpy.empty(most_tokens, numpy.int32)
    rows = filled = start = 0
    for batch in file.iter_batches(ROWS_AT_A_TIME):
        kept = batch.filter(chosen(batch, start))
        start += batch.num_rows
        here, ids = slice(rows, rows + kept.num_rows), kept["token_ids"].flatten()
        example_ids[here], labels[here] = kept["example_id"].to_numpy(), kept["label"].to_numpy()
        users[here] = kept["user"].to_numpy()
        lengths[here] = pc.list_value_length(kept["token_ids"]).to_numpy(zero_copy_only=False)
        flat[filled : filled + len(ids)] = ids.to_numpy()
        rows, filled = rows + kept.num_rows, filled + len(ids)
    starts = numpy.zeros(rows + 1, dtype=numpy.int64)
    numpy.cumsum(lengths[:rows], out=starts[1:])
    return Prompts(example_ids[:rows], labels[:rows], flat[:filled], starts, users[:rows])
