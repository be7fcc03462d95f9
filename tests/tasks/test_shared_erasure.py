"""Erasing from an object store: everything that was made from somebody goes, here and there, and a search of both finds nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from shared_stores import BUCKET, UNSET, Shelf, shelf

from e2urec_core import disk, stages
from e2urec_core.artifacts import Artifact, Examples, Interactions, Scores
from e2urec_core.data.ingest import IngestRule
from e2urec_core.datasets.sample import Sample
from e2urec_core.errors import BadInput, WorkspaceBusy
from e2urec_core.remote import PATIENCE
from e2urec_core.scanning.scan import Scan
from e2urec_core.scanning.shelves import shelves_of
from e2urec_core.scanning.targets import Targets
from e2urec_core.stage_record import StageRecord
from e2urec_core.store import Store
from flows.backing_up import back_up
from tasks import collect
from tasks._desk import Desk
from tasks._stores import VARIABLE, store_of, store_to_read
from tasks.claims import Asked
from tasks.erase import Eraser


@pytest.fixture(scope="module")
def bucket() -> Iterator[Shelf]:
    with shelf() as found:
        yield found


@pytest.fixture
def workspace(bucket: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose store is in the bucket."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**bucket.environment, PATIENCE: "0", VARIABLE: bucket.address(tmp_path.name)}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


def publish(store: Store, kind: type[Artifact], text: str, parents: tuple[str, ...]) -> Artifact:
    with store.workplace() as place:
        (place / "made.txt").write_text(text)
        return store.publish(kind, place, parents=parents, rows=1, made_by="test")


def found(store: Store, workspace: Path, user: str) -> list[str]:
    scan = Scan(workspace, Targets.of(user), shelves_of(store, workspace))
    scan.run()
    return list(scan.result().places)


def test_what_was_made_from_somebody_goes_from_the_object_store_and_the_rest_stays(bucket: Shelf, workspace: Path) -> None:
    import pyarrow.parquet as pq

    store, folder = store_of(workspace), workspace.parent.name
    with store.workplace() as place:
        rows = stages.ingest(Sample(num_users=20, ratings_per_user=8), IngestRule(), None, place)
        data = store.publish(Interactions, place, parents=(), rows=rows, made_by="ingest")
        user = str(pq.read_table(next((store.open(data)).rglob("part-*.parquet")), columns=["user_id"])["user_id"][0])
    derived = publish(store, Examples, f"user {user}", (data.digest,))
    other = publish(store, Scores, "of nobody", ())
    for handle in (data, derived, other):
        store.remember(handle.digest, StageRecord(stage="test", kind=handle.kind, handle=handle.canonical(), seconds=0.0))
    bucket.put(f"{folder}/objects/Scores/{'5' * 64}/half.txt", f"user {user}".encode())
    assert any(place.startswith("store objects/") for place in found(store_to_read(workspace), workspace, user))

    record: Any = SimpleNamespace(id="request-1")
    eraser = Eraser(workspace, store, frozenset(), "run", frozenset({"run"}))
    eraser.refuse_company()
    doomed = eraser.plan([Asked(record, user)], None)
    assert doomed.everything.keys() == {data.digest, derived.digest}
    num_files = len([key for key in bucket.keys(folder) if key.startswith("objects/") and other.digest not in key])
    assert eraser.counts(doomed)["store_files"] == num_files
    eraser.remove([*doomed.everything.values(), *doomed.strange])
    eraser.tidy(doomed)
    left = bucket.keys(folder)
    assert {key.split("/")[2] for key in left if key.startswith("objects/")} == {other.digest}
    assert [key for key in left if key.startswith("keys/")] == [f"keys/{other.digest}.json"]
    assert found(store_to_read(workspace), workspace, user) == []


def test_an_erasure_waits_while_another_machine_writes_into_a_shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "shared"))
    store = store_of(tmp_path / "workspace")
    assert store.checkpoints == tmp_path / "workspace" / "store" / "checkpoints"
    eraser = Eraser(tmp_path / "workspace", store, frozenset(), "run", frozenset({"run"}))
    eraser.refuse_company()
    (tmp_path / "shared" / "tmp" / disk.own_name().replace(disk.machine(), "0" * 12)).mkdir()
    with pytest.raises(WorkspaceBusy, match="1 pieces of half-written work"):
        eraser.refuse_company()


def test_what_nobody_needs_goes_from_the_object_store_with_its_bytes_counted(bucket: Shelf, workspace: Path) -> None:
    desk = Desk.of(workspace, "gc")
    old = publish(desk.store, Scores, "nobody needs it", ())
    rows = publish(desk.store, Interactions, "the newest rows", ())
    desk.store.remember("a" * 64, StageRecord(stage="score", kind=old.kind, handle=old.canonical(), seconds=1.0))
    below, later_s = workspace.parent.name, time.time() + 100 * collect.DAY_S
    young = collect.plan(desk, keep_days=14, budget=None, now_s=time.time())
    assert [fate.goes for fate in young.fates] == [False, False]
    found = collect.plan(desk, keep_days=14, budget=None, now_s=later_s)
    assert {fate.stored.handle.digest: fate.goes for fate in found.fates} == {old.digest: True, rows.digest: False}
    listed = bucket.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{below}/objects/{old.kind}/{old.digest}/")["Contents"]
    assert found.num_bytes == sum(each["Size"] for each in listed) > 0
    collect.carry_out(desk.store, found)
    left = bucket.keys(below)
    assert not any(old.digest in name or name.startswith("keys/") for name in left)
    assert any(rows.digest in name for name in left)


def test_a_back_up_without_the_artifacts_is_refused(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the artifacts lie outside of the workspace") as refused:
        back_up(workspace, tmp_path / "copy", with_keys=False)
    assert refused.value.facts["they lie in"] == f"s3://{BUCKET}/{workspace.parent.name}"
    assert not (tmp_path / "copy").exists()
