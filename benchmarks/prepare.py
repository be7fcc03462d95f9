"""How fast ratings become prompts, against the same done row by row in pandas as the reference's notebooks do.

The rival reads the three files with pandas, joins titles and users, walks over the ratings in time order row by row, keeps every user's
history in a dictionary and formats each prompt in Python. Both give the same prompts in the same order, which is checked. Ours is the
pipeline's own: `ingest` and `split` with all they write (quarantine, contracts' columns, Parquet), then every prompt as text.

Source: a description of the reference's notebooks; written here, no line is copied.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import clock, emit, machine, progress
from e2urec_core import stages
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.prompts import NOTHING, PromptRule, rendered
from e2urec_core.data.split import SplitRule
from e2urec_core.datasets.base import Dataset
from e2urec_core.seeding import numpy_generator

NUM_ROWS, NUM_USERS, NUM_ITEMS = 200_042, 1_783, 3_883
"""Of the generated ratings: as many as the newest part of MovieLens-1M holds."""
HISTORY = HistoryRule(length=10, at_least=5)
AGES = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56 or more"}


def generated(place: Path, num_rows: int = NUM_ROWS) -> Path:
    """A folder in MovieLens-1M's format with invented ratings, titles and users; sessions share their seconds."""
    random = numpy_generator(0, "benchmark-ratings")
    pairs = random.choice(NUM_USERS * NUM_ITEMS, size=num_rows, replace=False)
    users, items = pairs // NUM_ITEMS + 1, pairs % NUM_ITEMS + 1
    times = 975_000_000 + random.integers(0, 700_000, num_rows) * 100
    stars = random.integers(1, 6, num_rows)
    lines = (f"{user}::{item}::{star}::{time}\n" for user, item, star, time in zip(users, items, stars, times, strict=True))
    (place / "ratings.dat").write_text("".join(lines), encoding="latin-1")
    titles = (f"{item}::Invented Title Number {item} ({1900 + item % 100})::Drama\n" for item in range(1, NUM_ITEMS + 1))
    (place / "movies.dat").write_text("".join(titles), encoding="latin-1")
    ages = list(AGES)
    people = (f"{user}::{'FM'[user % 2]}::{ages[user % len(ages)]}::{user % 21}::00000\n" for user in range(1, NUM_USERS + 1))
    (place / "users.dat").write_text("".join(people), encoding="latin-1")
    return place


def rival(folder: Path, work: dict[str, str]) -> list[str]:
    """The prompts, row by row in pandas; `work` gives each occupation's words."""
    import pandas as pd

    read: dict[str, Any] = {"sep": "::", "engine": "python", "encoding": "latin-1", "header": None}
    ratings = pd.read_csv(folder / "ratings.dat", names=["user", "item", "stars", "time"], **read)
    movies = pd.read_csv(folder / "movies.dat", names=["item", "title", "genres"], **read)
    users = pd.read_csv(folder / "users.dat", names=["user", "gender", "age", "job", "zip"], dtype={"zip": str}, **read)
    rows = ratings.merge(movies[["item", "title"]], on="item").merge(users, on="user")
    # Ids are text, and ties are broken by text, as the pipeline does.
    rows["user"], rows["item"] = rows["user"].astype(str), rows["item"].astype(str)
    rows = rows.sort_values(["time", "user", "item"])
    histories: dict[str, list[tuple[str, str, int]]] = {}
    prompts = []
    for _, row in rows.iterrows():
        history = histories.setdefault(row["user"], [])
        if len(history) >= HISTORY.at_least:
            shown = [f"{title} ({stars}*)" for item, title, stars in history[-HISTORY.length :] if item != row["item"]]
            gender = {"F": "female", "M": "male"}[row["gender"]]
            profile = f"The user is a {gender}, aged {AGES[row['age']]}, who {work[str(row['job'])]}."
            told = ", ".join(shown) or NOTHING
            prompts.append(f"{profile} Watched so far, oldest first: {told}. Will the user like {row['title']}? Answer Yes or No:")
        history.append((row["item"], row["title"], row["stars"]))
    return prompts


def ours(dataset: Dataset, root: Path) -> tuple[list[str], dict[str, float]]:
    """The prompts, and seconds by stage."""
    interactions, examples = (Path(tempfile.mkdtemp(dir=root)) for _ in range(2))
    seconds, made = {}, []

    def timed(name: str, call: Callable[[], object]) -> None:
        started = clock()
        call()
        seconds[name] = clock() - started

    timed("ingest", lambda: stages.ingest(dataset, IngestRule(), None, interactions))
    timed("split", lambda: stages.split(interactions, HISTORY, SplitRule(), 0, examples))
    timed("render", lambda: made.extend(told for _, told in rendered(examples, interactions, PromptRule())))
    return [text for told in made for text in told.to_pylist()], seconds


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description="Seconds from ratings to prompts, over ours.")
    parser.add_argument("--data", type=Path, help="Folder of MovieLens-1M's files; without it, generated ratings.")
    parser.add_argument("--rows", type=int, default=NUM_ROWS, help="Generated ratings.")
    parser.add_argument("--quick", action="store_true", help="20,000 generated ratings and fewer pairs.")
    parser.add_argument("--pairs", type=int, help="How often both are measured, in turns.")
    told = parser.parse_args(arguments)
    num_pairs = told.pairs or (2 if told.quick else 3)
    from e2urec_core.plugins import load

    with tempfile.TemporaryDirectory(prefix="e2urec-benchmark-") as name:
        root = Path(name)
        folder = told.data or generated(root, 20_000 if told.quick else told.rows)
        member = load(Dataset.package, "ml_1m")
        work = vars(sys.modules[member.__module__])["WORK"]
        ours(member(path=folder), root)  # imports, which no run after the first one pays
        pairs, by_stage, same = [], [], True
        for number in range(num_pairs):
            started = clock()
            theirs = rival(folder, work)
            rival_seconds = clock() - started
            prompts, seconds = ours(member(path=folder), root)
            same &= prompts == theirs
            pairs.append((rival_seconds, sum(seconds.values())))
            by_stage.append(seconds)
            progress(f"  pair {number + 1}: rival {rival_seconds:.1f} s, ours {pairs[-1][1]:.2f} s, {len(prompts):,} prompts")
        assert same, "the two ways gave other prompts"
        rows = sum(1 for _ in (folder / "ratings.dat").open(encoding="latin-1"))
    emit(
        {
            "ratio": statistics.median(rival / mine for rival, mine in pairs),
            "pairs": pairs,
            "seconds": {name: statistics.median(each[name] for each in by_stage) for name in by_stage[0]},
            "ratings": rows,
            "prompts": len(prompts),
            "same_output": same,
            "real": told.data is not None,
            "machine": machine(),
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
