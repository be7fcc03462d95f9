"""Many nights in a row with random requests and random kills, then held against a model retrained without everybody who asked.

`python -m benchmarks.thirty_nights [--nights 30] [--seed 0] [--workspace DIR] [--json FILE]`. Each night some people and single
interactions ask to be forgotten; most nights are killed by SIGKILL at a random moment, some again while they are finished. What must
hold is asserted after each night. At the end four Retrains are trained without all of them, from four seeds, on the first night's data.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

COMMAND = [sys.executable, "-m", "flows.cli"]
KILLED, KILLED_AGAIN = 0.7, 0.3
CLOSED = ("certified", "no_data")


class Shop:
    """A workspace that nights work in, asked through the command."""

    def __init__(self, workspace: Path, flags: list[str]) -> None:
        self.place, self.flags = workspace, flags

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; what it says goes into files, because what a killed one has started may outlive it."""
        process, out, talk = self.start(*arguments)
        process.wait()
        out.seek(0)
        talk.seek(0)
        return subprocess.CompletedProcess(process.args, process.returncode, out.read().decode(), talk.read().decode())

    def start(self, *arguments: str) -> tuple[subprocess.Popen[bytes], Any, Any]:
        """Begin a command."""
        out, talk = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        line = [*COMMAND, *arguments, "--workspace", str(self.place)]
        return subprocess.Popen(line, stdout=out, stderr=talk), out, talk

    def told(self, *arguments: str) -> Any:
        """The JSON document that a command prints."""
        answer = self(*arguments, "--json")
        assert answer.returncode in (0, 1), answer.stderr
        return json.loads(answer.stdout)

    def night(self, draw: random.Random, typical_s: float) -> tuple[int, float, str]:
        """A night, killed and started again as drawn; returns how often it was killed, its seconds, and what its last run said."""
        kills, began = 0, time.perf_counter()
        chance = KILLED
        while draw.random() < chance:
            process, *_ = self.start("nightly", *self.flags)
            try:
                process.wait(draw.uniform(2.0, typical_s))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                chance = KILLED_AGAIN
        ended = self("nightly", *self.flags)
        assert ended.returncode == 0, ended.stderr
        return kills, time.perf_counter() - began, ended.stdout


def stored(workspace: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Users with training rows, and the items of each user's training rows."""
    (examples,) = (workspace / "store" / "objects" / "Examples").glob("*/examples.parquet")
    items: dict[str, list[str]] = {}
    for row in pq.read_table(examples, columns=["user_id", "item_id", "split"]).to_pylist():
        if row["split"] == "train":
            items.setdefault(row["user_id"], []).append(row["item_id"])
    return sorted(items), items


def main() -> None:
    """Run the nights and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--json", type=Path, help="File for the numbers.")
    told, flags = parser.parse_known_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = told.workspace or Path(tempfile.mkdtemp(prefix="e2urec-nights-"))
    shop, draw = Shop(folder / "workspace", ["--requests.approval-share", "1", *flags]), random.Random(told.seed)
    trained = shop("train", "sample", "tiny-t5", "--seed", str(told.seed))
    assert "it is the champion" in trained.stdout, trained.stderr
    shutil.copytree(folder / "workspace", folder / "first", ignore=shutil.ignore_patterns("prefect"))
    users, items = stored(folder / "first")
    left, asked, lines = list(users), [], []
    typical_s = 14.0
    for night in range(1, told.nights + 1):
        whole = [left.pop(draw.randrange(len(left))) for _ in range(draw.choice((0, 1, 1, 2, 3)))]
        single = [(user := draw.choice(left), draw.choice(items[user])) for _ in range(draw.choice((0, 0, 1)))]
        requests = [["--user", user] for user in whole] + [["--user", user, "--item", item] for user, item in single]
        requests += [["--user", f"nobody-{night}"]] if draw.random() < 0.2 else []
        names = [shop.told("requests", "add", *words)["id"] for words in requests]
        asked += [(user, "") for user in whole] + [pair for pair in single if pair[1] in items[pair[0]]]
        for user, item in single:
            items[user] = [each for each in items[user] if each != item]
        kills, seconds, talk = shop.night(draw, typical_s)
        states = {each["id"]: each["state"] for each in shop.told("requests", "list")}
        assert all(states[name] in CLOSED for name in names), states
        assert len(list((shop.place / "receipts").glob("0*.json"))) == len(states), "one receipt a request"
        assert shop("receipt", "verify-all").returncode == 0
        found = [place for user in whole for place in shop.told("scan", "--user", user)]
        assert not found, found
        drift = next((line for line in talk.splitlines() if line.startswith("Drift")), talk.strip())
        lines.append({"night": night, "requests": len(names), "kills": kills, "seconds": round(seconds, 1)})
        print(
            f"night {night:>2}: {len(whole)} users, {len(single)} interactions, killed {kills} times, {seconds:.0f} s; {drift}", flush=True
        )
    with (folder / "everybody.csv").open("w", newline="") as text:
        csv.writer(text).writerows([("user_id", "item_id"), *asked])
    # In a process of its own, because Prefect looks for its home once.
    line = [sys.executable, "-m", "benchmarks.nights_measured", str(folder)]
    said = subprocess.run(line, check=True, stdout=subprocess.PIPE, env={**os.environ, "PREFECT_HOME": str(folder / "measuring")}).stdout
    result = {**json.loads(said), "nights": lines, "forgotten": len(asked)}
    print(json.dumps(result, indent=1))
    if told.json:
        told.json.write_text(json.dumps(result, indent=1))
    for user, item in asked:
        assert item or not shop.told("scan", "--user", user)


if __name__ == "__main__":
    main()
