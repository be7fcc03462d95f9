"""What is told to MLflow: settings under their own names, numbers in few calls, and how each stage ended."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from e2urec_core.errors import TrackingFailed
from flows.runs import build_run
from tasks._tracking import LONGEST_PARAMETER, METRICS_AT_A_TIME, StageMetrics, Tracker, flattened


class NotingClient:
    """Notes what a client of MLflow is asked to do."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.tags: dict[str, str] = {}
        self.started: list[tuple[str, dict[str, str]]] = []
        self.ended: list[str] = []

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        self.batches.append(metrics)

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        self.started.append((run_name, tags))
        return SimpleNamespace(info=SimpleNamespace(run_id="nested"))

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        self.tags[name] = value

    def set_terminated(self, run_id: str, status: str) -> None:
        self.ended.append(status)


def tracker(place: Path) -> tuple[Tracker, NotingClient]:
    made, client = Tracker(place), NotingClient()
    made._client, made.run_id = client, "parent"
    return made, client


def test_settings_are_flattened_under_dotted_names_with_values_as_text() -> None:
    settings = {"seed": 3, "method": {"kind": "e2urec", "lora": {"rank": 16, "dropout": 0.05}}, "forget": {"users_file": None}}
    assert flattened(settings) == {
        "seed": "3",
        "method.kind": "e2urec",
        "method.lora.rank": "16",
        "method.lora.dropout": "0.05",
        "forget.users_file": "None",
    }


def test_every_setting_of_a_run_has_a_name_that_the_command_knows() -> None:
    words = {"dataset": "sample", "backbone": "tiny-t5", "method": "e2urec"}
    flat = flattened(build_run(words, "demo", {}).canonical())
    assert flat["method.suppression"] == "60.0"
    values = {name: value for name, value in flat.items() if not name.endswith("kind") and value not in ("", "None")}
    assert flattened(build_run(words, None, values).canonical()) == flat


def test_a_long_value_is_cut_to_what_mlflow_takes() -> None:
    assert flattened({"path": "x" * 6000}) == {"path": "x" * LONGEST_PARAMETER}


def test_numbers_are_sent_in_batches_that_mlflow_takes_and_only_once() -> None:
    metrics, client = StageMetrics(), NotingClient()
    for step in range(1, 1 + METRICS_AT_A_TIME):
        metrics.step(step, {"loss": step / 2, "forget": 0.25})
    metrics.final({"seconds": 1.5})
    metrics.write(client, "run")
    assert [len(batch) for batch in client.batches] == [METRICS_AT_A_TIME, METRICS_AT_A_TIME, 1]
    first = client.batches[0][0]
    assert (first.key, first.value, first.step) == ("loss", 0.5, 1)
    metrics.write(client, "run")
    assert len(client.batches) == 3


def test_a_stage_that_ends_well_is_finished_and_tagged_below_its_run(tmp_path: Path) -> None:
    made, client = tracker(tmp_path)
    with made.stage("unlearn") as (metrics, tags):
        metrics.step(1, {"loss": 0.5})
        tags["e2urec.digest"] = "d"
    assert client.started == [("unlearn", {"mlflow.parentRunId": "parent", "e2urec.stage": "unlearn"})]
    assert (client.ended, client.tags) == (["FINISHED"], {"e2urec.digest": "d"})


@pytest.mark.parametrize("fault", [ValueError("x"), KeyboardInterrupt(), SystemExit(143)], ids=lambda fault: type(fault).__name__)
def test_a_stage_that_breaks_off_is_failed_and_keeps_the_losses_so_far(tmp_path: Path, fault: BaseException) -> None:
    made, client = tracker(tmp_path)
    with pytest.raises(type(fault)), made.stage("unlearn") as (metrics, _):
        metrics.step(1, {"loss": 0.5})
        raise fault
    assert client.ended == ["FAILED"]
    assert [point.value for batch in client.batches for point in batch] == [0.5]


def test_a_run_that_never_reached_mlflow_is_not_closed_there(tmp_path: Path) -> None:
    made, client = tracker(tmp_path)
    made.run_id = ""
    made.finish("FAILED")
    assert client.ended == []


class FailingClient(NotingClient):
    """Does nothing but fail while it is down."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.asked = True, 0

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        self.asked += 1
        if self.down:
            raise ConnectionError("refused")
        return super().create_run(experiment, run_name, tags)


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[Tracker, FailingClient]:
    monkeypatch.setenv("E2UREC_TRACKING_PATIENCE_S", "0.2")
    made, client = Tracker(tmp_path), FailingClient()
    made._client = client
    made.start("run-1", {}, "")
    for label in ("split", "unlearn"):
        with made.stage(label) as (metrics, tags):
            metrics.final({"rows": 3})
            tags["e2urec.state"] = label
    return made, client


def test_a_server_that_is_down_stops_no_stage_and_is_told_everything_in_order_once_it_answers(
    outage: tuple[Tracker, FailingClient], capsys: pytest.CaptureFixture[str]
) -> None:
    made, client = outage
    assert (client.started, client.batches, client.ended) == ([], [], [])
    client.down = False
    made.settle()
    assert [name for name, _ in client.started] == ["run-1", "split", "unlearn"]
    assert all(tags["mlflow.parentRunId"] == "nested" for _, tags in client.started[1:])
    assert client.ended == ["FINISHED", "FINISHED"]
    assert len(client.batches) == 2
    assert made.run_id == "nested"


def test_the_outage_is_said_once_and_not_waited_for_at_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("E2UREC_TRACKING_PATIENCE_S", "0.3")
    made, client = Tracker(tmp_path), FailingClient()
    made._client = client
    made.start("run-1", {}, "")
    first = client.asked
    assert first >= 1
    for number in range(20):
        with made.stage(f"stage {number}"):
            pass
    # The breaker lets a single call through at most once in a patience.
    assert client.asked <= first + 2
    assert capsys.readouterr().err.count("going on, it is told later") == 1


def test_what_could_not_be_told_is_an_error_in_the_end(outage: tuple[Tracker, FailingClient]) -> None:
    made, _ = outage
    with pytest.raises(TrackingFailed, match="did not answer"):
        made.settle()


def test_two_workspaces_in_one_process_have_databases_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        made = Tracker(tmp_path / name)
        made.start(name, {}, "")
        (run,) = made.client.search_runs([made._experiment])
        assert run.info.run_name == name
    assert (tmp_path / "other" / "mlflow.db").is_file()


def test_a_run_has_a_page_where_the_server_has_an_http_address_and_nobodys_password_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(tmp_path)
    tracker.run_id = "4711"
    assert tracker.page() == ""
    monkeypatch.setenv("E2UREC_MLFLOW_PAGES", "http://127.0.0.1:5000")
    assert tracker.page() == "http://127.0.0.1:5000/#/experiments//runs/4711"
    monkeypatch.delenv("E2UREC_MLFLOW_PAGES")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://night:hush@tracking.example:5000/mlflow/")
    tracker = Tracker(tmp_path)
    # Not before the server has taken the run.
    assert tracker.page() == ""
    tracker.run_id, tracker._experiment = "4711", "7"
    assert tracker.page() == "https://tracking.example:5000/mlflow/#/experiments/7/runs/4711"
    assert tracker.page("report/report.html").endswith("/runs/4711/artifacts/report/report.html")
