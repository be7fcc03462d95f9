"""Finding what was made from an artifact: how a request comes by the outputs that earlier ones have left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from e2urec_core.artifacts import Artifact, Original, OriginalLogits, TeacherLogits
from e2urec_core.store import MANIFEST, Store

ORIGINAL, OTHER = "a" * 64, "b" * 64


def publish(store: Store, text: str, *parents: str, kind: type[Artifact] = OriginalLogits, age_s: int = 0) -> Artifact:
    with store.workplace() as place:
        (place / "original.parquet").write_text(text)
        handle = store.publish(kind, place, parents=parents, rows=1, made_by="cache-original")
    manifest = store.open(handle) / MANIFEST
    then = manifest.stat().st_mtime - age_s
    os.utime(manifest, (then, then))
    return handle


def digests(found: list[OriginalLogits]) -> list[str]:
    return [handle.digest for handle in found]


def test_only_what_was_made_from_the_parent_is_found_newest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, new = publish(store, "old", ORIGINAL, "c" * 64, age_s=100), publish(store, "new", ORIGINAL, "d" * 64)
    middle = publish(store, "middle", ORIGINAL, age_s=50)
    publish(store, "another original's", OTHER)
    publish(store, "another kind", ORIGINAL, kind=TeacherLogits)
    found = store.made_from(OriginalLogits, Original(digest=ORIGINAL))
    assert digests(found) == [new.digest, middle.digest, old.digest]
    assert {type(handle) for handle in found} == {OriginalLogits}


def test_what_is_found_can_be_opened(tmp_path: Path) -> None:
    store = Store(tmp_path)
    publish(store, "rows", ORIGINAL, OTHER)
    (handle,) = store.made_from(OriginalLogits, Original(digest=ORIGINAL))
    assert (store.open(handle) / "original.parquet").read_text() == "rows"


def test_an_empty_store_has_made_nothing(tmp_path: Path) -> None:
    assert Store(tmp_path).made_from(OriginalLogits, Original(digest=ORIGINAL)) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"parents": 3}'], ids=["empty", "a list", "nothing", "a number"])
def test_a_damaged_manifest_is_passed_over(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    whole, damaged = publish(store, "whole", ORIGINAL), publish(store, "damaged", ORIGINAL)
    (store.open(damaged) / MANIFEST).write_text(content)
    assert digests(store.made_from(OriginalLogits, Original(digest=ORIGINAL))) == [whole.digest]
