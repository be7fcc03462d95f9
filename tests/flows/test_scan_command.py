"""`e2urec scan` answers by its exit code, never names whom it looks for, and looks at tracking servers, too."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from e2urec_console import Console, command

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


def test_the_exit_code_says_whether_anything_was_found_and_the_user_is_not_named(console: Console, workspace: Path) -> None:
    answer = command("scan", "--user", CANARY, "--workspace", workspace, "--json")
    assert answer.code == 1, answer.stderr
    assert answer.json() == [
        "reports/<the user>.json (its name): identifier, 1 time",
        "reports/<the user>.json: identifier, 1 time",
    ]
    answer = console("scan", "--user", "other-4711", "--json", workspace=workspace)
    assert (answer.code, answer.stdout) == (0, "[]\n")
    answer = console("scan", "--user", CANARY, workspace=workspace)
    assert CANARY not in answer.stdout + answer.stderr
    assert "looked through 1 files, 0 databases, 24 bytes" in answer.stdout.splitlines()[-1]


def test_example_ids_come_from_a_file_and_databases_outside_are_searched(console: Console, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text(f"{EXAMPLE}\n")
    with closing(sqlite3.connect(tmp_path / "m.db")) as connection:
        connection.execute("CREATE TABLE t (x INTEGER)")
        connection.execute("INSERT INTO t VALUES (?)", (int(EXAMPLE),))
        connection.commit()
    flags = ("scan", "--user", "nobody-1", "--example-ids", tmp_path / "ids", "--json")
    assert console(*flags, workspace=workspace).code == 0
    for variable, called in (("MLFLOW_TRACKING_URI", "tracking"), ("E2UREC_LEDGER", "ledger")):
        answer = command(*flags, "--workspace", workspace, **{variable: f"sqlite:///{tmp_path / 'm.db'}"})
        assert (answer.code, answer.json()) == (1, [f"{called} m.db table t: example id, 1 time"])


def test_bad_input_ends_with_two(console: Console, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("seven\n")
    for place, flags in ((tmp_path / "none", ()), (workspace, ("--example-ids", tmp_path / "ids"))):
        answer = console("scan", "--user", "u", *flags, workspace=place)
        assert answer.code == 2
        assert answer.stderr.startswith("BadInput: ")


@pytest.fixture(params=["database", pytest.param("server", marks=pytest.mark.long)])
def tracked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str | None]]:
    """Address of an empty tracking server, or of a database that answers the same client, and where artifacts go."""
    if request.param == "database":
        yield f"sqlite:///{tmp_path / 'tracked.db'}", (tmp_path / "served").as_uri()
    else:
        with mlflow_server(tmp_path, "--artifacts-destination", str(tmp_path / "served")) as address:
            yield address, None


@pytest.mark.slow
def test_a_tracking_server_is_searched_with_its_deleted_runs_versions_and_artifacts(
    tracked: tuple[str, str | None], tmp_path: Path
) -> None:
    import mlflow

    (tmp_path / "w").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.json").write_text(json.dumps({"user": CANARY}))
    address, artifacts = tracked
    client = mlflow.MlflowClient(address, registry_uri=address)
    experiment = client.create_experiment("e", artifact_location=artifacts)
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
