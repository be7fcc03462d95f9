"""Deployments on a real Prefect server with a real worker: they run, are killed and go on, and single stages run again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import psutil
import pytest
from e2urec_console import STAGES, command, trained_users
from nightly_shops import LENIENT
from served_workspaces import ServedWorkspace, wait_until

from flows.services.processes import Services

pytestmark = pytest.mark.long
DATASET = {"kind": "sample", "num_users": 60, "ratings_per_user": 12, "polluted_share": 0.3}
BACKBONE = {"kind": "tiny_t5", "width": 16, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "inner_width": 32, "vocabulary": 400}
ONE_PASS = {"num_epochs": 1}
SETTINGS = {flag.removeprefix("--"): value for flag, value in zip(LENIENT[::2], LENIENT[1::2], strict=True)}


def tiny(method: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """The settings of a small run."""
    return {
        **{"dataset": DATASET, "backbone": BACKBONE, "method": method, "split": {"holdout_share": 0.2}},
        **{"training": ONE_PASS, "augment": ONE_PASS, "evaluate": {"floor_seeds": 0}, **sections},
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorkspace]:
    """A workspace with servers and a worker."""
    served = ServedWorkspace(tmp_path_factory.mktemp("served") / "workspace")
    processes = [psutil.Process(each.process) for each in Services.of(served.place).services]
    yield served
    assert set(served.stop()) == {"prefect", "mlflow", "worker"}
    assert not [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert served.stop() == []


def test_a_run_whose_worker_is_killed_in_the_middle_of_a_stage_is_finished_by_the_next_worker(served: ServedWorkspace) -> None:
    run = served.trigger("unlearn/unlearn", run=tiny({"kind": "e2urec", "training": ONE_PASS}, training={"num_epochs": 200}))
    wait_until(lambda: served.journals() and served.journals()[0]["stages"].get("train-original", {}).get("state") == "running", "training")
    served.kill_worker()
    assert served.run(run)["state_name"] == "Running"
    served.serve()
    ended = served.ended(run)
    assert (ended["state_name"], ended["run_count"]) == ("Completed", 2)
    states = served.states(run)
    assert states.index("Running") < states.index("Crashed") < states.index("AwaitingRetry")
    with closing(sqlite3.connect(served.place / "prefect" / "prefect.db")) as database:
        (told,) = database.execute("SELECT message FROM flow_run_state WHERE name = 'Crashed'").fetchone()
    assert told == "nothing was heard of its process for 75 s"
    first, second = served.journals()
    assert {each["state"] for each in second["stages"].values()} == {"completed", "cached"}
    assert second["stages"]["tokenise"]["state"] == "cached"
    assert first["stages"]["tokenise"]["handle"] == second["stages"]["tokenise"]["handle"]
    assert set(STAGES) <= second["stages"].keys()
    told = served.stages(run)
    assert told.count(("train-original", "Crashed")) == told.count(("train-original", "Completed")) == 1
    assert ("tokenise", "Cached") in told
    (link,) = [data for key, data in served.artifacts(run).items() if key == f"mlflow-{second['run']}"]
    assert f"{served.addresses['mlflow']}/#/experiments/1/runs/{second['tracking_run']}" in link
    assert {state for _, state in told} == {"Completed", "Cached", "Crashed"}
    assert wait_until(lambda: any("Completed('Retrained" in line for line in served.log(run)), "the log")


def test_a_stage_is_run_again_by_its_form_and_later_ones_are_stale(served: ServedWorkspace) -> None:
    before = served.journals()[-1]
    assert "augment.learning_rate" in served.refused("stage-train-augmented/train-augmented", augment={"learning_rate": -5})
    run = served.trigger("stage-train-augmented/train-augmented", run=before["run"], augment={"learning_rate": 1e-4})
    assert served.ended(run)["state_name"] == "Completed"
    after = served.journals()[-1]
    assert after["settings"]["augment"]["learning_rate"] == 1e-4
    assert {name for name, each in after["stages"].items() if each["state"] == "stale"} == {"cache-teachers", "unlearn", "report"}
    changed = {name for name, each in after["stages"].items() if each["handle"] != before["stages"][name]["handle"]}
    assert changed == {"train-augmented"}
    shown = served.artifacts(run)["stages-of-the-run"]
    assert '"stage": "cache-teachers", "state": "stale"' in shown


def test_what_ran_is_on_the_pages_of_both_servers(served: ServedWorkspace) -> None:
    answer = httpx.post(
        f"{served.addresses['mlflow']}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": ["1"], "filter": f"attributes.run_name = '{served.journals()[-1]['run']}'"},
    )
    told = answer.raise_for_status().json()["runs"]
    assert {each["info"]["status"] for each in told} == {"FINISHED"}
    # A command in the same workspace tells the same server, and starts none of its own.
    of_flow = {"flows": {"name": {"any_": ["stage-train-augmented"]}}}
    assert served.post("/flow_runs/count", of_flow) == 1
    assert command("stage", "train-augmented", "--run", "last", "--workspace", served.place).code == 0
    assert served.post("/flow_runs/count", of_flow) == 2


def test_the_night_runs_as_a_deployment_from_request_to_receipt(served: ServedWorkspace) -> None:
    gates = {"utility": {"least_auc": 0, "auc_fall": 1, "log_loss_rise": 20, "calibration_rise": 1, "group_auc_fall": 1}}
    first = served.trigger(
        "train/train",
        run=tiny(
            {"kind": "original"}, forget={"nobody": True}, gates=gates | {"forgetting": {"level": 0.0001}}, release={"then": "promote"}
        ),
    )
    assert served.ended(first)["state_name"] == "Completed"
    (user, *_) = trained_users(served.place, served.journals()[-1])
    assert command("requests", "add", "--user", user, "--workspace", served.place).code == 0
    night = {"ladder": "e2urec:training.num-epochs=1", "settings": {**SETTINGS, "requests.approval-share": "1"}}
    run = served.trigger("scheduled night/nightly", **night)
    assert served.ended(run)["state_name"] == "Completed"
    assert [each["state"] for each in command("requests", "list", "--json", "--workspace", served.place).json()] == ["certified"]
    assert command("receipt", "verify-all", "--workspace", served.place).code == 0
    assert command("scan", "--user", user, "--json", "--workspace", served.place).json() == []
    # The schedule is there, in its time zone, and asks for the next nights.
    found = served.get("/deployments/name/scheduled night/nightly")
    assert [(each["schedule"]["cron"], each["schedule"]["timezone"], each["active"]) for each in found["schedules"]] == [
        ("0 2 * * *", "UTC", True)
    ]
    due = {"deployments": {"id": {"any_": [found["id"]]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    assert wait_until(lambda: served.post("/flow_runs/count", due), "a run of the schedule") > 0


def test_a_run_goes_on_where_servers_and_worker_were_ended_together(served: ServedWorkspace) -> None:
    settings = tiny({"kind": "undial", "training": ONE_PASS}, training={"num_epochs": 150}, release={"then": "nothing"})
    run = served.trigger("unlearn/unlearn", run=settings)
    wait_until(lambda: served.run(run)["state_name"] == "Running", "the run")
    wait_until(lambda: served.journals()[-1]["stages"].get("train-original", {}).get("state") == "running", "training")
    assert set(served.stop()) == {"prefect", "mlflow", "worker"}
    served.serve()
    assert served.ended(run)["state_name"] == "Completed"
