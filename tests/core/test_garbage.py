"""Which artifacts of a store may go, in which order, and what that frees."""

from __future__ import annotations

import os
from pathlib import Path

from e2urec_core.artifacts import Artifact, Bundle, Original
from e2urec_core.deletion.garbage import ANCESTOR, UNNEEDED, WITHIN_BUDGET, Stored, bytes_below, fates, measured, with_ancestors
from e2urec_core.store import Store


def stored(name: str, *parents: str, files: dict[int, int] | None = None) -> Stored:
    """An artifact of ten bytes, or of the files told by number and bytes."""
    made = Artifact(digest=name * 64, parents=tuple(parent * 64 for parent in parents))
    return Stored(made, 0.0, {(0, number): size for number, size in (files or {ord(name): 10}).items()})


def test_what_is_kept_keeps_everything_it_was_made_from() -> None:
    line = [stored("a"), stored("b", "a"), stored("c", "b"), stored("d", "a")]
    assert with_ancestors(line, {"c" * 64: "why"}) == {"c" * 64: "why", "b" * 64: ANCESTOR, "a" * 64: ANCESTOR}


def test_a_needed_artifact_that_is_gone_is_no_fault() -> None:
    assert with_ancestors([stored("a")], {"f" * 64: "why"}) == {"f" * 64: "why"}


def test_without_a_budget_all_goes_that_is_not_needed() -> None:
    told = fates([stored("a"), stored("b")], {"b" * 64: "why"})
    assert [(fate.goes, fate.why, fate.num_bytes) for fate in told] == [(True, UNNEEDED, 10), (False, "why", 10)]


def test_a_budget_takes_the_oldest_first_and_stops() -> None:
    # 40 bytes; the first is needed, so the second and the third bring it to 20.
    told = fates([stored(name) for name in "abcd"], {"a" * 64: "why"}, budget=20)
    assert [(fate.goes, fate.why) for fate in told] == [(False, "why"), (True, UNNEEDED), (True, UNNEEDED), (False, WITHIN_BUDGET)]


def test_a_shared_file_is_freed_with_the_last_that_holds_it() -> None:
    told = fates([stored("a", files={1: 100, 2: 1}), stored("b", files={1: 100, 3: 2})], {})
    assert [fate.num_bytes for fate in told] == [1, 102]
    # Below 101 bytes it comes only with both.
    told = fates([stored("a", files={1: 100, 2: 1}), stored("b", files={1: 100, 3: 2})], {}, budget=101)
    assert [fate.goes for fate in told] == [True, True]
    kept = fates([stored("a", files={1: 100, 2: 1}), stored("b", files={1: 100, 3: 2})], {"b" * 64: "why"})
    assert [fate.num_bytes for fate in kept] == [1, 102]


def test_artifacts_are_measured_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made = []
    for number, kind in enumerate((Bundle, Original)):
        with store.workplace() as place:
            (place / "file").write_text("x" * (number + 1))
            handle = store.publish(kind, place, parents=(), rows=1, made_by="test")
        manifest = store.root / "objects" / handle.kind / handle.digest / "manifest.json"
        os.utime(manifest, (2000 - number, 2000 - number))
        made.append(handle)
    found = measured(store, [*made, Bundle(digest="e" * 64)])
    assert [each.handle.digest for each in found] == [made[1].digest, made[0].digest]
    assert sum(found[1].files.values()) == 1 + manifest_bytes(store, made[0])


def manifest_bytes(store: Store, handle: Artifact) -> int:
    return (store.root / "objects" / handle.kind / handle.digest / "manifest.json").stat().st_size


def test_bytes_below_count_a_file_of_two_names_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(bytes(7))
    os.link(tmp_path / "one", tmp_path / "two")
    assert bytes_below([tmp_path]) == 7
    assert bytes_below([tmp_path / "none"]) == 0
