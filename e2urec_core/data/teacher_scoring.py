"""Runs the teachers once over the rows that unlearning may draw, and writes what they say to Parquet.

What is kept are the outputs of the original and of the augmented model, not their combination, so that the knobs of the loss can be
swept without a teacher's forward pass. There are two files:

- `original.parquet`: the original's outputs on retained rows. Rows come in one order that is drawn from the seed over all training
  rows, whoever is forgotten, and end with the group in which unlearning has enough. A later request against the same original finds
  the same groups and takes them as they are, less the rows it forgets.
- `forgotten.parquet`: both teachers' outputs on the rows to forget.

Both stand in a random order: reading row groups one after another is a shuffled pass, with one group in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from data_contracts.teacher_logits import Part, teacher_logits
from e2urec_core.artifacts import file_digest
from e2urec_core.checkpoints import KeptTables
from e2urec_core.data.batches import Prompts, under_budget
from e2urec_core.data.places import TOKENIZER
from e2urec_core.data.streaming import write_row_groups
from e2urec_core.engine import Bench, Read
from e2urec_core.errors import BadSetting
from e2urec_core.ops.answers import narrow
from e2urec_core.recommender import Answers, Recommender
from e2urec_core.seeding import numpy_generator
from e2urec_core.settings import CacheRule

METADATA = b"e2urec"
OUTPUTS = ("original", "augmented", "support")
STATES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FILES: dict[Part, str] = {"forgotten": "forgotten.parquet", "retained": "original.parquet"}


@dataclass(frozen=True)
class Stamp:
    """What a file of outputs belongs to.

    Args:
        original: SHA-256 of the original's weights.
        tokenizer: SHA-256 of the tokenizer.
        rows: SHA-256 of the rows it was drawn from.
        augmented: SHA-256 of the augmented model's weights, or nothing where it did not run.
    """

    original: str
    tokenizer: str
    rows: str
    augmented: str = ""

    @classmethod
    def of(cls, rows: Prompts, original: Path, augmented: Path | None = None) -> Stamp:
        """The stamp of rows and of recommenders' folders."""
        weights = "model.safetensors"
        made = file_digest(augmented / weights) if augmented else ""
        return cls(file_digest(original / weights), file_digest(original / TOKENIZER), rows_digest(rows), made)


def rows_digest(rows: Prompts) -> str:
    """SHA-256 of ids, labels and tokens."""
    digest = hashlib.sha256()
    for array in (rows.example_ids, rows.labels, rows.flat, rows.starts):
        digest.update(numpy.ascontiguousarray(array).view(numpy.uint8).data)
    return digest.hexdigest()


def drawn_order(num_rows: int, seed: int) -> numpy.ndarray:
    """Positions of the training rows in the order in which the original's outputs are kept."""
    return numpy_generator(seed, "cache-retained").permutation(num_rows)


def num_planned(num_retained: int, num_forgotten: int, rule: CacheRule) -> int:
    """Retained rows that unlearning may draw."""
    assert rule.retained_per_forgotten is not None, "the plan needs the number of draws"
    return min(num_retained, max(1, rule.least_retained, round(rule.retained_per_forgotten * num_forgotten)))


def write_original(
    folder: Path,
    original: Recommender,
    rows: Prompts,
    forgotten: numpy.ndarray,
    rule: CacheRule,
    stamp: Stamp,
    bench: Bench,
    earlier: Sequence[Path] = (),
    kept: KeptTables | None = None,
) -> int:
    """Write the original's outputs on as many retained rows as unlearning may draw.

    Args:
        folder: Where to write.
        original: Remembering teacher.
        rows: All training rows.
        forgotten: True for those to forget, (row,).
        rule: What to keep.
        stamp: What the file belongs to.
        bench: Seed, device, watcher.
        earlier: Folders of outputs for other requests; their groups are taken where they belong to the same original and rows.
        kept: Where finished row groups lie until the file is whole.

    Returns:
        Number of rows written, whole row groups.
    """
    order = drawn_order(len(rows), bench.seed)
    enough = numpy.cumsum(~forgotten[order]) >= num_planned(int((~forgotten).sum()), int(forgotten.sum()), rule)
    wanted = int(numpy.argmax(enough)) + 1 if enough.any() else len(order)
    size = rule.rows_per_group
    # The last group is whole, so that it is the same group for every request.
    order = order[: -(-wanted // size) * size]
    schema = _schema("retained", original, rule, stamp, bench)
    told, read = _told(bench, len(order)), bench.reader(original)
    original.network.eval()
    same = {folder: _same_groups(folder, schema) for folder in earlier}
    source = max(same, key=lambda folder: same[folder], default=None)
    groups: list[Callable[[], pa.Table]] = []
    for number, start in enumerate(range(0, len(order), size)):
        group = order[start : start + size]
        if source is not None and number < same[source]:
            groups.append(partial(_taken, source / FILES["retained"], number, schema, told))
        else:
            groups.append(partial(_scored, [read], rows, group, rule, original.answers, schema, bench, told))
    write_row_groups(folder / FILES["retained"], schema, groups, kept, bench.workers, told)
    return len(order)


def write_forgotten(
    folder: Path,
    original: Recommender,
    augmented: Recommender,
    rows: Prompts,
    rule: CacheRule,
    stamp: Stamp,
    bench: Bench,
    kept: KeptTables | None = None,
) -> int:
    """Write both teachers' outputs on the rows to forget; see `write_original`."""
    order = numpy_generator(bench.seed, "cache-forgotten").permutation(len(rows))
    schema = _schema("forgotten", original, rule, stamp, bench)
    told, readers = _told(bench, len(order)), [bench.reader(original), bench.reader(augmented)]
    original.network.eval()
    augmented.network.eval()
    groups = [
        partial(_scored, readers, rows, order[start : start + rule.rows_per_group], rule, original.answers, schema, bench, told)
        for start in range(0, len(order), rule.rows_per_group)
    ]
    write_row_groups(folder / FILES["forgotten"], schema, groups, kept, bench.workers, told)
    return len(order)


def original_outputs(original: Recommender, rows: Prompts, rule: CacheRule, bench: Bench) -> dict[str, Tensor]:
    """What `write_original` would keep of `rows`, in their order, as tensors by column: `original` and, where there is one, `support`."""
    plain = rule.model_copy(update={"encoder_states": False})
    schema = _schema("retained", original, plain, Stamp("", "", ""), bench)
    everyone = numpy.arange(len(rows))
    table = _scored([bench.reader(original)], rows, everyone, plain, original.answers, schema, bench, lambda rows: None).combine_chunks()
    return {name: tensor_of(table, name) for name in OUTPUTS if name in table.column_names}


def tensor_of(table: pa.Table, column: str) -> Tensor:
    """A column of lists as a (row, column) tensor over Arrow's own memory; read only."""
    array = table[column].chunk(0)
    values = torch.utils.dlpack.from_dlpack(array.flatten()).reshape(len(array), -1)
    return values.long() if column == "support" else values


def facts_of(schema: pa.Schema) -> dict[str, object]:
    """What a file of outputs says of itself."""
    facts: dict[str, object] = json.loads(schema.metadata[METADATA])
    return facts


def remainder(rule: CacheRule) -> str:
    """What stands for the columns that are not kept; see `narrow`."""
    return "logsumexp" if rule.support == "top" else "none"


def _schema(part: Part, original: Recommender, rule: CacheRule, stamp: Stamp, bench: Bench) -> pa.Schema:
    network = original.network
    vocabulary: int = network.config.vocab_size  # type: ignore[union-attr, assignment]
    num_ids = None if rule.support == "full" else 2 if rule.support == "answers" else min(rule.top, vocabulary - 1)
    width = vocabulary if num_ids is None else num_ids + (rule.support == "top")
    # How many rows are kept belongs to the request, not to what a row's outputs are.
    kept_how = rule.model_copy(update={"retained_per_forgotten": None, "least_retained": 0}).canonical()
    where = {"precision": bench.precision, "device": bench.device.type, "token_budget": bench.token_budget}
    if rule.encoder_states and not original.answers.decoder_prefix:
        raise BadSetting("`--cache.encoder-states true` is refused: this network has no encoder", hint="leave it out")
    if rule.encoder_states:
        where |= {"state_width": network.config.hidden_size}  # type: ignore[union-attr]
    facts = {**asdict(stamp), "rule": kept_how, "seed": bench.seed, **where}
    return (
        teacher_logits(width, num_ids, part, states=bool(rule.encoder_states))
        .schema()
        .with_metadata({METADATA: json.dumps(facts, sort_keys=True).encode()})
    )


def _same_groups(earlier: Path, schema: pa.Schema) -> int:
    file = pq.ParquetFile(earlier / FILES["retained"])
    return int(file.num_row_groups) if facts_of(file.schema_arrow) == facts_of(schema) else 0


def _taken(path: Path, number: int, schema: pa.Schema, told: Callable[[int], None]) -> pa.Table:
    table = pq.ParquetFile(path, page_checksum_verification=True).read_row_group(number)
    told(table.num_rows)
    return table.cast(schema)


def _told(bench: Bench, total: int) -> Callable[[int], None]:
    done = 0

    def told(rows: int) -> None:
        nonlocal done
        done += rows
        bench.watch(done, total, "rows", {})

    return told


def _scored(
    readers: list[Read],
    rows: Prompts,
    group: numpy.ndarray,
    rule: CacheRule,
    answers: Answers,
    schema: pa.Schema,
    bench: Bench,
    told: Callable[[int], None],
) -> pa.Table:
    outputs = [numpy.empty((len(group), schema.field("original").type.list_size), dtype=numpy.float32) for _ in readers]
    ids = numpy.empty((len(group), schema.field("support").type.list_size if "support" in schema.names else 0), dtype=numpy.int32)
    lengths = rows.lengths_at(group)
    by_length = numpy.argsort(-lengths, kind="stable")
    states: list[bytes] = [b""] * len(group)
    with torch.inference_mode():
        for start, stop in under_budget(lengths[by_length], bench.scoring_budget):
            places = by_length[start:stop]
            batch = rows.batch(group[places]).to(bench.device)
            known = readers[0].encode(batch) if rule.encoder_states else None
            logits = readers[0](batch, states=known)
            if known is not None:
                # Numbers of 16 bits have no name in NumPy.
                raw = known.to(STATES[bench.precision]).view(torch.uint8).cpu().numpy()
                for place, row in zip(places, raw, strict=True):
                    states[place] = row[: lengths[place]].tobytes()
            support = _support(logits, rule, answers)
            outputs[0][places] = (logits if support is None else narrow(logits, support, remainder(rule))).cpu().numpy()
            for other, read in enumerate(readers[1:], 1):
                said = read(batch) if support is None else read(batch, support, remainder(rule))
                outputs[other][places] = said.cpu().numpy()
            if support is not None:
                ids[places] = support.cpu().numpy()
            told(len(places))
    columns = {
        "example_id": pa.array(rows.example_ids[group]),
        "label": pa.array(rows.labels[group].astype(numpy.int8)),
        **{name: _lists(values) for name, values in zip(("original", "augmented"), outputs, strict=False)},
    }
    if ids.shape[1]:
        columns["support"] = _lists(ids)
    if rule.encoder_states:
        columns["states"] = pa.array(states, pa.large_binary())
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


def _lists(values: numpy.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
