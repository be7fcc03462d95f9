"""Back-ups of a small workspace without a champion: what is in them, what is refused, and kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from e2urec_console import command
from filelock import FileLock

from e2urec_core.artifacts import Bundle
from e2urec_core.backup import copying
from e2urec_core.errors import BadInput, BadSetting, DamagedBackup, DamagedLedger, NotRestorable, StorageFailed, WorkspaceBusy
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.request_records import NewRequest
from e2urec_core.ledger.requests import Requests
from e2urec_core.ledger.suppressions import open_suppressions
from e2urec_core.store import Store
from flows.backing_up import back_up
from flows.restoring import restore
from tasks._journal import Journal
from tasks._moved_tracking import keep_number

USER = "somebody-7"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """With an artifact that shares a file with another, a request, a suppressed user, a tracking database and what is left out."""
    place = tmp_path / "shop"
    store = Store(place / "store")
    for name in ("one", "two"):
        with store.workplace() as folder:
            (folder / f"{name}.txt").write_text(name)
            shared = place / "shared.bin"
            if not shared.exists():
                shared.write_bytes(bytes(10_000))
            os.link(shared, folder / "shared.bin")
            store.publish(Bundle, folder, parents=(), rows=1, made_by="test")
    shared.unlink()
    ledger = open_ledger(place / "requests.db")
    Requests(ledger).add(NewRequest(user_id=USER), "command")
    open_suppressions(place, ledger).add({USER: datetime(2026, 1, 1, tzinfo=UTC)}, {})
    with closing(sqlite3.connect(place / "mlflow.db")) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE runs (run_uuid VARCHAR(32), artifact_uri VARCHAR(200))")
        database.execute("CREATE TABLE model_versions (name VARCHAR(256), version INTEGER, current_stage VARCHAR(20), source VARCHAR(500))")
        database.execute("INSERT INTO runs VALUES ('a', ?)", (f"{place.as_uri()}/mlartifacts/a",))
        database.execute("INSERT INTO runs VALUES ('b', ?)", (f"{place.as_uri()}-other/mlartifacts/b",))
        database.execute("INSERT INTO model_versions VALUES ('e2urec', 1, 'None', ?)", (f"{place}/mlartifacts/a",))
    for left in ("prefect/prefect.db", "store/tmp/1-x/half", "store/checkpoints/k/state", "claims/a.csv"):
        (place / left).parent.mkdir(parents=True, exist_ok=True)
        (place / left).write_text(USER)
    return place


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_backup_has_all_but_locks_keys_and_half_written_work(workspace: Path, tmp_path: Path) -> None:
    manifest = back_up(workspace, tmp_path / "copy", with_keys=False)
    told = {name.split("/")[0] for name in manifest.files}
    assert told == {"store", "requests.db", "mlflow.db"}
    assert not any(name.startswith(("store/tmp", "store/checkpoints")) for name in manifest.files)
    assert manifest.keys_left_out == ("suppression.key",)
    assert names(tmp_path / "copy" / "workspace") == set(manifest.files)
    assert manifest.ledger == open_ledger(workspace / "requests.db").head()


def test_a_file_under_two_names_is_kept_once(workspace: Path, tmp_path: Path) -> None:
    back_up(workspace, tmp_path / "copy", with_keys=False)
    shared = list((tmp_path / "copy").rglob("shared.bin"))
    assert len(shared) == 2
    assert len({path.stat().st_ino for path in shared}) == 1


def test_a_restore_is_the_same_workspace_elsewhere(workspace: Path, tmp_path: Path) -> None:
    back_up(workspace, tmp_path / "copy", with_keys=True)
    place = tmp_path / "new"
    done = restore(tmp_path / "copy", place, since=None, nothing_since=True)
    assert (done.version, done.again, done.missing_keys) == (None, (), ())
    assert len(Store(place / "store").all(Bundle)) == 2
    assert all(Store(place / "store").damage(each) is None for each in Store(place / "store").all(Bundle))
    assert [each.state for each in Requests(open_ledger(place / "requests.db")).requests()] == ["queued"]
    assert (place / "keys" / "suppression.key").stat().st_mode & 0o777 == 0o600
    assert open_suppressions(place, open_ledger(place / "requests.db")).entries().user_cut_offs([USER])
    with closing(sqlite3.connect(place / "mlflow.db")) as database:
        uris = [row[0] for row in database.execute("SELECT artifact_uri FROM runs ORDER BY run_uuid")]
        sources = [row[0] for row in database.execute("SELECT source FROM model_versions")]
    # What begins with the same letters and is another folder stays.
    assert uris == [f"{place.as_uri()}/mlartifacts/a", f"{workspace.as_uri()}-other/mlartifacts/b"]
    assert sources == [f"{place}/mlartifacts/a"]
    assert not list(tmp_path.glob(".new*"))


def test_keys_that_were_left_out_are_named(workspace: Path, tmp_path: Path) -> None:
    back_up(workspace, tmp_path / "copy", with_keys=False)
    assert restore(tmp_path / "copy", tmp_path / "new", since=None, nothing_since=True).missing_keys == ("suppression.key",)


@pytest.mark.parametrize("change", ["byte", "cut", "missing", "more", "manifest", "no manifest", "outside"])
def test_what_was_changed_is_refused_before_anything_is_written(workspace: Path, tmp_path: Path, change: str) -> None:
    manifest = back_up(workspace, tmp_path / "copy", with_keys=False)
    copy = tmp_path / "copy"
    path, told = copy / "workspace" / "requests.db", copy / "manifest.json"
    data = bytearray(path.read_bytes())
    if change == "byte":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif change == "cut":
        path.write_bytes(data[:-1])
    elif change == "missing":
        path.unlink()
    elif change == "more":
        (copy / "workspace" / "more").touch()
    elif change == "manifest":
        told.write_text(told.read_text().replace('"whole":true', '"whole":false'))
    elif change == "no manifest":
        told.unlink()
    else:
        outside = manifest.model_copy(update={"files": {**manifest.files, "../outside": next(iter(manifest.files.values()))}})
        told.write_text(outside.to_text())
    with pytest.raises(DamagedBackup):
        restore(copy, tmp_path / "new", since=None, nothing_since=True)
    assert not (tmp_path / "new").exists()


def test_somebody_must_say_whether_anybody_was_forgotten_since(workspace: Path, tmp_path: Path) -> None:
    back_up(workspace, tmp_path / "copy", with_keys=False)
    with pytest.raises(BadSetting, match="knows nobody who was forgotten after"):
        restore(tmp_path / "copy", tmp_path / "new", since=None, nothing_since=False)
    with pytest.raises(BadSetting):
        restore(tmp_path / "copy", tmp_path / "new", since=workspace, nothing_since=True)


def test_the_newer_ledger_is_taken_and_an_older_one_is_refused(workspace: Path, tmp_path: Path) -> None:
    back_up(workspace, tmp_path / "first", with_keys=True, only_deletions=True)
    Requests(open_ledger(workspace / "requests.db")).add(NewRequest(user_id="else-8"), "command")
    back_up(workspace, tmp_path / "copy", with_keys=True)
    Requests(open_ledger(workspace / "requests.db")).add(NewRequest(user_id="other-9"), "command")
    restore(tmp_path / "copy", tmp_path / "new", since=workspace, nothing_since=False)
    assert len(Requests(open_ledger(tmp_path / "new" / "requests.db")).requests()) == 3
    with pytest.raises(DamagedLedger, match="seen before"):
        restore(tmp_path / "copy", tmp_path / "older", since=tmp_path / "first", nothing_since=False)
    assert not (tmp_path / "older").exists()
    assert not list(tmp_path.glob(".older*"))


def test_a_chain_of_receipts_that_is_another_is_refused(workspace: Path, tmp_path: Path) -> None:
    link = workspace / "receipts" / "000001-receipt-0123456789abcdef.json"
    link.parent.mkdir()
    link.write_text("one")
    back_up(workspace, tmp_path / "copy", with_keys=True)
    link.write_text("another")
    with pytest.raises(NotRestorable, match="receipt 1 of the back-up"):
        restore(tmp_path / "copy", tmp_path / "new", since=workspace, nothing_since=False)


def test_deletions_alone_are_no_workspace(workspace: Path, tmp_path: Path) -> None:
    manifest = back_up(workspace, tmp_path / "copy", with_keys=True, only_deletions=True)
    assert set(manifest.files) == {"requests.db", "keys/suppression.key"}
    with pytest.raises(NotRestorable, match="deletions alone"):
        restore(tmp_path / "copy", tmp_path / "new", since=None, nothing_since=True)


def test_nothing_is_copied_beside_a_night_or_over_something(workspace: Path, tmp_path: Path) -> None:
    with FileLock(workspace / "nightly.lock"), pytest.raises(WorkspaceBusy):
        back_up(workspace, tmp_path / "copy", with_keys=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(BadInput, match="not empty"):
        back_up(workspace, tmp_path / "full", with_keys=False)
    with pytest.raises(BadInput, match="cannot lie in the workspace"):
        back_up(workspace, workspace / "copy", with_keys=False)
    back_up(workspace, tmp_path / "copy", with_keys=False)
    with pytest.raises(BadInput, match="not empty"):
        restore(tmp_path / "copy", tmp_path / "full", since=None, nothing_since=True)


def test_a_run_that_begins_meanwhile_spoils_the_copy(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_and_run(*given: Any) -> Any:
        (workspace / "runs").mkdir()
        Journal.start(workspace / "runs", "train", {}).change(state="completed")
        return copy_all(*given)

    copy_all = copying.copy_all
    monkeypatch.setattr(copying, "copy_all", copy_and_run)
    with pytest.raises(WorkspaceBusy, match="has begun"):
        back_up(workspace, tmp_path / "copy", with_keys=False)
    assert not (tmp_path / "copy").exists()


def test_nothing_is_copied_beside_a_run(workspace: Path, tmp_path: Path) -> None:
    (workspace / "runs").mkdir()
    Journal.start(workspace / "runs", "train", {})
    with pytest.raises(WorkspaceBusy, match="1 runs still work"):
        back_up(workspace, tmp_path / "copy", with_keys=False)


def test_a_disk_that_refuses_leaves_nothing(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2UREC_FAILPOINT", "backup.file:0:raise")
    with pytest.raises(StorageFailed):
        back_up(workspace, tmp_path / "copy", with_keys=False)
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


@pytest.mark.slow
def test_a_killed_command_leaves_no_half_copy_and_the_next_one_makes_it_whole(workspace: Path, tmp_path: Path) -> None:
    for point in ("backup.file:2", "backup.rename:1"):
        killed = command("backup", tmp_path / "copy", "--workspace", workspace, E2UREC_FAILPOINT=f"{point}:kill")
        assert killed.code == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "copy").exists()
    made = command("backup", tmp_path / "copy", "--with-keys", "--json", "--workspace", workspace)
    assert json.loads(made.stdout)["files"] > 3
    for point in ("restore.copied:1", "restore.prepared:1", "backup.rename:1"):
        words = ("restore", tmp_path / "copy", "--no-deletions-since", "--workspace", tmp_path / "new")
        assert command(*words, E2UREC_FAILPOINT=f"{point}:kill").code == -signal.SIGKILL
        assert not (tmp_path / "new").exists()
    assert command(*words).code == 0
    assert not list(tmp_path.glob(".*"))


def test_the_number_of_a_lost_version_is_kept(workspace: Path) -> None:
    for _ in range(2):
        keep_number(workspace / "mlflow.db", "e2urec", 5)
        keep_number(workspace / "mlflow.db", "e2urec", 3)
    with closing(sqlite3.connect(workspace / "mlflow.db")) as database:
        rows = list(database.execute("SELECT version, current_stage FROM model_versions ORDER BY version"))
    assert rows == [(1, "None"), (5, "Deleted_Internal")]
