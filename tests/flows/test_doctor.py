"""`e2urec doctor` changes nothing, tells no secret, ends whatever hangs, and its checks can fail."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from socket import create_server
from typing import Any

import psutil
import pytest
from e2urec_console import command
from filelock import FileLock

from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.looking import look
from e2urec_core.ledger.request_records import NewRequest
from e2urec_core.pseudonyms import open_pseudonyms
from e2urec_core.receipts.keys import open_signer, rotate_key
from e2urec_core.receipts.witness import LedgerWitness
from flows.health import asking, clock, keys, leftovers, machine, places, servers, versions
from flows.health.examination import CHECKS, examine
from flows.health.finding import Check, Finding, Once, ok
from flows.health.subject import Subject
from flows.servers import SERVER
from tests.ledgers import child, ended, postgres_is_here, postgres_server, requests_at
from tests.tracking_servers import free_port

SECRET, USER = "hush-4711x", "user-4711x"
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def unsteered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "MLFLOW_", "E2UREC_")):
            monkeypatch.delenv(name)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a ledger of one request, and keys for pseudonyms and receipts."""
    place = tmp_path / "w"
    requests_at(place / "requests.db").add(NewRequest(user_id=USER), "command")
    ledger = open_ledger(place / "requests.db")
    open_pseudonyms(place, ledger)
    open_signer(place, ledger)
    return place


def found(topic: Any, name: str, subject: Subject) -> Finding:
    """What one check of a topic finds."""
    (check,) = (check for check in topic.CHECKS if check.name == name)
    return check.look(subject)


def told(topic: Any, name: str, workspace: Path) -> tuple[str, str]:
    """State and sentence of one check of a topic."""
    finding = found(topic, name, Subject(workspace))
    assert (finding.state == "ok") == (finding.hint == "")
    return finding.state, finding.said


def everything(place: Path) -> dict[str, tuple[int, float, str]]:
    """Every path with its mode, time of change and bytes."""
    status = {path: path.stat() for path in sorted((place, *place.rglob("*")))}
    return {
        str(path): (each.st_mode, each.st_mtime, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path, each in status.items()
    }


@contextmanager
def answering(status: int = 200, body: str = "", ahead: timedelta = timedelta(), seen: list[str] | None = None) -> Iterator[str]:
    """A server that answers everything alike, by a clock that is ahead; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if seen is not None:
                seen.append(f"{self.path} {self.headers['Authorization']}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(body.encode())

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + ahead, usegmt=True)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_it_changes_nothing_and_tells_no_secret(workspace: Path) -> None:
    before = everything(workspace)
    closed = free_port()
    answer = command(
        "doctor",
        "--workspace",
        workspace,
        "--json",
        MLFLOW_TRACKING_URI=f"http://night:{SECRET}@127.0.0.1:{closed}/?token={SECRET}",
        PREFECT_API_URL=f"http://night:{SECRET}@127.0.0.1:{closed}:wrong/api",
        E2UREC_LEDGER=f"postgresql+psycopg://night:{SECRET}@127.0.0.1:{closed}/ledger?application_name={SECRET}",
        E2UREC_SUPPRESSION_KEY=SECRET,
        PREFECT_API_KEY=SECRET,
    )
    assert (answer.code, answer.stderr) == (1, "")
    assert everything(workspace) == before
    assert SECRET not in answer.stdout
    assert USER not in answer.stdout
    document = answer.json()
    assert len(document["checks"]) == len(CHECKS)
    states = {(each["topic"], each["name"]): each["state"] for each in document["checks"]}
    faults = {check for check, state in states.items() if state == "fault"}
    assert {("servers", "MLflow"), ("servers", "Prefect"), ("servers", "ledger"), ("keys", "suppression")} <= faults
    assert document["faults"] == len(faults)
    assert not document["fit"]


def test_a_workspace_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    answer = command("doctor", "--workspace", tmp_path / "none" / "w")
    assert answer.code == 0, answer.stdout
    assert "warning  folder" in answer.stdout
    assert answer.stdout.splitlines()[-1].startswith("fit for nights: ")
    assert list(tmp_path.iterdir()) == []


def test_a_check_that_breaks_or_hangs_is_a_fault_and_holds_up_no_other(tmp_path: Path) -> None:
    let_go = threading.Event()

    def breaks(_: Subject) -> Finding:
        raise LookupError(f"quotes {SECRET}")

    def hangs(_: Subject) -> Finding:
        let_go.wait(60)
        return ok("late")

    checks = [Check("t", "hangs", hangs, 0.2), Check("t", "breaks", breaks), Check("t", "works", lambda _: ok("well"))]
    began = time.monotonic()
    hung, broken, works = examine(Subject(tmp_path), checks)
    let_go.set()
    assert time.monotonic() - began < 30
    assert (hung.state, hung.said) == ("fault", "gave no answer within 0.2 s")
    assert (broken.state, broken.said) == ("fault", "the check broke with LookupError")
    assert works.said == "well"


def test_what_several_checks_ask_is_looked_at_once_and_given_up_once(workspace: Path) -> None:
    let_go, looks = threading.Event(), list[int]()

    def hangs() -> None:
        looks.append(1)
        let_go.wait(60)

    subject = Subject(workspace)
    subject.ledger = Once(hangs, 0.2)
    about_it = [check for check in CHECKS if check.topic in ("servers", "keys", "leftovers", "clock")]
    faults = [(each.topic, each.name) for each in examine(subject, about_it) if each.state == "fault"]
    let_go.set()
    assert (faults, looks) == ([("servers", "ledger")], [1])


def test_secrets_of_the_environment_are_hidden_wherever_they_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://night:hu%2Fsh@host/")
    monkeypatch.setenv("E2UREC_RECEIPT_KEY", SECRET)
    (result,) = examine(Subject(tmp_path), [Check("t", "n", lambda _: ok(f"hu%2Fsh, hu/sh and {SECRET}"))])
    assert result.said == "***, *** and ***"
    assert asking.shown("postgresql://night:a/b@c?d@db/x?password=y#z") == "postgresql://***@db/x"


def test_a_package_outside_of_its_bounds_is_a_fault_that_says_what_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(versions, "declared", tmp_path)[0] == "ok"
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.1.9" if name == "sqlalchemy" else real(name))
    finding = found(versions, "declared", Subject(tmp_path))
    assert finding.state == "fault"
    assert "sqlalchemy is 2.1.9, not " in finding.said
    assert "never fire" in finding.hint


def test_threads_and_memory_and_gpus_that_are_short_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, state in (("1", "ok"), ("100000", "warning"), ("many", "warning"), ("0", "warning")):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert told(machine, "cores", tmp_path)[0] == state
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("memory", "total available")(8 * 2**30, 2 * 2**30))
    monkeypatch.setattr(machine, "LIMITS", (tmp_path / "limit",))
    assert told(machine, "memory", tmp_path) == ("ok", "2.0 GiB of 8.0 GiB of memory are free")
    (tmp_path / "limit").write_text(f"{2**30}\n")
    assert told(machine, "memory", tmp_path) == ("warning", "1.0 GiB of 1.0 GiB of memory are free")
    devices = {"built": "13.0", "devices": [["GPU", 2**30, 8 * 2**30, True]]}
    monkeypatch.setattr(machine, "ASK_TORCH", f"print({json.dumps(devices)!r})")
    assert told(machine, "GPUs", tmp_path) == ("warning", "1 CUDA: GPU, 1.0 GiB of 8.0 GiB free, bf16")
    monkeypatch.setattr(machine, "ASK_TORCH", "raise ImportError('libcuda')")
    assert told(machine, "GPUs", tmp_path) == ("fault", "torch ends with 1: ImportError: libcuda")


def test_a_full_disk_is_a_fault_and_a_nearly_full_one_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    status = namedtuple("status", "f_files f_favail")
    # MiB free, files free of those there are; 0 of 0 is no limit.
    for mib, files, of, state in (
        (15, 10**6, 10**7, "fault"),
        (17, 10**6, 10**7, "warning"),
        (10**5, 99, 10**7, "fault"),
        (10**5, 101, 10**7, "warning"),
        (10**5, 0, 0, "ok"),
        (10**5, 10**6, 10**7, "ok"),
    ):
        monkeypatch.setattr(places.shutil, "disk_usage", lambda _, mib=mib: usage(mib * 2**20))
        monkeypatch.setattr(places.os, "statvfs", lambda _, files=files, of=of: status(of, files))
        assert told(places, "room", tmp_path)[0] == state, (mib, files)


def test_a_folder_that_everybody_may_write_or_that_is_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert told(places, "folder", tmp_path / "file")[0] == "fault"
    assert told(places, "folder", tmp_path)[0] == "ok"
    tmp_path.chmod(0o777)
    assert told(places, "folder", tmp_path)[0] == "warning"
    monkeypatch.setattr(places.os, "access", lambda *_: False)
    assert told(places, "folder", tmp_path)[0] == "fault"
    part = namedtuple("part", "mountpoint fstype")
    mounts = [part("/", "ext4"), part(str(tmp_path), "nfs4"), part(f"{tmp_path}x", "tmpfs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    assert told(places, "file system", tmp_path / "w") == ("warning", "the workspace lies on nfs4, over a network")


def test_sizes_are_told_by_what_keeps_them(tmp_path: Path) -> None:
    for name, num_mib in (("store/a", 3), ("mlflow.db-wal", 1), ("prefect/prefect.db", 2), ("runs.json", 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(num_mib * 2**20))
    sizes = "store 3.0 MiB, MLflow 1.0 MiB, Prefect 2.0 MiB, other 0.0 MiB"
    assert told(places, "size", tmp_path) == ("ok", f"4 files: {sizes}")


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "GIVE_UP_S", 0.2)
    # It takes the call and says nothing.
    with create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        state, said = told(servers, "MLflow", tmp_path)
    assert state == "fault"
    assert "does not answer" in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://127.0.0.1:{free_port()}/m")
    assert told(servers, "MLflow", tmp_path)[0] == "fault"


@pytest.mark.parametrize(
    ("status", "body", "state", "says"),
    [
        (200, "{present}", "ok", "as mlflow {present}"),
        (200, "1.2.3", "warning", "it is mlflow 1.2.3"),
        (200, "<html>", "ok", "tells no version"),
        (302, "", "warning", "(302)"),
        (401, "", "fault", "we may not (401)"),
        (503, "", "fault", "broken (503)"),
    ],
)
def test_what_a_server_answers_is_judged(
    status: int, body: str, state: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = metadata.version("mlflow")
    with answering(status, body.format(present=present)) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        finding = told(servers, "MLflow", tmp_path)
    assert finding[0] == state
    assert says.format(present=present) in finding[1]


def test_servers_are_asked_with_the_name_and_password_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    with answering(body=json.dumps(metadata.version("prefect")), seen=seen) as address:
        monkeypatch.setenv("PREFECT_API_URL", f"{address}/api")
        assert told(servers, "Prefect", tmp_path)[0] == "ok"
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "night:hush")
        assert told(servers, "Prefect", tmp_path)[0] == "ok"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", "//night:hush@"))
        told(servers, "MLflow", tmp_path)
    # base64 of night:hush
    assert seen == [
        "/api/admin/version None",
        "/api/admin/version Basic bmlnaHQ6aHVzaA==",
        "/version Basic bmlnaHQ6aHVzaA==",
    ]


def test_databases_of_the_workspace_are_read_and_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_text("no database, for more than twenty bytes")
    assert told(servers, "MLflow", tmp_path)[0] == "fault"
    (tmp_path / "prefect").mkdir()
    with closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES ('4711')")
        connection.commit()
        before = everything(tmp_path)
        assert "it is not opened" in told(servers, "Prefect", tmp_path)[1]
        assert everything(tmp_path) == before
    before = everything(tmp_path)
    assert told(servers, "Prefect", tmp_path)[1].endswith("schema 4711")
    assert everything(tmp_path) == before
    monkeypatch.setattr(servers.os, "access", lambda *_: False)
    assert told(servers, "Prefect", tmp_path) == ("fault", "prefect.db may not be read and written")


def changed(ledger: Path, statement: str) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_ledger_of_another_schema_is_told_and_not_migrated(workspace: Path) -> None:
    ledger = workspace / "requests.db"
    assert told(servers, "ledger", workspace)[0] == "ok"
    for schema, state in (("9999", "fault"), ("0003", "warning")):
        changed(ledger, f"UPDATE ledger_version SET version_num = '{schema}'")
        before = everything(workspace)
        assert told(servers, "ledger", workspace)[0] == state
        assert everything(workspace) == before
    changed(ledger, "DROP TABLE ledger_version")
    assert told(servers, "ledger", workspace) == ("fault", "requests.db: the database holds no ledger")
    ledger.write_bytes(b"torn" * 2000)
    assert told(servers, "ledger", workspace)[0] == "fault"


def test_a_ledger_that_others_may_read_or_that_is_gone_is_told(workspace: Path) -> None:
    ledger = workspace / "requests.db"
    ledger.chmod(0o644)
    assert told(servers, "ledger", workspace)[0] == "warning"
    assert ledger.stat().st_mode & 0o777 == 0o644
    ledger.unlink()
    assert told(servers, "ledger", workspace)[0] == "ok"
    (workspace / "keys" / "suppression.key").write_bytes(bytes(32))
    assert told(servers, "ledger", workspace)[0] == "fault"


def test_a_change_that_a_killed_process_left_is_told_and_left(workspace: Path) -> None:
    def killed() -> None:
        connection = sqlite3.connect(workspace / "requests.db", isolation_level=None)
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE t (x)")
        # More than the cache holds, so that the file is written before the commit.
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 1000)
        os._exit(9)

    assert ended(child(killed)) == 9
    before = everything(workspace)
    state, said = told(servers, "ledger", workspace)
    assert state == "warning"
    assert "killed within a change" in said
    assert everything(workspace) == before


@pytest.mark.skipif(not postgres_is_here(), reason="no PostgreSQL here")
def test_a_ledger_on_a_server_is_looked_at_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server() as schema:
        address = schema()
        monkeypatch.setenv("E2UREC_LEDGER", address)
        assert told(servers, "ledger", tmp_path)[1].endswith("the database holds no ledger")
        requests_at(address).add(NewRequest(user_id=USER), "command")
        state, said = told(servers, "ledger", tmp_path)
        assert (state, said.endswith("schema 0004, 1 request")) == ("ok", True)
        ahead = look(address, NOW, 5.0).ahead_s
        assert ahead is not None
        assert abs(ahead) < 2
        assert "the ledger is 0 s" in told(clock, "servers", tmp_path)[1]


@pytest.mark.parametrize(("ahead_s", "state"), [(0, "ok"), (60, "warning"), (-60, "warning"), (900, "fault"), (-900, "fault")])
def test_a_clock_that_differs_from_a_servers_is_told(ahead_s: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(ahead=timedelta(seconds=ahead_s)) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert told(clock, "servers", tmp_path)[0] == state


@pytest.mark.parametrize(("behind_s", "state"), [(0, "ok"), (60, "warning"), (900, "fault")])
def test_a_clock_behind_the_ledger_or_the_files_is_told(behind_s: int, state: str, workspace: Path) -> None:
    at = datetime.now(UTC) - timedelta(seconds=behind_s)
    subject = Subject(workspace, lambda: at)
    assert found(clock, "ledger", subject).state == state
    assert found(clock, "files", subject).state == state


def test_keys_that_are_open_or_cut_or_lost_are_faults(workspace: Path) -> None:
    path = workspace / "keys" / "pseudonyms.key"
    assert told(keys, "pseudonyms", workspace) == ("ok", "keys/pseudonyms.key, mode 600; its fingerprint is the ledger's")
    path.chmod(0o640)
    assert told(keys, "pseudonyms", workspace)[0] == "fault"
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o600)
    path.write_bytes(bytes(31))
    assert told(keys, "pseudonyms", workspace)[0] == "fault"
    path.write_bytes(bytes(32))
    assert told(keys, "pseudonyms", workspace) == (
        "fault",
        "the key in keys/pseudonyms.key, mode 600 is not the one the ledger knows",
    )
    path.unlink()
    assert told(keys, "pseudonyms", workspace)[0] == "fault"
    assert told(keys, "suppression", workspace)[0] == "ok"
    (workspace / "keys").chmod(0o755)
    assert told(keys, "folder", workspace)[0] == "warning"


def test_a_key_in_the_environment_is_compared_and_not_shown(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = (workspace / "keys" / "pseudonyms.key").read_bytes().hex()
    (workspace / "keys" / "pseudonyms.key").unlink()
    monkeypatch.setenv("E2UREC_PSEUDONYM_KEY", right)
    state, said = told(keys, "pseudonyms", workspace)
    assert (state, right in said) == ("ok", False)
    for wrong in ("00" * 32, "none"):
        monkeypatch.setenv("E2UREC_PSEUDONYM_KEY", wrong)
        assert told(keys, "pseudonyms", workspace)[0] == "fault"


def test_a_key_of_receipts_that_was_rotated_is_still_the_ledgers(workspace: Path) -> None:
    ledger = open_ledger(workspace / "requests.db")
    first = (workspace / "keys" / "receipts.key").read_bytes()
    rotate_key(workspace, open_signer(workspace, ledger), LedgerWitness(ledger))
    assert (workspace / "keys" / "receipts.key").read_bytes() != first
    assert told(keys, "receipts", workspace)[0] == "ok"
    (workspace / "keys" / "receipts.key").write_bytes(bytes(32))
    assert told(keys, "receipts", workspace)[0] == "fault"


def test_a_night_that_is_at_work_is_told_and_not_disturbed(tmp_path: Path) -> None:
    assert told(leftovers, "nightly lock", tmp_path) == ("ok", "no night is at work")
    with FileLock(tmp_path / "nightly.lock"):
        state, said = told(leftovers, "nightly lock", tmp_path)
    assert state == "warning"
    assert f"process {os.getpid()} holds" in said
    assert told(leftovers, "nightly lock", tmp_path) == ("ok", "no night is at work")


def test_runs_that_work_and_that_were_killed_are_told(tmp_path: Path) -> None:
    from tasks._journal import Journal, here

    journal = Journal.start(tmp_path / "runs", "a", {})
    assert told(leftovers, "runs", tmp_path) == ("ok", f"1 run, 1 at work ({journal.record.run})")
    journal.change(process_started=here()["process_started"] - 100)
    state, said = told(leftovers, "runs", tmp_path)
    assert (state, said) == ("warning", f"1 run, 0 at work; 1 was killed within 7 days: {journal.record.run}")
    journal.change(started_at=(NOW - timedelta(days=8)).isoformat(timespec="seconds"))
    assert told(leftovers, "runs", tmp_path)[0] == "ok"
    journal.change(host="elsewhere")
    assert told(leftovers, "runs", tmp_path) == ("ok", "1 run, 0 at work, 1 perhaps at work on another machine")


def test_servers_that_killed_commands_left_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Left:
        pid, info = 4711, {"cmdline": ["python", SERVER]}
        parent: Callable[[Any], None] = staticmethod(lambda: None)
        environ = staticmethod(lambda: {"PREFECT_HOME": str(tmp_path / "prefect")})

    assert told(leftovers, "orphans", tmp_path)[0] == "ok"
    monkeypatch.setattr(psutil, "process_iter", lambda _: [Left()])
    assert told(leftovers, "orphans", tmp_path) == ("warning", "1 server of killed commands still run (process 4711)")


def test_requests_that_are_overdue_or_wait_for_a_person_are_counted(workspace: Path) -> None:
    assert told(leftovers, "requests", workspace)[0] == "ok"
    late = found(leftovers, "requests", Subject(workspace, lambda: NOW + timedelta(days=31)))
    assert (late.state, late.said[:9]) == ("warning", "1 overdue")
    requests = requests_at(workspace / "requests.db", max_attempts=1)
    claim = requests.claim("night", num_users=10)
    requests.fail_back([each.id for each in claim.requests], epoch=claim.epoch)
    assert told(leftovers, "requests", workspace) == ("warning", "0 overdue, 1 wait for a person, 0 for `verify`, 0 for the next night")
    requests.hold(claim.requests[0].id)
    assert found(leftovers, "requests", Subject(workspace, lambda: NOW + timedelta(days=31))).state == "ok"
