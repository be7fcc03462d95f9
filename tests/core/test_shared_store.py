"""The store in an object store: whole or absent for everybody, verified on the way in, and gone everywhere once it is removed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_stores import BUCKET, Shelf, shelf_of_this_process

from e2urec_core import disk, object_versions
from e2urec_core.artifacts import Artifact, Examples, Interactions, Scores
from e2urec_core.deletion.removal import drop_keys, everything, folder_of, remove, strange_folders
from e2urec_core.errors import BadSetting, DamagedArtifact, StorageFailed
from e2urec_core.remote import PATIENCE, Remote
from e2urec_core.shared_store import SharedStore, SharedStoreToRead
from e2urec_core.stage_record import StageRecord

REPOSITORY = Path(__file__).parents[2]
FILES = ["manifest.json", "rows.parquet", "tables/items.json"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Shelf]:
    with shelf_of_this_process() as found:
        yield found


@pytest.fixture
def folder(request: pytest.FixtureRequest, bucket: Shelf) -> Iterator[str]:
    """A folder of the bucket that this test has for itself."""
    yield hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    bucket.way.mend()


class Machines:
    """Opens the store as several machines do, each with a cache of its own."""

    def __init__(self, place: Path, address: str) -> None:
        self.place, self.address = place, address

    def __call__(self, name: str) -> SharedStore:
        return SharedStore(self.place / name, Remote(self.address))


@pytest.fixture
def on(tmp_path: Path, bucket: Shelf, folder: str) -> Machines:
    return Machines(tmp_path, bucket.address(folder))


def publish(store: SharedStore, text: str = "rows", kind: type[Artifact] = Interactions, parents: tuple[str, ...] = ()) -> Artifact:
    with store.workplace() as place:
        (place / "rows.parquet").write_bytes(bytes(range(64)) + text.encode())
        (place / "tables").mkdir()
        (place / "tables" / "items.json").write_text('{"titles": 3}')
        return store.publish(kind, place, parents=parents, rows=3, made_by="ingest")


def record_of(handle: Artifact) -> StageRecord:
    return StageRecord(stage="ingest", kind=handle.kind, handle=handle.canonical(), seconds=1.0, parts={"code": "c" * 64})


def in_cache(store: SharedStore) -> list[str]:
    return sorted(path.name for path in (store.root / "objects").glob("*/*"))


def test_what_one_machine_published_is_opened_on_another_byte_by_byte(on: Machines, bucket: Shelf, folder: str) -> None:
    one = on("one")
    handle = publish(one)
    one.remember("k" * 64, record_of(handle))
    one.keep_code("d" * 64, {})
    other = on("other")
    assert in_cache(other) == []
    assert [each.digest for each in other.all(Interactions)] == [handle.digest]
    place = other.open(handle)
    assert place.is_relative_to(other.root)
    assert (place / "rows.parquet").read_bytes() == bytes(range(64)) + b"rows"
    assert (place / "tables" / "items.json").read_text() == '{"titles": 3}'
    assert other.record("k" * 64) == other.recall("k" * 64) == record_of(handle)
    assert list(other.records()) == ["k" * 64]
    assert bucket.keys(folder) == ["code/" + "d" * 64 + ".json", "keys/" + "k" * 64 + ".json", *_objects(handle)]


def _objects(handle: Artifact) -> list[str]:
    return [f"objects/{handle.kind}/{handle.digest}/{file}" for file in FILES]


def test_lineage_sees_what_other_machines_have_made(on: Machines) -> None:
    one, other = on("one"), on("other")
    parent = publish(one)
    child = publish(other, "child", Examples, (parent.digest,))
    assert one.made_from(Examples, parent) == [Examples(digest=child.digest, parents=(parent.digest,))]
    assert {each.digest for each in everything(one)} == {parent.digest, child.digest}


def test_the_same_content_of_two_machines_is_one_artifact_and_is_not_sent_twice(on: Machines, bucket: Shelf) -> None:
    first = publish(on("one"))
    bucket.way.seen.clear()
    assert publish(on("other")) == first
    assert not [call for call in bucket.way.seen if call.startswith(("PUT", "POST"))]


KILLED = """
import sys
from pathlib import Path
from e2urec_core.artifacts import Interactions
from e2urec_core.remote import Remote
from e2urec_core.shared_store import SharedStore
store = SharedStore(Path(sys.argv[1]), Remote(sys.argv[2]))
with store.workplace() as place:
    (place / "rows.parquet").write_bytes(bytes(range(64)) + b"rows")
    (place / "tables").mkdir()
    (place / "tables" / "items.json").write_text('{"titles": 3}')
    store.publish(Interactions, place, parents=(), rows=3, made_by="ingest")
"""


@pytest.mark.parametrize(
    ("point", "uploaded", "whole"),
    [
        ("publish.file:1", [], False),
        ("publish.file:2", ["rows.parquet"], False),
        ("publish.manifest:1", ["rows.parquet", "tables/items.json"], False),
        ("publish.uploaded:1", FILES, True),
    ],
)
def test_a_kill_while_publishing_leaves_it_absent_or_whole_and_the_next_publishing_completes_it(
    on: Machines, bucket: Shelf, folder: str, point: str, uploaded: list[str], whole: bool
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, on.place / "one", on.address],
        cwd=REPOSITORY,
        env={**os.environ, "E2UREC_FAILPOINT": f"{point}:kill"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert [key.split("/", maxsplit=3)[3] for key in bucket.keys(folder)] == uploaded
    assert in_cache(on("one")) == []
    assert len(on("other").all(Interactions)) == int(whole)
    handle = publish(on("one"))
    for machine in ("one", "other"):
        assert on(machine).damage(handle) is None
    assert bucket.keys(folder) == _objects(handle)


def spoil(bucket: Shelf, key: str) -> None:
    content = bytearray(bucket.get(key))
    content[len(content) // 2] ^= 4
    bucket.put(key, bytes(content))


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_object_is_refused_and_made_again(on: Machines, bucket: Shelf, folder: str, file: str) -> None:
    handle = publish(on("one"))
    on("one").remember("k" * 64, record_of(handle))
    spoil(bucket, f"{folder}/objects/{handle.kind}/{handle.digest}/{file}")
    other = on("other")
    with pytest.raises(DamagedArtifact, match=file):
        other.open(handle)
    assert other.recall("k" * 64) is None
    assert in_cache(other) == []
    publish(other)
    third = on("third")
    assert third.recall("k" * 64) is not None
    assert third.damage(handle) is None


def test_a_damaged_copy_in_a_cache_is_downloaded_again(on: Machines) -> None:
    store = on("one")
    handle = publish(store)
    (folder_of(store, handle) / "rows.parquet").write_bytes(b"rot")
    assert (store.open(handle) / "rows.parquet").read_bytes() == bytes(range(64)) + b"rows"


def test_what_is_removed_on_one_machine_is_gone_everywhere(on: Machines, bucket: Shelf, folder: str) -> None:
    one, other = on("one"), on("other")
    handle, stays = publish(one), publish(one, "stays")
    one.remember("k" * 64, record_of(handle))
    other.open(handle)
    other.open(stays)
    remove(one, folder_of(one, handle))
    drop_keys(one)
    assert bucket.keys(folder) == _objects(stays)
    assert in_cache(one) == [stays.digest]
    assert in_cache(other) == sorted((handle.digest, stays.digest)), "the other machine has not looked yet"
    # Whoever has the store open finds it gone when asking for it, others when opening the store.
    assert other.damage(handle) == "its folder is missing"
    assert in_cache(on("other")) == [stays.digest]
    assert on("other").recall("k" * 64) is None


def test_a_cache_that_is_opened_again_drops_what_was_removed_and_brings_nothing_back(on: Machines, bucket: Shelf, folder: str) -> None:
    handle = publish(on("one"))
    other = on("other")
    other.open(handle)
    one = on("one")
    remove(one, folder_of(one, handle))
    assert in_cache(on("other")) == []
    assert bucket.keys(folder) == []


def test_removal_takes_the_manifest_first_and_goes_on_where_it_was_cut_off(
    on: Machines, bucket: Shelf, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = on("one")
    handle = publish(store)
    monkeypatch.setenv("E2UREC_FAILPOINT", "erase.manifest:0:raise")
    with pytest.raises(OSError, match="failpoint"):
        remove(store, folder_of(store, handle))
    monkeypatch.delenv("E2UREC_FAILPOINT")
    assert bucket.keys(folder) == _objects(handle)[1:]
    again = on("one")
    assert again.all(Interactions) == []
    assert strange_folders(again) == [folder_of(again, handle)]
    assert again.num_files(folder_of(again, handle)) == 2
    remove(again, folder_of(again, handle))
    assert bucket.keys(folder) == []


def test_every_version_of_what_is_removed_goes(on: Machines, bucket: Shelf, folder: str) -> None:
    versioning = {"Bucket": BUCKET, "VersioningConfiguration": {"Status": "Enabled"}}
    bucket.client.put_bucket_versioning(**versioning)
    try:
        store = on("one")
        handle = publish(store)
        store.remember("k" * 64, record_of(handle))
        store.remember("k" * 64, record_of(handle))
        bucket.client.delete_object(Bucket=BUCKET, Key=f"{folder}/{_objects(handle)[1]}")
        begun = bucket.client.create_multipart_upload(Bucket=BUCKET, Key=f"{folder}/{_objects(handle)[1]}")
        assert begun["UploadId"]
        assert bucket.num_versions(folder) == 3 + 1 + 2
        remove(store, folder_of(store, handle))
        drop_keys(store)
        assert bucket.num_versions(folder) == 0
        assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=BUCKET, Prefix=folder)
    finally:
        bucket.client.put_bucket_versioning(**{**versioning, "VersioningConfiguration": {"Status": "Suspended"}})


def test_nothing_is_removed_where_versions_may_stay_unless_somebody_says_that_there_are_none(
    on: Machines, bucket: Shelf, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = on("one")
    handle = publish(store)
    monkeypatch.setattr(object_versions, "find_spec", lambda name: None)
    with pytest.raises(BadSetting, match="nothing can be erased") as refused:
        store.refuse_to_leave_versions()
    assert "e2urec[s3]" in refused.value.hint
    with pytest.raises(BadSetting, match="nothing can be erased"):
        remove(store, folder_of(store, handle))
    assert store.damage(handle) is None
    monkeypatch.setenv(object_versions.VARIABLE, object_versions.NO_VERSIONS)
    remove(store, folder_of(store, handle))
    # Arrow's clients leave an empty object for the folder above.
    assert not [key for key in bucket.keys(folder) if handle.digest in key]
    assert in_cache(store) == []


def test_what_was_half_uploaded_more_than_a_day_ago_is_swept(
    on: Machines, bucket: Shelf, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = f"{folder}/objects/Scores/{'5' * 64}/scores.parquet"
    bucket.put(half, b"half")
    whole = publish(on("one"), kind=Scores)
    assert half.removeprefix(f"{folder}/") in bucket.keys(folder)
    monkeypatch.setattr("e2urec_core.shared_store.ABANDONED_S", 0.0)
    assert on("one").damage(whole) is None
    assert bucket.keys(folder) == _objects(whole)


def test_what_was_made_from_something_that_is_gone_is_not_published(on: Machines, bucket: Shelf, folder: str) -> None:
    one, other = on("one"), on("other")
    parent = publish(one)
    remove(other, folder_of(other, parent))
    with pytest.raises(StorageFailed, match="1 of 1 artifacts that it was made from were removed"):
        publish(one, "child", Examples, (parent.digest,))
    assert bucket.keys(folder) == []


def test_an_upload_that_somebody_removes_meanwhile_is_made_again(on: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = on("one"), on("other")
    send, removed = Remote.send, list[str]()

    def disturbed(remote: Remote, path: Path, name: str) -> None:
        if path.name == "manifest.json" and not removed:
            removed.extend(str(folder) for folder in strange_folders(other))
            for folder in strange_folders(other):
                remove(other, folder)
        send(remote, path, name)

    monkeypatch.setattr(Remote, "send", disturbed)
    handle = publish(one)
    assert len(removed) == 1
    assert on("third").damage(handle) is None


def test_calls_that_fail_once_are_made_again(on: Machines, bucket: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "30")
    for times in (1, 4):
        # Arrow's own client repeats a call three times.
        bucket.way.spoil("rows.parquet", times)
        handle = publish(on("one"), f"spoiled {times}")
        assert on(f"other-{times}").damage(handle) is None


def test_a_store_that_does_not_answer_ends_in_one_sentence_and_nothing_is_published(on: Machines, bucket: Shelf) -> None:
    store = on("one")
    bucket.way.spoil("rows.parquet", 50)
    with pytest.raises(StorageFailed, match="the store does not answer") as failed:
        publish(store)
    assert on.address in str(failed.value)
    assert "spoiled" not in str(failed.value)
    assert "hush" not in str(failed.value)
    bucket.way.mend()
    assert list((store.root / "tmp").iterdir()) == []
    assert in_cache(store) == []
    assert on("other").all(Interactions) == []
    assert on("other").damage(publish(store)) is None


def test_a_store_to_read_changes_nothing_and_sees_damage_by_manifest_and_sizes(on: Machines, bucket: Shelf, folder: str) -> None:
    handle = publish(on("one"))
    bucket.way.seen.clear()
    store = SharedStoreToRead(Remote(on.address))
    assert store.damage(handle) is None
    assert (store.open(handle) / "rows.parquet").exists()
    bucket.put(f"{folder}/{_objects(handle)[1]}", b"short")
    assert store.damage(handle) == "`rows.parquet` is missing or has changed"
    assert {call.split(" ")[0] for call in bucket.way.seen} <= {"GET", "HEAD"}


@pytest.mark.parametrize("address", ["s3://someone:hush@shelf/place", "s3:///place", "hdfs://rack/place"])
def test_addresses_that_are_none_are_refused(address: str, bucket: Shelf, tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="the address of the store is refused") as refused:
        SharedStore(tmp_path, Remote(address))
    assert "hush" not in str(refused.value)


def test_a_bucket_that_is_not_there_is_said_at_once(bucket: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "600")
    with pytest.raises(StorageFailed, match="there is no such bucket"):
        publish(SharedStore(tmp_path, Remote("s3://no-such-shelf/place")))


def test_work_of_another_machine_in_a_shared_folder_is_swept_a_day_after_its_last_change(tmp_path: Path) -> None:
    from e2urec_core.store import Store

    store = Store(tmp_path)
    elsewhere = tmp_path / "tmp" / disk.own_name().replace(disk.machine(), "0" * 12)
    (elsewhere / "tables").mkdir(parents=True)
    (elsewhere / "tables" / "half.parquet").write_bytes(b"half")
    now = elsewhere.stat().st_mtime
    for path in (elsewhere, elsewhere / "tables"):
        os.utime(path, (now - 3 * disk.ABANDONED_S,) * 2)
    Store(tmp_path)
    assert elsewhere.exists(), "a file in it is new"
    os.utime(elsewhere / "tables" / "half.parquet", (now - disk.ABANDONED_S - 60,) * 2)
    Store(tmp_path)
    assert not elsewhere.exists()
    shutil.rmtree(store.root)


def test_names_of_half_written_work_tell_process_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    process, machine, rest = disk.own_name().split("-")
    assert (int(process), machine, len(rest)) == (os.getpid(), disk.machine(), 32)
    assert not disk.is_of_others(Path(disk.own_name()))
    assert disk.is_of_others(Path(disk.own_name().replace(machine, "0" * 12)))
    monkeypatch.setattr("platform.node", lambda: "another")
    disk.machine.cache_clear()
    try:
        assert disk.machine() != machine
    finally:
        monkeypatch.undo()
        disk.machine.cache_clear()
