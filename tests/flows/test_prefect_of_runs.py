"""What Prefect's own database keeps of a told story: a run named after each stage, honest states, the table and the link."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from e2urec_console import STAGES, Console, Story

pytestmark = pytest.mark.slow


def rows(workspace: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(workspace / "prefect" / "prefect.db", timeout=30)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def task_runs(workspace: Path, flow_run: str) -> list[tuple[str, str]]:
    found = rows(workspace, "select name, state_name from task_run where replace(flow_run_id, '-', '') = ? order by start_time", flow_run)
    return [(str(name), str(state)) for name, state in found]


def flow_runs(workspace: Path) -> list[str]:
    """Ids of the flow runs, oldest first."""
    return [str(row[0]).replace("-", "") for row in rows(workspace, "select id from flow_run order by start_time")]


def test_each_stage_is_a_completed_task_run_of_its_name(story: Story) -> None:
    (flow_run,) = flow_runs(story.workspace)
    assert task_runs(story.workspace, flow_run) == [(stage, "Completed") for stage in STAGES]
    assert rows(story.workspace, "select name, state_name from flow_run") == [("unlearn sample e2urec", "Completed")]


def test_each_stage_may_be_retried_twice(story: Story) -> None:
    policies = [json.loads(row[0]) for row in rows(story.workspace, "select empirical_policy from task_run")]
    assert [policy["retries"] for policy in policies] == [2] * len(STAGES)


def test_a_table_and_a_link_are_shown(story: Story) -> None:
    shown = {key.split("-")[0]: (kind, str(data)) for key, kind, data in rows(story.workspace, "select key, type, data from artifact")}
    assert set(shown) == {"results", "report", "verdict"}
    assert shown["results"][0] == "table"
    for method in ("Original", "Retrain", "E2URec"):
        assert method in shown["results"][1]
    assert (story.reports / "report.html").as_uri() in shown["report"][1]


def test_prefect_persists_no_results(story: Story) -> None:
    assert not (story.workspace / "prefect" / "storage").exists()


def test_stages_from_the_store_end_in_a_state_named_cached(console: Console) -> None:
    before = flow_runs(console.workspace)
    assert console.unlearn("--method.suppression", "30").code == 0
    (flow_run,) = set(flow_runs(console.workspace)) - set(before)
    again = {"unlearn", "evaluate", "report", "verdict", "bundle"}
    assert task_runs(console.workspace, flow_run) == [(stage, "Completed" if stage in again else "Cached") for stage in STAGES]


def test_a_refused_run_is_a_failed_flow_run_whose_stage_was_not_tried_again(console: Console) -> None:
    before = flow_runs(console.workspace)
    assert console.unlearn("--forget.share", "0").code == 2
    (flow_run,) = set(flow_runs(console.workspace)) - set(before)
    assert task_runs(console.workspace, flow_run) == [("ingest", "Cached"), ("split", "Cached"), ("forget", "Failed")]
    counts = rows(console.workspace, "select run_count from task_run where name = 'forget' and state_name = 'Failed'")
    assert counts == [(1,)]
    names = rows(console.workspace, "select state_name from flow_run where replace(id, '-', '') = ?", flow_run)
    assert names == [("Failed",)]
