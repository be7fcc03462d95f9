"""Scores rows with many recommenders into one table, one row group in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from data_contracts.scores import SCORES
from e2urec_core.checkpoints import KeptTables
from e2urec_core.data import places
from e2urec_core.data.batches import Prompts
from e2urec_core.data.streaming import write_row_groups
from e2urec_core.engine import Bench, Read
from e2urec_core.evaluation import GROUPS, Scored
from e2urec_core.ops.answers import yes_probability
from e2urec_core.recommender import Recommender, load

FILE = places.SCORES
ROWS_PER_GROUP = 16384


def yes_probabilities(recommender: Recommender, rows: Prompts, bench: Bench) -> numpy.ndarray:
    """p(Yes) of every row, float64, in the rows' order."""
    recommender.network.eval()
    scores = numpy.empty(len(rows))
    for index, logits in _answered(bench.reader(recommender), recommender, rows, bench):
        scores[index] = yes_probability(logits).cpu().numpy()
    return scores


def margins_of(read: Read, recommender: Recommender, rows: Prompts, bench: Bench) -> torch.Tensor:
    """Logit of Yes less logit of No of every row, float64 on the CPU, (row,); the network is left in the mode it is in."""
    margins = torch.empty(len(rows), dtype=torch.float64)
    for index, logits in _answered(read, recommender, rows, bench):
        margins[index] = (logits[:, 0].double() - logits[:, 1].double()).cpu()
    return margins


def _answered(read: Read, recommender: Recommender, rows: Prompts, bench: Bench) -> Iterator[tuple[numpy.ndarray, torch.Tensor]]:
    """Places of some rows, and their logits of Yes and No."""
    answers = recommender.answers
    pair = torch.tensor([[answers.yes_id, answers.no_id]], device=bench.device)
    with torch.inference_mode():
        for batch in rows.in_order(bench.scoring_budget):
            yield batch.index.numpy(), read(batch.to(bench.device), pair.expand(len(batch.labels), 2))


def write_scores(
    folder: Path, models: Sequence[tuple[str, Path]], rows: Mapping[str, Prompts], bench: Bench, kept: KeptTables | None = None
) -> int:
    """Write `scores.parquet`: every model on every row, model by model; returns the number of scores.

    Args:
        folder: Where to write.
        models: Name and folder of each recommender.
        rows: Rows by group.
        bench: Device, precision, watcher.
        kept: Where finished row groups lie until the file is whole.
    """
    total, done = sum(map(len, rows.values())) * len(models), 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        bench.watch(done, total, "rows", {})

    # One model in memory at a time: the one whose row groups are being made.
    opened: dict[Path, Recommender] = {}

    def model(path: Path) -> Recommender:
        if path not in opened:
            opened.clear()
            opened[path] = load(path, bench.device)
        return opened[path]

    groups = [
        partial(_scores, partial(model, path), name, group, prompts, start, bench, told)
        for name, path in models
        for group, prompts in rows.items()
        for start in range(0, len(prompts), ROWS_PER_GROUP)
    ]
    write_row_groups(folder / FILE, SCORES.schema(), groups, kept, bench.workers, told)
    return total


def read_scores(folder: Path, models: Sequence[str], wanted: Sequence[str] = GROUPS) -> dict[str, Scored]:
    """What `write_scores` wrote, by group of rows."""
    table = pq.read_table(folder / FILE)
    scored = {}
    for group in wanted:
        by_model = {name: table.filter((pc.field("group") == group) & (pc.field("model") == name)) for name in models}
        first = by_model[models[0]]
        yes = {name: rows["yes_probability"].to_numpy() for name, rows in by_model.items()}
        scored[group] = Scored(first["example_id"].to_numpy(), first["label"].to_numpy(), yes)
    return scored


def _scores(
    model: Callable[[], Recommender], name: str, group: str, prompts: Prompts, start: int, bench: Bench, told: Callable[[int], None]
) -> pa.Table:
    rows = prompts.select(numpy.arange(start, min(start + ROWS_PER_GROUP, len(prompts))))
    columns = [
        pa.array(rows.example_ids),
        pa.array(rows.labels.astype(numpy.int8)),
        pa.array([group] * len(rows)),
        pa.array([name] * len(rows)),
        pa.array(yes_probabilities(model(), rows, bench)),
    ]
    told(len(rows))
    return pa.table(columns, schema=SCORES.schema())
