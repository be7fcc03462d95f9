"""Both teachers' outputs at the answer position, written once to Parquet and read back row group by row group.

What is kept are the outputs of the original and of the augmented model, not their combination, so that the knobs of the loss can be
swept without a teacher's forward pass. Rows are written in a random order drawn from the seed: reading row groups one after another
then is a shuffled pass, with one row group in memory at a time. Retained rows carry no augmented outputs, and only as many of them
are cached as unlearning may draw.

The file's metadata names the weights and the tokenizer it was made from; a cache of other models is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from data_contracts.teacher_logits import teacher_logits
from e2urec_core.artifacts import file_digest
from e2urec_core.checkpoints import KeptTables
from e2urec_core.data.batches import Prompts, pass_order
from e2urec_core.errors import StaleCache
from e2urec_core.ops.answers import narrow
from e2urec_core.recommender import TOKENIZER, Answers, Recommender
from e2urec_core.seeding import numpy_generator
from e2urec_core.settings import CacheRule

Part = Literal["forgotten", "retained"]
PARTS: tuple[Part, ...] = ("forgotten", "retained")
METADATA = b"e2urec"


@dataclass(frozen=True)
class Stamp:
    """What a cache belongs to.

    Args:
        original: SHA-256 of the original's weights.
        augmented: SHA-256 of the augmented model's weights.
        tokenizer: SHA-256 of the tokenizer both share.
    """

    original: str
    augmented: str
    tokenizer: str

    @classmethod
    def of(cls, original: Path, augmented: Path) -> Stamp:
        """The stamp of two recommenders' folders."""
        weights = "model.safetensors"
        return cls(file_digest(original / weights), file_digest(augmented / weights), file_digest(original / TOKENIZER))


@dataclass(frozen=True)
class TeacherRows:
    """One batch of cached rows.

    Args:
        index: Positions of the rows in the `Prompts` that were cached.
        original: Original's outputs, (row, support).
        augmented: Augmented model's outputs, (row, support), or None for retained rows.
        support: Token ids of the kept columns, (row, kept), or None for the whole vocabulary.
    """

    index: numpy.ndarray
    original: Tensor
    augmented: Tensor | None
    support: Tensor | None

    def kept(self, logits: Tensor, rule: CacheRule) -> Tensor:
        """A student's `logits` (row, vocab) on the same columns as the teachers' outputs: (row, support)."""
        if self.support is None:
            return logits.float()
        return narrow(logits, self.support.to(logits.device), remainder(rule))


def remainder(rule: CacheRule) -> str:
    """What stands for the columns that are not kept; see `narrow`."""
    return "logsumexp" if rule.support == "top" else "none"


def planned_rows(num_retained: int, num_forgotten: int, rule: CacheRule, seed: int) -> dict[Part, numpy.ndarray]:
    """Positions of the rows to cache, in the order they are written: all forgotten rows, and a draw of the retained ones."""
    wanted = min(num_retained, max(1, round(rule.retained_per_forgotten * num_forgotten)))
    return {
        "forgotten": numpy_generator(seed, "cache-forgotten").permutation(num_forgotten),
        "retained": numpy_generator(seed, "cache-retained").permutation(num_retained)[:wanted],
    }


def write_cache(
    folder: Path,
    original: Recommender,
    augmented: Recommender,
    rows: dict[Part, Prompts],
    rule: CacheRule,
    stamp: Stamp,
    seed: int,
    each: Callable[[int], None] = lambda rows: None,
    kept: KeptTables | None = None,
) -> int:
    """Score the planned rows with both teachers and write `forgotten.parquet` and `retained.parquet` into `folder`.

    Memory holds one row group, whatever the number of rows.

    Args:
        folder: Where to write.
        original: Remembering teacher.
        augmented: Original after further training on the forgotten rows.
        rows: The request's forgotten and retained training rows.
        rule: What to keep.
        stamp: What the cache belongs to.
        seed: The run's seed.
        each: Told how many rows were scored.
        kept: Where scored row groups lie until the file is whole, so that a killed stage scores none of them twice.

    Returns:
        Number of rows written.
    """
    vocabulary = _vocabulary(original)
    plan = planned_rows(len(rows["retained"]), len(rows["forgotten"]), rule, seed)
    num_ids = None if rule.support == "full" else 2 if rule.support == "answers" else min(rule.top, vocabulary - 1)
    width = vocabulary if num_ids is None else num_ids + (rule.support == "top")
    facts = {**asdict(stamp), "rule": rule.canonical(), "seed": seed, "rows": {part: _rows_digest(rows[part]) for part in PARTS}}
    metadata = {METADATA: json.dumps(facts, sort_keys=True).encode()}
    for part in PARTS:
        schema = teacher_logits(width, num_ids, part).schema().with_metadata(metadata)
        # A dictionary of floats that hardly repeat is larger than the floats, and slower both ways.
        how = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}
        with pq.ParquetWriter(folder / f"{part}.parquet", schema, **how) as writer:
            for number, start in enumerate(range(0, len(plan[part]), rule.rows_per_group)):
                group = plan[part][start : start + rule.rows_per_group]
                table = kept.get(part, number, schema) if kept else None
                if table is None:
                    teacher = augmented if part == "forgotten" else None
                    table = _scored(original, teacher, rows[part], group, rule, width, schema, each)
                    if kept:
                        kept.put(part, number, table)
                else:
                    each(len(group))
                writer.write_table(table)
    return sum(len(order) for order in plan.values())


class TeacherCache:
    """Reads what `write_cache` wrote."""

    def __init__(self, folder: Path, stamp: Stamp, rows: dict[Part, Prompts]) -> None:
        """Open the cache for the rows it was made from.

        Raises:
            StaleCache: It was made from other weights, another tokenizer or other rows.
        """
        self._rows = rows
        self._files = {part: pq.ParquetFile(folder / f"{part}.parquet", page_checksum_verification=True) for part in PARTS}
        facts = json.loads(self._files["forgotten"].schema_arrow.metadata[METADATA])
        self.rule = CacheRule.model_validate(facts["rule"])
        for name in ("original", "augmented", "tokenizer"):
            if facts[name] != getattr(stamp, name):
                raise StaleCache(
                    f"the teacher cache was made with another {name}",
                    facts={"cache has": facts[name][:12], "at hand": getattr(stamp, name)[:12]},
                    hint="run the stage `cache-teachers` again",
                )
        for part in PARTS:
            # The plan is part of what the cache promises: rows that are not the request's rows belong to another request.
            plan = planned_rows(len(rows["retained"]), len(rows["forgotten"]), self.rule, facts["seed"])[part]
            if self._files[part].metadata.num_rows != len(plan):
                raise StaleCache(
                    f"the teacher cache holds {self._files[part].metadata.num_rows:,} {part} rows, but the request has {len(plan):,}",
                    hint="run the stage `cache-teachers` again",
                )
            if facts["rows"][part] != _rows_digest(rows[part]):
                raise StaleCache(f"the teacher cache holds other {part} rows than the request", hint="run the stage `cache-teachers` again")

    def num_rows(self, part: Part) -> int:
        """Cached rows of `part`."""
        return int(self._files[part].metadata.num_rows)

    def batches(self, part: Part, batch_size: int, seed: int, number: int) -> Iterator[TeacherRows]:
        """Every cached row of `part` once, in the order of pass `number`; each row group is decoded once."""
        file, rows = self._files[part], self._rows[part]
        for place in numpy_generator(seed, f"{part}-groups-{number}").permutation(file.num_row_groups):
            table = file.read_row_group(int(place)).combine_chunks()
            index = numpy.searchsorted(rows.example_ids, table["example_id"].to_numpy())
            for chosen in pass_order(rows.lengths[index], batch_size, seed, number, purpose=f"{part}-group-{place}"):
                yield TeacherRows(
                    index[chosen],
                    _tensor(table, "original")[chosen],
                    _tensor(table, "augmented")[chosen] if part == "forgotten" else None,
                    _tensor(table, "support")[chosen].long() if "support" in table.column_names else None,
                )

    def num_batches(self, part: Part, batch_size: int) -> int:
        """Batches in one pass over `part`."""
        meta = self._files[part].metadata
        return sum(-(-meta.row_group(group).num_rows // batch_size) for group in range(meta.num_row_groups))


def _scored(
    original: Recommender,
    augmented: Recommender | None,
    rows: Prompts,
    group: numpy.ndarray,
    rule: CacheRule,
    width: int,
    schema: pa.Schema,
    each: Callable[[int], None],
    batch_size: int = 256,
) -> pa.Table:
    device = next(original.network.parameters()).device
    outputs = {name: numpy.empty((len(group), width), dtype=numpy.float32) for name in ("original", "augmented")}
    ids = numpy.empty((len(group), width - (rule.support == "top")), dtype=numpy.int32)
    by_length = numpy.argsort(-rows.lengths[group], kind="stable")
    for teacher in filter(None, (original, augmented)):
        teacher.network.eval()
    with torch.inference_mode():
        for start in range(0, len(group), batch_size):
            places = by_length[start : start + batch_size]
            batch = rows.batch(group[places]).to(device)
            logits = original.logits(batch)
            support = _support(logits, rule, original.answers)
            outputs["original"][places] = _kept(logits, support, rule)
            if augmented is not None:
                outputs["augmented"][places] = _kept(augmented.logits(batch), support, rule)
            if support is not None:
                ids[places] = support.cpu().numpy()
            each(len(places))
    columns: dict[str, pa.Array] = {
        "example_id": pa.array(rows.example_ids[group]),
        "label": pa.array(rows.labels[group].astype(numpy.int8)),
        "original": _list_array(outputs["original"]),
        "augmented": _list_array(outputs["augmented"]),
        "support": _list_array(ids),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _support(logits: Tensor, rule: CacheRule, answers: Answers) -> Tensor | None:
    if rule.support == "full":
        return None
    pair = torch.tensor([[answers.yes_id, answers.no_id]], device=logits.device).expand(len(logits), 2)
    if rule.support == "answers":
        return pair
    # The answers come first, so that they are kept whatever the original thinks of them.
    others = logits.scatter(1, pair, float("-inf")).topk(min(rule.top, logits.shape[1] - 1) - 2, dim=1).indices
    return torch.cat([pair, others], dim=1)


def _kept(logits: Tensor, support: Tensor | None, rule: CacheRule) -> numpy.ndarray:
    kept: numpy.ndarray = (logits.float() if support is None else narrow(logits, support, remainder(rule))).cpu().numpy()
    return kept


def _rows_digest(rows: Prompts) -> str:
    return hashlib.sha256(rows.example_ids.tobytes() + rows.labels.tobytes() + rows.flat.tobytes() + rows.starts.tobytes()).hexdigest()


def _list_array(values: numpy.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _tensor(table: pa.Table, column: str) -> Tensor:
    """A column of lists as a (row, column) tensor over Arrow's own memory; read only."""
    array = table[column].chunk(0)
    return torch.utils.dlpack.from_dlpack(array.flatten()).reshape(len(array), -1)


def _vocabulary(recommender: Recommender) -> int:
    size: int = recommender.network.config.vocab_size  # type: ignore[union-attr, assignment]
    return size
