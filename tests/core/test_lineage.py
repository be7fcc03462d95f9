"""What was made from whom: what cannot show that it is clean goes, and what a store removes is gone whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2urec_core.artifacts import Artifact, Bundle, Examples, Interactions, Original, Scores
from e2urec_core.deletion.lineage import made_from
from e2urec_core.deletion.removal import drop_keys, drop_unfinished, everything, folder_of, remove, strange_folders
from e2urec_core.stage_record import StageRecord
from e2urec_core.store import Store


def of(kind: type[Artifact], name: str, *parents: str) -> Artifact:
    """A handle whose digest is a name, filled up."""
    return kind(digest=name.ljust(64, "0"), parents=tuple(parent.ljust(64, "0") for parent in parents))


ROWS, EXAMPLES, MODEL, BUNDLE = of(Interactions, "a"), of(Examples, "b", "a"), of(Original, "c", "b"), of(Bundle, "d", "c", "a")
CLEAN, OTHER = of(Interactions, "e"), of(Scores, "f", "e")


def test_everything_that_was_made_from_dirty_rows_goes_and_what_was_not_stays() -> None:
    gone = made_from([BUNDLE, ROWS, CLEAN, MODEL, OTHER, EXAMPLES], {ROWS.digest}, set())
    assert gone == [BUNDLE, ROWS, MODEL, EXAMPLES]


def test_what_is_kept_stays_and_so_does_what_was_made_from_it_alone() -> None:
    score = of(Scores, "9", "d")
    assert made_from([ROWS, EXAMPLES, MODEL, BUNDLE, score], {ROWS.digest}, {BUNDLE.digest}) == [ROWS, EXAMPLES, MODEL]


def test_what_cannot_show_its_ancestors_goes() -> None:
    assert made_from([MODEL, CLEAN, OTHER], set(), set()) == [MODEL]


@given(st.lists(st.lists(st.integers(0, 30), max_size=3), max_size=25), st.sets(st.integers(0, 24)), st.sets(st.integers(0, 24)))
def test_nothing_that_stays_has_a_dirty_or_unknown_ancestor(parents: list[list[int]], dirty: set[int], kept: set[int]) -> None:
    name = "{:02x}".format
    # Each is made from earlier ones; numbers beyond the list are of artifacts that are gone.
    made = [of(Scores, name(at), *(name(each if each < at else each + 100) for each in them)) for at, them in enumerate(parents)]
    dirty, kept = ({each for each in chosen if each < len(made)} for chosen in (dirty - kept, kept))
    gone = {each.digest for each in made_from(made, {made[at].digest for at in dirty}, {made[at].digest for at in kept})}
    stays = {each.digest for each in made} - gone
    spared = {made[at].digest for at in kept}
    assert spared <= stays
    for each in made:
        if each.digest in stays - spared:
            assert set(each.parents) <= stays
        elif each.digest in gone:
            assert each.digest in {made[at].digest for at in dirty} or not set(each.parents) <= stays


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def published(store: Store, text: str) -> Scores:
    """A stored artifact, remembered under a key."""
    with store.workplace() as place:
        (place / "file.txt").write_text(text)
        handle = store.publish(Scores, place, parents=(), rows=1, made_by="test")
    store.remember(handle.digest, StageRecord(stage="test", kind="Scores", handle=handle.canonical(), seconds=0.0))
    return handle


def test_a_removed_artifact_is_gone_with_its_key_and_others_stay(store: Store) -> None:
    one, other = published(store, "one"), published(store, "other")
    remove(store, folder_of(store, one))
    remove(store, folder_of(store, one))
    drop_keys(store)
    assert [each.digest for each in everything(store)] == [other.digest]
    assert [path.stem for path in (store.root / "keys").iterdir()] == [other.digest]
    assert not list((store.root / "tmp").iterdir())


def test_a_folder_without_a_manifest_is_strange_and_a_removal_that_was_cut_off_is_finished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, half = published(store, "whole"), published(store, "half")
    (folder_of(store, half) / "manifest.json").unlink()
    assert strange_folders(store) == [folder_of(store, half)]
    monkeypatch.setenv("E2UREC_FAILPOINT", "erase.renamed:0:raise")
    with pytest.raises(Exception, match="cannot be written"):
        remove(store, folder_of(store, half))
    monkeypatch.delenv("E2UREC_FAILPOINT")
    assert not folder_of(store, half).exists()
    drop_unfinished(store)
    assert not list((store.root / "tmp").iterdir())
    assert store.damage(whole) is None
