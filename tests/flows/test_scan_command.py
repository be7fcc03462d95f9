"""`e2urec scan` answers by its exit code, never names whom it looks for, and looks at tracking servers, too."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from e2urec_console import command

from e2urec_core.scanning.scan import Scan
from e2urec_core.scanning.targets import Targets
from tasks.scan import scan_tracking
from tests.tracking_servers import mlflow_server

CANARY, EXAMPLE = "canary-4711x", "7435842424407639803"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "w" / "reports").mkdir(parents=True)
    (tmp_path / "w" / "reports" / f"{CANARY}.json").write_text(json.dumps({"user": CANARY}))
    return tmp_path / "w"


def test_the_exit_code_says_whether_anything_was_found_and_the_user_is_not_named(workspace: Path) -> None:
    answer = command("scan", "--user", CANARY, "--workspace", workspace, "--json")
    assert answer.code == 1, answer.stderr
    assert answer.json() == [
        "reports/<the user>.json (its name): identifier, 1 time",
        "reports/<the user>.json: identifier, 1 time",
    ]
    answer = command("scan", "--user", "other-4711", "--workspace", workspace, "--json")
    assert (answer.code, answer.stdout) == (0, "[]\n")
    answer = command("scan", "--user", CANARY, "--workspace", workspace)
    assert CANARY not in answer.stdout + answer.stderr
    assert "looked through 1 files, 0 databases, 24 bytes" in answer.stdout.splitlines()[-1]


def test_example_ids_come_from_a_file_and_databases_outside_are_searched(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text(f"{EXAMPLE}\n")
    with closing(sqlite3.connect(tmp_path / "m.db")) as connection:
        connection.execute("CREATE TABLE t (x INTEGER)")
        connection.execute("INSERT INTO t VALUES (?)", (int(EXAMPLE),))
        connection.commit()
    flags = ("scan", "--user", "nobody-1", "--workspace", workspace, "--example-ids", tmp_path / "ids", "--json")
    assert command(*flags).code == 0
    for variable, called in (("MLFLOW_TRACKING_URI", "tracking"), ("E2UREC_LEDGER", "ledger")):
        answer = command(*flags, **{variable: f"sqlite:///{tmp_path / 'm.db'}"})
        assert (answer.code, answer.json()) == (1, [f"{called} m.db table t: example id, 1 time"])


def test_bad_input_ends_with_two(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("seven\n")
    for flags in (
        ("--user", "u", "--workspace", tmp_path / "none"),
        ("--user", "u", "--workspace", workspace, "--example-ids", tmp_path / "ids"),
    ):
        answer = command("scan", *flags)
        assert answer.code == 2
        assert answer.stderr.startswith("BadInput: ")


@pytest.mark.slow
def test_a_tracking_server_is_searched_with_its_deleted_runs_versions_and_artifacts(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.json").write_text(json.dumps({"user": CANARY}))
    with mlflow_server(tmp_path, "--artifacts-destination", str(tmp_path / "served")) as address:
        import mlflow

        client = mlflow.MlflowClient(address, registry_uri=address)
        experiment = client.create_experiment("e")
        run = client.create_run(experiment).info.run_id
        client.log_param(run, "forget.user", CANARY)
        client.log_metric(run, f"auc of {CANARY}", 0.5)
        client.log_artifacts(run, str(tmp_path / "files"))
        client.create_registered_model("m")
        client.create_model_version("m", source=client.get_run(run).info.artifact_uri, run_id=run, tags={"user": CANARY})
        client.delete_run(run)
        search = Scan(tmp_path / "w", Targets.of(CANARY))
        scan_tracking(search, address)
        assert search.result().places == (
            f"mlflow run {run} artifacts/a.json: identifier, 1 time",
            f"mlflow run {run}: identifier, 2 times",
            "mlflow version 1 of m: identifier, 1 time",
        )
        clean = Scan(tmp_path / "w", Targets.of("other-4711"))
        scan_tracking(clean, address)
        assert clean.result().places == ()
