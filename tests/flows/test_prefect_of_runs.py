"""What Prefect's own database keeps of a told story: a run named after each stage, honest states, the table and the link."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from e2urec_console import STAGES, Console, Story, prefect_events, prefect_rows

pytestmark = pytest.mark.slow


def task_runs(workspace: Path, flow_run: str) -> list[tuple[str, str]]:
    found = prefect_rows(
        workspace, "select name, state_name from task_run where replace(flow_run_id, '-', '') = ? order by start_time", flow_run
    )
    return [(str(name), str(state)) for name, state in found]


def flow_runs(workspace: Path) -> list[str]:
    """Ids of the flow runs, oldest first."""
    return [str(row[0]).replace("-", "") for row in prefect_rows(workspace, "select id from flow_run order by start_time")]


def test_each_stage_is_a_completed_task_run_of_its_name(story: Story) -> None:
    (flow_run,) = flow_runs(story.workspace)
    assert task_runs(story.workspace, flow_run) == [(stage, "Completed") for stage in STAGES]
    assert prefect_rows(story.workspace, "select name, state_name from flow_run") == [(story.run, "Completed")]


def test_the_flow_run_is_tagged_with_its_dataset_and_method_and_mlflow_with_the_flow_run(story: Story) -> None:
    ((told, flow_run),) = prefect_rows(story.workspace, "select tags, id from flow_run")
    assert json.loads(told) == ["dataset:sample", "method:e2urec"]
    connection = sqlite3.connect(story.workspace / "mlflow.db")
    try:
        noted = connection.execute("select value from tags where key = 'prefect.flow_run_id'").fetchall()
    finally:
        connection.close()
    assert [str(value).replace("-", "") for (value,) in noted] == [str(flow_run).replace("-", "")]


def test_each_stage_may_be_retried_twice(story: Story) -> None:
    policies = [json.loads(row[0]) for row in prefect_rows(story.workspace, "select empirical_policy from task_run")]
    assert [policy["retries"] for policy in policies] == [2] * len(STAGES)


def test_a_table_and_the_place_of_the_report_are_shown(story: Story) -> None:
    shown = {
        key.split("-")[0]: (kind, str(data)) for key, kind, data in prefect_rows(story.workspace, "select key, type, data from artifact")
    }
    assert set(shown) == {"results", "report", "verdict"}
    assert shown["results"][0] == "table"
    for method in ("Original", "Retrain", "E2URec"):
        assert method in shown["results"][1]
    assert shown["report"][0] == "markdown"
    assert f"`reports/{story.run}/report.html` in the workspace" in shown["report"][1]


def test_a_refusal_by_the_gates_is_an_event_with_counts_and_names_of_gates(story: Story) -> None:
    verdict = json.loads((story.reports / "verdict.json").read_text())
    refused = [gate["name"] for gate in verdict["gates"] if not gate["passed"]]
    assert refused
    told = prefect_rows(story.workspace, "select resource_id, payload from events where event = 'e2urec.gate.refused'")
    ((resource, payload),) = told
    assert resource == f"e2urec.run.{story.run}"
    assert json.loads(payload) == {"run": story.run, "gates": len(verdict["gates"]), "refused": len(refused), "names": refused}


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
    of_it = "replace(flow_run_id, '-', '') = ? and state_name = 'Failed'"
    assert prefect_rows(console.workspace, f"select name, run_count from task_run where {of_it}", flow_run) == [("forget", 1)]
    told = "select r.state_name, s.message from flow_run r join flow_run_state s on r.state_id = s.id where replace(r.id, '-', '') = ?"
    ((name, message),) = prefect_rows(console.workspace, told, flow_run)
    assert name == "Failed"
    assert message.startswith("BadRequest: no users are forgotten: a share of 0.0 of ")
    assert " (hint: " in message
    of_task = (
        f"select s.message from task_run r join task_run_state s on r.state_id = s.id where {of_it.replace('state_name', 'r.state_name')}"
    )
    assert prefect_rows(console.workspace, of_task, flow_run) == [(message,)]
    assert [facts["message"] for facts in prefect_events(console.workspace, "e2urec.run.failed", flow_run)] == [message]
    assert not (console.workspace / "prefect" / "storage").exists()
