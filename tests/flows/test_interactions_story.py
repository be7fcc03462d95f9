"""The main story when single interactions are forgotten: the same stages and one more, which tells the changed rows anew."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from e2urec_console import STAGES, Console, Story, digests, rerun, states

pytestmark = pytest.mark.slow


@pytest.fixture
def named(story: Story, console: Console, tmp_path: Path) -> Path:
    """A file with the oldest training rows of three users."""
    folder = story.workspace / "store" / "objects" / "Examples" / digests(console.run(story.run))["split"]
    rows = pq.read_table(folder / "examples.parquet", columns=["user_id", "item_id", "split"]).to_pylist()
    oldest = {row["user_id"]: row["item_id"] for row in reversed(rows) if row["split"] == "train"}
    file = tmp_path / "named.csv"
    file.write_text("\n".join(["user_id,item_id", *(f'"{user}","{item}"' for user, item in sorted(oldest.items())[:3])]))
    return file


def test_interactions_are_forgotten_from_the_command(story: Story, console: Console, named: Path) -> None:
    answer = console.unlearn("--forget.interactions-file", named)
    assert answer.code == 0, answer.stderr
    first = console.last()
    assert set(states(first)) == {*STAGES, "retell"}
    # The original knows nothing of the request.
    assert set(STAGES) - rerun(first) == {"ingest", "split", "tokenise", "train-original"}
    counts = json.loads((console.workspace / "reports" / first["run"] / "report.json").read_text())["counts"]
    assert counts["forgotten_interactions"] == 3
    assert counts["changed"] >= counts["changed_training"] > 0
    assert counts["forgotten"] >= 3
    assert console.unlearn("--forget.interactions-file", named).code == 0
    assert rerun(console.last()) == set()

    answer = console("stage", "retell", "--run", first["run"], "--json")
    assert (answer.code, answer.json()["stale"]) == (0, [])

    named.write_text("\n".join(named.read_text().split("\n")[:3]))
    assert console.unlearn("--forget.interactions-file", named).code == 0
    assert {"forget", "retell", "train-retrained"} <= rerun(console.last())


def test_a_request_that_reaches_no_training_row_says_so(console: Console, tmp_path: Path) -> None:
    file = tmp_path / "named.csv"
    file.write_text("user_id,item_id\nnobody,nothing\n")
    answer = console.unlearn("--forget.interactions-file", file)
    assert answer.code == 2
    assert "1 of 1 named interactions were never stored" in answer.stderr
    assert "nobody" not in answer.stderr
