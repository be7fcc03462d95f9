"""The main story through the command: what it prints and writes, and what a second telling takes from the store."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from e2urec_console import STAGES, Console, Story, command, digests, rerun, states, trained_users

from e2urec_core.report import ReportDocument

pytestmark = pytest.mark.slow

METRICS = (
    "auc",
    "accuracy",
    "log_loss",
    "forget_auc",
    "attack_auc",
    "jsd",
    "half_jeffreys",
    "l2",
    "residual",
    "seconds",
    "all_in_seconds",
    "trainable_parameters",
    "total_parameters",
)
DEPENDS_ON_THE_REQUEST = {
    "forget",
    "train-augmented",
    "cache-original",
    "cache-teachers",
    "unlearn",
    "train-retrained",
    "evaluate",
    "report",
    "verdict",
    "bundle",
}


def report_of(workspace: Path, run: str) -> dict[str, Any]:
    return dict(json.loads((workspace / "reports" / run / "report.json").read_text()))


def rows_without_seconds(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in report["rows"]]


def record(workspace: Path, run: str) -> dict[str, Any]:
    return dict(json.loads((workspace / "runs" / f"{run}.json").read_text()))


def test_the_command_prints_the_three_methods_and_where_the_report_lies(story: Story) -> None:
    head = story.answer.stdout.splitlines()[0].split()
    assert head == ["Method", "Original", "Retrain", "E2URec"]
    (where,) = [line for line in story.answer.stdout.splitlines() if line.startswith("report: ")]
    assert Path(where.removeprefix("report: ")) == story.reports / "report.html"
    assert (story.reports / "report.html").is_file()


def test_every_stage_says_one_line_on_stderr_in_order(story: Story) -> None:
    assert story.answer.stages_told() == [*STAGES, "version"]


def test_report_json_keeps_its_schema_and_has_its_three_rows_in_order(story: Story) -> None:
    text = (story.reports / "report.json").read_text()
    document = ReportDocument.from_json(text)
    assert document.to_json() == text
    assert [row.method for row in document.rows] == ["original", "retrain", "e2urec"]
    for row in json.loads(text)["rows"]:
        assert {name for name in METRICS if row[name] is None} == set(), row["method"]
    assert (document.run, document.subject) == (story.run, "e2urec")


def test_original_is_a_whole_distance_from_retrain_and_retrain_none(story: Story) -> None:
    original, retrain, unlearned = report_of(story.workspace, story.run)["rows"]
    assert (original["residual"], retrain["residual"]) == (1.0, 0.0)
    assert (retrain["jsd"], retrain["half_jeffreys"], retrain["l2"]) == (0.0, 0.0, 0.0)
    assert original["l2"] > 0
    assert unlearned["l2"] > 0


def test_the_report_tells_settings_versions_and_digests(story: Story) -> None:
    report, journal = report_of(story.workspace, story.run), record(story.workspace, story.run)
    assert report["settings"] == journal["settings"]
    assert report["settings"]["method"]["suppression"] == 60.0
    assert {"torch", "transformers", "peft"} <= set(report["versions"])
    made = digests(journal)
    assert report["digests"]["e2urec"] == made["unlearn"]
    assert report["digests"]["original"] == made["train-original"]
    assert report["digests"]["retrain"] == made["train-retrained"]


def test_all_in_seconds_add_the_augmented_model_and_both_caches_to_the_unlearning(story: Story) -> None:
    took = {label: entry["seconds"] for label, entry in record(story.workspace, story.run)["stages"].items()}
    row = report_of(story.workspace, story.run)["rows"][2]
    assert row["seconds"] == pytest.approx(took["unlearn"])
    needed = ("train-augmented", "cache-original", "cache-teachers", "unlearn")
    assert row["all_in_seconds"] == pytest.approx(sum(took[stage] for stage in needed))


def test_the_page_needs_nothing_from_elsewhere(story: Story) -> None:
    page = (story.reports / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page) == []


def test_no_file_of_a_workspace_is_a_pickle(story: Story) -> None:
    files = [path for path in story.workspace.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        assert path.suffix not in (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy", ".ckpt"), path
        head = path.read_bytes()[:4]
        # A pickle since protocol 2 opens with 0x80 and its protocol; torch puts pickles into zip archives.
        assert not (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")), path
        assert head != b"PK\x03\x04", path


def test_nothing_half_written_is_left_behind(story: Story) -> None:
    assert list((story.workspace / "store" / "tmp").iterdir()) == []
    assert len(list((story.workspace / "store" / "keys").glob("*.json"))) == len(STAGES)


def test_a_second_run_takes_every_stage_from_the_store(story: Story, console: Console) -> None:
    answer = console.unlearn()
    assert answer.code == 0
    *stages, version = [line.split()[:2] for line in answer.stderr.splitlines()]
    assert stages == [[stage, "cached"] for stage in STAGES]
    assert version[0] == "version"
    first, second = console.run(story.run), console.last()
    assert states(second) == dict.fromkeys(STAGES, "cached")
    assert second["state"] == "completed"
    assert digests(second) == digests(first)
    report = report_of(console.workspace, second["run"])
    assert report["run"] == second["run"] != story.run
    assert report["rows"] == report_of(story.workspace, story.run)["rows"]
    assert second["run"] in (console.workspace / "reports" / second["run"] / "report.html").read_text()


# That these alone would run: `test_explain.py`.
@pytest.mark.long
def test_a_changed_suppression_reruns_unlearning_and_what_judges_it(console: Console) -> None:
    before = rows_without_seconds(report_of(console.workspace, console.last()["run"]))
    assert console.unlearn("--method.suppression", "40").code == 0
    run = console.last()
    assert rerun(run) == {"unlearn", "evaluate", "report", "verdict", "bundle"}
    after = rows_without_seconds(report_of(console.workspace, run["run"]))
    assert after[:2] == before[:2]
    assert after[2]["l2"] != before[2]["l2"]


@pytest.mark.parametrize("flags", [("--forget.share", "0.6"), pytest.param(("--forget.cohort", "idiosyncratic"), marks=pytest.mark.long)])
def test_a_changed_request_leaves_the_original_in_the_store(console: Console, flags: tuple[str, str]) -> None:
    assert console.unlearn(*flags).code == 0
    run = console.last()
    assert rerun(run) == DEPENDS_ON_THE_REQUEST
    assert states(run)["train-original"] == "cached"


def test_users_named_in_a_file_are_read_again_when_the_file_has_changed(story: Story, console: Console, tmp_path: Path) -> None:
    users, known = tmp_path / "leave.txt", trained_users(console.workspace, console.run(story.run))
    users.write_text("\n".join(known[:4]))
    assert console.unlearn("--forget.users-file", users).code == 0
    first = console.last()
    users.write_text("\n".join(known[4:9]))
    assert console.unlearn("--forget.users-file", users).code == 0
    second = console.last()
    assert digests(second)["forget"] != digests(first)["forget"]
    counts = report_of(console.workspace, second["run"])["counts"]
    assert counts["forgotten_users"] == 5


def test_the_list_of_runs_names_each_stage_with_its_state(story: Story, console: Console) -> None:
    answer = console("runs")
    assert answer.code == 0
    lines = answer.stdout.splitlines()
    assert lines[0].split()[:2] == [story.run, "completed"]
    assert [line.split()[:2] for line in lines[1 : 1 + len(STAGES)]] == [[stage, "completed"] for stage in STAGES]
    # No heavy package is needed for a list.
    assert command("runs", "--workspace", console.workspace).stdout == answer.stdout


def test_a_workspace_without_runs_says_so(tmp_path: Path) -> None:
    assert command("runs", "--workspace", tmp_path).stdout == "no runs yet\n"
    assert command("runs", "--workspace", tmp_path, "--json").json() == []


def test_the_workspace_may_come_from_the_environment(console: Console, tmp_path: Path) -> None:
    assert len(command("runs", "--json", E2UREC_WORKSPACE=str(console.workspace)).json()) == len(console.runs())
    assert command("runs", "--json", "--workspace", tmp_path, E2UREC_WORKSPACE=str(console.workspace)).json() == []
