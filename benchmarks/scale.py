"""How long and with how much memory 25 million generated ratings become examples, what the gate adds, and how fast prompts are tokenised.

Ratings lie in one CSV file, as MovieLens-25M has them. A process of its own reads them (`ingest`) and finds the histories (`split`); its
peak is told by the system. The gate's share is measured apart, in turns with ingesting the same million rows. Tokenising is measured on
the first examples: by pieces, and text by text for a part of them, with the tokenizers' own threads on and off.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import emit, machine, peak_memory, progress
from e2urec_core import stages
from e2urec_core.artifacts import Examples, Interactions
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.split import SplitRule
from e2urec_core.plugins import load
from e2urec_core.seeding import numpy_generator
from e2urec_core.store import Store

NUM_ROWS, NUM_USERS, NUM_ITEMS = 25_000_095, 162_541, 59_047
"""Of MovieLens-25M."""
ROWS_AT_A_TIME = 1_000_000
TOKENISED, WHOLE = 200_000, 20_000


def generate(path: Path, num_rows: int, num_users: int = NUM_USERS, num_items: int = NUM_ITEMS) -> None:
    """Ratings of users who differ in how much they rate, in half stars over twenty years, as a CSV file."""
    import polars as pl

    random = numpy_generator(0, "benchmark-scale")
    activity = random.pareto(1.2, num_users) + 0.2
    popular = random.pareto(1.0, num_items) + 0.05
    with path.open("wb") as file:
        for start in range(0, num_rows, ROWS_AT_A_TIME):
            size = min(ROWS_AT_A_TIME, num_rows - start)
            pl.DataFrame(
                {
                    "userId": random.choice(num_users, size, p=activity / activity.sum()) + 1,
                    "movieId": random.choice(num_items, size, p=popular / popular.sum()) + 1,
                    "rating": random.integers(1, 11, size) / 2,
                    "timestamp": random.integers(789_652_009, 1_574_327_703, size),
                }
            ).write_csv(file, include_header=start == 0)


def dataset_of(path: Path) -> Any:
    """The table as the dataset `interactions`."""
    columns = {"user_column": "userId", "item_column": "movieId", "lowest_rating": 0.5, "highest_rating": 5.0}
    return load("e2urec_core.datasets", "interactions")(path=str(path), **columns)


def prepare(path: Path, root: Path) -> dict[str, Any]:
    """Ratings to examples in folders below `root`; wall-clock seconds by stage."""
    seconds = {}
    for name in ("interactions", "examples"):
        (root / name).mkdir(parents=True)
    started = time.perf_counter()
    rows = stages.ingest(dataset_of(path), IngestRule(), None, root / "interactions")
    seconds["ingest"] = time.perf_counter() - started
    started = time.perf_counter()
    examples = stages.split(root / "interactions", HistoryRule(), SplitRule(), 0, root / "examples")
    seconds["split"] = time.perf_counter() - started
    return {"rows": rows, "examples": examples, "seconds": seconds}


def gate(path: Path, root: Path, num_pairs: int) -> dict[str, Any]:
    """Seconds of the gate on what was read from `path`, and its share of ingesting: importing Great Expectations is counted apart."""
    from tasks import _gate

    started = time.perf_counter()
    import great_expectations  # noqa: F401

    imported = time.perf_counter() - started
    shares, checks = [], []
    for number in range(num_pairs + 1):
        place, store = root / f"gate-{number}", Store(root / f"store-{number}")
        started = time.perf_counter()
        dataset_of(path).fingerprint()
        made = prepare(path, place)
        # The stage also hashes and syncs what it publishes.
        published = time.perf_counter()
        shutil.copytree(place / "interactions", store.root / "tmp" / "place")
        copied = time.perf_counter()
        store.publish(Interactions, store.root / "tmp" / "place", parents=(), rows=made["rows"], made_by="ingest")
        ingest = time.perf_counter() - started - made["seconds"]["split"] - (copied - published)
        started = time.perf_counter()
        _gate.check(Interactions, place / "interactions", {})
        check = time.perf_counter() - started
        if number:  # the first one also loads what later ones find loaded
            shares.append(check / ingest)
            checks.append(check)
    started = time.perf_counter()
    _gate.check(Examples, place / "examples", {Interactions: place / "interactions"})
    return {
        "share_of_ingest": statistics.median(shares),
        "seconds": statistics.median(checks),
        "examples_seconds": time.perf_counter() - started,
        "import_seconds": imported,
        "rows": made["rows"],
    }


def tokenising(root: Path) -> dict[str, Any]:
    """Tokens a second by pieces, and text by text with one thread and with all."""
    import pyarrow.parquet as pq

    from e2urec_core.backbones.base import train_tokenizer
    from e2urec_core.data.encoding import PromptEncoder
    from e2urec_core.data.prompts import COLUMNS, Catalogue, PromptRule, texts

    rule = PromptRule()
    catalogue = Catalogue(root / "interactions", rule)
    batches = list(pq.ParquetFile(root / "examples" / "examples.parquet").iter_batches(8192, columns=COLUMNS))[: -(-TOKENISED // 8192)]
    some = [text for batch in batches[:3] for text in texts(batch, catalogue, rule).to_pylist()]
    tokenizer = train_tokenizer(some, 8000, ("<pad>", "</s>", "<unk>"), "$A </s>", 512)

    def rate(by_pieces: bool, chosen: list[Any]) -> float:
        encoder = PromptEncoder(tokenizer, catalogue, rule, by_pieces=by_pieces)
        started = time.perf_counter()
        tokens = sum(len(encoder.encode(batch)[0].flat) for batch in chosen)
        return tokens / (time.perf_counter() - started)

    told = {"pieces": rate(True, batches)}
    part = batches[: -(-WHOLE // 8192)]
    for name, parallel in (("whole_one_thread", "false"), ("whole_all_threads", "true")):
        os.environ["TOKENIZERS_PARALLELISM"] = parallel
        told[name] = rate(False, part)
    return {"tokens_per_second": told, "ratio": told["pieces"] / told["whole_all_threads"]}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="Seconds and memory of ratings to examples.")
    parser.add_argument("--rows", type=int, help="Generated ratings; default 25,000,095.")
    parser.add_argument("--quick", action="store_true", help="A million ratings.")
    parser.add_argument("--pairs", type=int, default=3, help="Repetitions of the gate's share.")
    parser.add_argument("--child", nargs=2, type=Path, metavar=("CSV", "FOLDER"), help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.child:
        path, root = told.child
        (root / "told.json").write_text(json.dumps(prepare(path, root)))
        return 0
    rows = told.rows or (1_000_000 if told.quick else NUM_ROWS)
    with tempfile.TemporaryDirectory(prefix="e2urec-benchmark-") as name:
        root = Path(name)
        table, small = root / "ratings.csv", root / "small.csv"
        generate(table, rows)
        generate(small, min(rows, 1_000_000), 6_040, 3_706)
        progress(f"  {rows:,} ratings, {table.stat().st_size / 1e6:,.0f} MB of CSV")
        (root / "large").mkdir()
        peak = peak_memory([sys.executable, "-m", "benchmarks.scale", "--child", table, root / "large"])
        made = json.loads((root / "large" / "told.json").read_text())
        size = sum(path.stat().st_size for path in (root / "large").rglob("*.parquet"))
        progress(f"  {sum(made['seconds'].values()):.1f} s, peak {peak / 2**30:.2f} GiB")
        tokens = tokenising(root / "large")
        share = gate(small, root, told.pairs)
    emit(
        {
            "seconds": sum(made["seconds"].values()),
            "by_stage": made["seconds"],
            "peak_gib": peak / 2**30,
            "rows": made["rows"],
            "examples": made["examples"],
            "csv_rows": rows,
            "stored_bytes": size,
            "gate": share,
            "tokenising": tokens,
            "machine": machine(),
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
