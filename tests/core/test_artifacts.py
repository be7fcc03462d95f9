"""The store: all or nothing, every byte accounted for, and the same handle in every process."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from e2urec_core.artifacts import KINDS, Artifact, Examples, Interactions, Original, Unlearned, canonical_json, digest_of
from e2urec_core.disk import write_whole
from e2urec_core.errors import DamagedArtifact, StorageFailed
from e2urec_core.stage_record import StageRecord
from e2urec_core.store import MANIFEST, Store

REPOSITORY = Path(__file__).parents[2]
PARENT = "a" * 64


def publish(store: Store, text: str = "rows", kind: type[Artifact] = Interactions, **facts: object) -> Artifact:
    with store.workplace() as place:
        (place / "rows.parquet").write_bytes(bytes(range(64)) + text.encode())
        (place / "tables").mkdir()
        (place / "tables" / "items.json").write_text('{"titles": 3}')
        return store.publish(kind, place, **{"parents": (PARENT,), "rows": 3, "made_by": "ingest", **facts})  # type: ignore[arg-type]


def published(store: Store) -> list[Path]:
    """Every file and folder under objects/."""
    return sorted(path for path in (store.root / "objects").rglob("*") if path.is_file())


def in_another_process(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_was_published_is_opened_byte_by_byte(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = publish(store)
    folder = store.open(handle)
    assert (folder / "rows.parquet").read_bytes() == bytes(range(64)) + b"rows"
    assert (folder / "tables" / "items.json").read_text() == '{"titles": 3}'
    assert (type(handle), handle.parents, handle.rows, handle.made_by) == (Interactions, (PARENT,), 3, "ingest")


def test_an_exception_while_writing_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ZeroDivisionError), store.workplace() as place:
        (place / "half.parquet").write_bytes(b"half")
        raise ZeroDivisionError
    assert published(store) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_workplace_is_empty_again_after_publishing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    publish(store)
    assert list((tmp_path / "tmp").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from e2urec_core import artifacts, store as keeping
moment, root = sys.argv[1], Path(sys.argv[2])
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
store = keeping.Store(root)
with store.workplace() as place:
    (place / "first.bin").write_bytes(b"first")
    if moment == "between files": die()
    (place / "second.bin").write_bytes(b"second")
    if moment == "before the rename": os.rename = die
    if moment == "before the manifest": keeping.digest_of = die
    store.publish(artifacts.Interactions, place, parents=(), rows=1, made_by="ingest")
"""


@pytest.mark.parametrize("moment", ["between files", "before the manifest", "before the rename"])
def test_a_process_killed_while_writing_leaves_nothing_and_the_next_store_sweeps_what_lay_about(tmp_path: Path, moment: str) -> None:
    ended = in_another_process(KILLED, moment, str(tmp_path))
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(list((tmp_path / "tmp").iterdir())) == 1, "the kill must have come while there was half-written work"
    store = Store(tmp_path)
    assert published(store) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_second_store_leaves_the_work_of_a_living_process_alone(tmp_path: Path) -> None:
    with Store(tmp_path).workplace() as place:
        (place / "half.parquet").write_bytes(b"half")
        Store(tmp_path)
        assert (place / "half.parquet").read_bytes() == b"half"


def every_file(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_one_flipped_bit_in_any_byte_of_any_data_file_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = publish(store)
    files = [path for path in every_file(store.open(handle)) if path.name != MANIFEST]
    assert len(files) == 2
    assert unnoticed_flips(store, handle, files) == []


def test_one_flipped_bit_in_any_byte_of_the_manifest_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = publish(store)
    assert unnoticed_flips(store, handle, [store.open(handle) / MANIFEST]) == []


def unnoticed_flips(store: Store, handle: Artifact, files: list[Path]) -> list[str]:
    """Places at which a flipped bit was not answered by a `DamagedArtifact`: one bit of every byte is tried, another bit in turn."""
    unnoticed = []
    for path in files:
        whole = path.read_bytes()
        for place in range(len(whole)):
            broken = bytearray(whole)
            broken[place] ^= 1 << (place % 8)
            path.write_bytes(broken)
            try:
                store.open(handle)
                unnoticed.append(f"{path.name} byte {place}: {whole[max(0, place - 12) : place + 12]!r}")
            except DamagedArtifact:
                pass
        path.write_bytes(whole)
    store.open(handle)
    return unnoticed


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (lambda folder: (folder / "rows.parquet").write_bytes((folder / "rows.parquet").read_bytes()[:-1]), "rows.parquet"),
        (lambda folder: (folder / "rows.parquet").write_bytes(b""), "rows.parquet"),
        (lambda folder: (folder / "tables" / "items.json").unlink(), "tables/items.json"),
        (lambda folder: (folder / MANIFEST).unlink(), "missing"),
        (lambda folder: (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:20]), MANIFEST),
        (lambda folder: (folder / MANIFEST).write_text("[]"), MANIFEST),
        (shutil.rmtree, "missing"),
    ],
    ids=["truncated", "emptied", "file missing", "manifest missing", "manifest truncated", "manifest of another shape", "folder missing"],
)
def test_a_damaged_artifact_is_refused_by_name_with_the_stage_to_run_again(
    tmp_path: Path, harm: Callable[[Path], object], word: str
) -> None:
    store = Store(tmp_path)
    handle = publish(store)
    harm(store.open(handle))
    with pytest.raises(DamagedArtifact) as refused:
        store.open(handle)
    assert word in refused.value.fact
    assert handle.short in refused.value.fact
    assert "`ingest`" in refused.value.hint


def test_a_damaged_copy_is_replaced_when_the_same_content_is_published_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = publish(store)
    (store.open(handle) / "rows.parquet").write_bytes(b"broken")
    assert publish(store) == handle
    assert (store.open(handle) / "rows.parquet").read_bytes().endswith(b"rows")


def test_equal_content_published_twice_is_one_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = publish(store), publish(store)
    assert first == second
    assert len(list((tmp_path / "objects" / "Interactions").iterdir())) == 1
    assert list((tmp_path / "tmp").iterdir()) == []


def test_equal_content_published_by_another_process_at_the_same_moment_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, rename = Store(tmp_path), os.rename

    def rename_after_the_other(place: Path, target: Path) -> None:
        shutil.copytree(place, target)
        rename(place, target)

    monkeypatch.setattr(os, "rename", rename_after_the_other)
    handle = publish(store)
    assert store.open(handle).name == handle.digest


@pytest.mark.parametrize(
    ("text", "kind", "facts"),
    [("other rows", Interactions, {}), ("rows", Examples, {}), ("rows", Interactions, {"parents": ("b" * 64,)})],
    ids=["content", "kind", "parents"],
)
def test_another_content_kind_or_lineage_is_another_digest(
    tmp_path: Path, text: str, kind: type[Artifact], facts: dict[str, object]
) -> None:
    store = Store(tmp_path)
    assert publish(store, text, kind, **facts).digest != publish(store).digest


def test_the_order_in_which_parents_are_named_does_not_matter(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert publish(store, parents=("a" * 64, "b" * 64)) == publish(store, parents=("b" * 64, "a" * 64))


PUBLISHED_ELSEWHERE = """
import sys
from pathlib import Path
from e2urec_core.artifacts import Original, digest_of
from e2urec_core.store import Store
store = Store(Path(sys.argv[1]))
with store.workplace() as place:
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "config.json").write_text("{}")
    handle = store.publish(Original, place, parents=("b" * 64, "a" * 64), rows=5, made_by="train-original")
print(handle.digest, digest_of(handle.canonical()), handle.model_dump_json())
"""


def test_a_handle_hashes_equal_in_two_processes(tmp_path: Path) -> None:
    told = [in_another_process(PUBLISHED_ELSEWHERE, str(tmp_path / seed), PYTHONHASHSEED=seed) for seed in ("1", "2")]
    assert [ended.returncode for ended in told] == [0, 0], told[0].stderr
    assert told[0].stdout == told[1].stdout
    assert len(told[0].stdout.split()[0]) == 64


def test_a_handle_is_frozen_refuses_what_is_no_digest_and_comes_back_from_json(tmp_path: Path) -> None:
    handle = publish(Store(tmp_path))
    with pytest.raises(ValidationError, match="frozen"):
        handle.rows = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="digest"):
        Interactions(digest="../../etc")
    assert Interactions.model_validate_json(handle.model_dump_json()) == handle
    assert handle != Examples(**handle.model_dump())


def test_every_kind_of_artifact_is_known_by_its_name() -> None:
    assert all(kind.kind == name == kind.__name__ for name, kind in KINDS.items())
    assert {"Interactions", "Examples", "ForgetRequest", "Original", "Augmented", "Retrained", "TeacherLogits", "Unlearned"} <= set(KINDS)


def record(handle: Artifact) -> StageRecord:
    return StageRecord(stage="ingest", kind=handle.kind, handle=handle.canonical(), seconds=1.5)


def test_a_key_gives_back_what_it_was_given(tmp_path: Path) -> None:
    store = Store(tmp_path)
    noted = record(publish(store))
    store.remember("key", noted)
    assert store.recall("key") == noted
    assert Store(tmp_path).recall("key") == noted
    assert store.recall("another key") is None


def test_a_key_whose_artifact_is_damaged_is_a_miss_though_its_record_can_still_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = publish(store)
    store.remember("key", record(handle))
    (store.open(handle) / "tables" / "items.json").write_text('{"titles": 4}')
    assert store.recall("key") is None
    assert store.record("key") == record(handle)


def test_a_key_whose_file_was_damaged_anywhere_is_a_miss_or_tells_the_truth(tmp_path: Path) -> None:
    store = Store(tmp_path)
    noted = record(publish(store))
    store.remember("key", noted)
    file = tmp_path / "keys" / "key.json"
    whole = file.read_bytes()
    failures = []
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        file.write_bytes(broken)
        try:
            found = store.recall("key")
        except Exception as error:
            failures.append(f"byte {place} of {len(whole)}: {type(error).__name__}")
            continue
        if found is not None and found != noted:
            failures.append(f"byte {place}: a false record was believed")
    assert failures == []


def test_a_key_whose_file_was_cut_short_is_a_miss(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember("key", record(publish(store)))
    file = tmp_path / "keys" / "key.json"
    file.write_bytes(file.read_bytes()[:-10])
    assert store.recall("key") is None


def test_a_full_disk_is_told_as_such_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="No space left on device") as refused:
        publish(store)
    assert "--workspace" in refused.value.hint
    assert published(store) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def as_nobody(work: Callable[[], str]) -> str:
    """What `work` gives in a child process without any rights; root could write everywhere."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(write, work().encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__} came instead: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return told


@pytest.mark.parametrize("inside", ["", "new/workspace"], ids=["the folder itself", "a folder to be made in it"])
def test_a_folder_that_cannot_be_written_is_refused_with_its_name(inside: str) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o555)

        def open_store() -> str:
            try:
                Store(folder / inside)
            except StorageFailed as error:
                return str(error)
            return "opened"

        told = as_nobody(open_store)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
    assert told.startswith("StorageFailed: the workspace cannot be written: Permission denied")
    assert str(folder / inside) in told
    assert "hint: " in told


def test_a_workspace_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StorageFailed):
        Store(tmp_path / "store")


def test_the_stores_folders_are_closed_to_other_users(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    handle = publish(store)
    for folder in (tmp_path / "store" / "objects", tmp_path / "store" / "keys", tmp_path / "store" / "tmp", store.open(handle)):
        assert folder.stat().st_mode & 0o077 == 0, folder.name


def test_canonical_json_does_not_depend_on_the_order_of_keys_and_refuses_what_is_no_number() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    assert digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1}) != digest_of({"a": 2, "b": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"loss": float("nan")})


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "record.json"
    write_whole(file, "old")

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "refused")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="refused"):
            write_whole(file, "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    write_whole(file, "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_handle_of_another_kind_does_not_open_the_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = publish(store, kind=Original)
    with pytest.raises(DamagedArtifact, match="missing"):
        store.open(Unlearned(digest=handle.digest))


def test_the_manifest_lists_every_file_and_nothing_of_the_users(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = json.loads((store.open(publish(store)) / MANIFEST).read_bytes())
    assert sorted(manifest["files"]) == ["rows.parquet", "tables/items.json"]
    # bytes(range(64)) and "rows": 64 + 4
    assert manifest["files"]["rows.parquet"]["bytes"] == 68


def copied(store: Store, handle: Artifact) -> Path:
    """A copy of a published folder in the store's own place for half-written work."""
    place = store.root / "tmp" / f"{os.getpid()}-copy"
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(store.open(handle), place))


def test_a_copy_from_elsewhere_takes_the_place_of_what_is_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = publish(store)
    copy = copied(store, handle)
    shutil.rmtree(store.open(handle))
    adopted = store.adopt(Interactions, handle.digest, copy)
    assert (adopted.digest, adopted.parents) == (handle.digest, handle.parents)
    assert (store.open(adopted) / "rows.parquet").read_bytes() == bytes(range(64)) + b"rows"


def test_a_copy_that_is_not_what_was_published_is_refused_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = publish(store)

    def changed(copy: Path) -> None:
        (copy / "tables" / "items.json").write_text('{"titles": 4}')

    def planted(copy: Path) -> None:
        (copy / "tables" / "more.py").write_text("import os")

    def linked(copy: Path) -> None:
        (copy / "elsewhere").symlink_to(tmp_path)

    faults = {changed: "the bytes of `tables/items.json`", planted: "`tables/more.py` was not published", linked: "`elsewhere` was not"}
    for fault, said in faults.items():
        copy = copied(store, handle)
        fault(copy)
        with pytest.raises(DamagedArtifact, match=said):
            store.adopt(Interactions, handle.digest, copy)
    with pytest.raises(DamagedArtifact, match=r"its manifest\.json was altered"):
        store.adopt(Interactions, "b" * 64, copied(store, handle))
