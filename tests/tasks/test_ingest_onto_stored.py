"""Appending through the store: parts that are linked are not hashed again, and still every byte of them is vouched for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2urec_core import manifests, stages
from e2urec_core.artifacts import Interactions as Stored
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.places import PARTS, part_files
from e2urec_core.datasets.interactions import Interactions
from e2urec_core.errors import DamagedArtifact, UnknownRun
from e2urec_core.store import Store
from flows.rooms import earlier_interactions, settled
from flows.runs import Run, build_run

if TYPE_CHECKING:
    from tasks._room import Room

NOW = 978300000
FIRST = f"anna,mug,5,{NOW}\nben,cup,2,{NOW + 10}\n"
SECOND = f"carl,mug,3,{NOW + 20}\n"


def dataset(place: Path, rows: str) -> Interactions:
    path = place / f"rows-{len(list(place.glob('rows-*')))}.csv"
    path.write_text(f"user_id,item_id,rating,timestamp\n{rows}")
    return Interactions(path=str(path))


def publish(keeping: Store, source: Interactions, earlier: Stored | None = None, rule: IngestRule | None = None) -> Stored:
    """As the stage does it."""
    with keeping.workplace() as place:
        folder = keeping.open(earlier, apart_from=PARTS) if earlier else None
        rows = stages.ingest(source, rule or IngestRule(), folder, place)
        return keeping.publish(Stored, place, parents=(earlier.digest,) if earlier else (), rows=rows, made_by="ingest")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that the store has read to hash them."""
    noted: list[str] = []
    told = manifests.file_digest
    monkeypatch.setattr(manifests, "file_digest", lambda path: noted.append(path.name) or told(path))
    return noted


def flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[40] ^= 1
    path.write_bytes(whole)


def test_linked_parts_are_not_hashed_again_and_their_digests_are_those_of_the_bytes(tmp_path: Path, hashed: list[str]) -> None:
    keeping = Store(tmp_path / "store")
    first = publish(keeping, dataset(tmp_path, FIRST))
    assert "part-00000.parquet" in hashed
    hashed.clear()
    second = publish(keeping, dataset(tmp_path, SECOND), first)
    # Tables of items and users are hashed on the way in and on the way out; of the parts only the new one is, on the way out.
    assert [name for name in hashed if name.startswith("part-")] == ["part-00001.parquet"]
    hashed.clear()
    folders = [keeping.open(handle) for handle in (first, second)]
    assert sorted(name for name in hashed if name.startswith("part-")) == ["part-00000.parquet"] * 2 + ["part-00001.parquet"]
    assert os.path.samefile(*(part_files(folder)[0] for folder in folders))
    assert second.parents == (first.digest,)


def test_a_flipped_bit_in_a_linked_part_is_noticed_in_every_artifact_that_links_it(tmp_path: Path) -> None:
    keeping = Store(tmp_path / "store")
    first = publish(keeping, dataset(tmp_path, FIRST))
    second = publish(keeping, dataset(tmp_path, SECOND), first)
    flip(part_files(keeping.open(first))[0])
    for handle in (first, second):
        with pytest.raises(DamagedArtifact, match=r"the bytes of `interactions/part-00000\.parquet` have changed"):
            keeping.open(handle)


def test_a_part_that_was_damaged_before_it_was_linked_is_not_vouched_for(tmp_path: Path) -> None:
    keeping = Store(tmp_path / "store")
    first = publish(keeping, dataset(tmp_path, FIRST))
    flip(part_files(keeping.open(first))[0])
    second = publish(keeping, dataset(tmp_path, SECOND), first)
    with pytest.raises(DamagedArtifact):
        keeping.open(second)


def test_a_damaged_part_is_refused_where_the_gate_must_read_it(tmp_path: Path) -> None:
    keeping = Store(tmp_path / "store")
    first = publish(keeping, dataset(tmp_path, FIRST))
    flip(part_files(keeping.open(first))[0])
    (tmp_path / "gone.csv").write_text(f"user_id,deleted_at\nanna,{NOW}\n")
    for rows, rule in ((FIRST, IngestRule()), (SECOND, IngestRule(deleted=tmp_path / "gone.csv"))):
        with pytest.raises(DamagedArtifact) as refused:
            publish(keeping, dataset(tmp_path, rows), first, rule)
        assert refused.value.fact == (
            "the stored interactions to append to are damaged: the bytes of `interactions/part-00000.parquet` have changed"
        )


def test_a_parent_whose_files_are_gone_vouches_for_nothing_and_stops_nobody(tmp_path: Path) -> None:
    keeping = Store(tmp_path / "store")
    first = publish(keeping, dataset(tmp_path, FIRST))
    with keeping.workplace() as place:
        stages.ingest(dataset(tmp_path, SECOND), IngestRule(), keeping.open(first, apart_from=PARTS), place)
        (keeping.root / "objects" / "Interactions" / first.digest / "users.parquet").unlink()
        second = keeping.publish(Stored, place, parents=(first.digest,), rows=3, made_by="ingest")
    assert len(part_files(keeping.open(second))) == 2


def run_of(path: Path, onto: str, dataset: str = "interactions") -> Run:
    flags = {"dataset.path": str(path), "ingest.onto": onto} if dataset == "interactions" else {"ingest.onto": onto}
    return build_run({"dataset": dataset, "backbone": "tiny-t5", "method": "e2urec"}, None, flags)


def test_latest_is_the_newest_of_the_same_dataset_and_a_prefix_is_the_digest_it_begins(tmp_path: Path) -> None:
    keeping = Store(tmp_path / "store")
    first = publish(keeping, dataset(tmp_path, FIRST))
    second = publish(keeping, dataset(tmp_path, SECOND), first)
    for handle, when in ((first, 1_000), (second, 2_000)):
        os.utime(keeping.open(handle) / manifests.MANIFEST, (when, when))
    assert settled(run_of(tmp_path, "latest"), tmp_path).ingest.onto == second.digest
    assert settled(run_of(tmp_path, first.short), tmp_path).ingest.onto == first.digest
    assert settled(run_of(tmp_path, ""), tmp_path).ingest.onto == ""
    with pytest.raises(UnknownRun) as refused:
        settled(run_of(tmp_path, "latest", "sample"), tmp_path)
    assert refused.value.fact == "0 of 2 stored interactions are `latest`"
    assert refused.value.facts == {"stored, newest first": f"{second.short}, {first.short}"}


def test_damage_to_older_interactions_does_not_keep_latest_from_the_newest(tmp_path: Path) -> None:
    keeping = Store(tmp_path / "store")
    old, new = (publish(keeping, dataset(tmp_path, rows)) for rows in (FIRST, SECOND))
    for handle, when in ((old, 1_000), (new, 2_000)):
        os.utime(keeping.open(handle) / manifests.MANIFEST, (when, when))
    flip(keeping.open(old) / "users.parquet")
    assert settled(run_of(tmp_path, "latest"), tmp_path).ingest.onto == new.digest


def test_an_unknown_or_ambiguous_prefix_is_refused_with_what_is_stored(tmp_path: Path) -> None:
    with pytest.raises(UnknownRun) as refused:
        settled(run_of(tmp_path, "0" * 12), tmp_path)
    assert refused.value.fact == f"0 of 0 stored interactions are `{'0' * 12}`"
    assert refused.value.facts == {"stored, newest first": "none"}
    keeping = Store(tmp_path / "store")
    first = publish(keeping, dataset(tmp_path, FIRST))
    twin = first.digest[:20] + "0" * 44
    (keeping.root / "objects" / "Interactions" / twin).mkdir()
    (keeping.root / "objects" / "Interactions" / twin / manifests.MANIFEST).write_text('{"parents": []}')
    with pytest.raises(UnknownRun) as refused:
        settled(run_of(tmp_path, first.short), tmp_path)
    assert refused.value.fact == f"2 of 2 stored interactions are `{first.short}`"
    assert "--ingest.onto" in refused.value.hint


def test_a_run_whose_earlier_interactions_are_gone_does_not_start_anew(room: Room, tmp_path: Path) -> None:
    first = publish(room.store, dataset(tmp_path, FIRST))
    assert earlier_interactions(room, run_of(tmp_path, "")) is None
    found = earlier_interactions(room, run_of(tmp_path, first.digest))
    assert found is not None
    assert room.store.open(found) == room.store.open(first)
    gone = earlier_interactions(room, run_of(tmp_path, "0" * 64))
    assert gone is not None
    with pytest.raises(DamagedArtifact, match="its folder is missing"):
        room.store.open(gone)


@pytest.mark.slow
def test_the_stage_appends_and_takes_an_equal_append_from_the_store(prefect: None, room: Room, tmp_path: Path) -> None:
    from tasks.ingest import ingest

    source, later = dataset(tmp_path, FIRST), dataset(tmp_path, SECOND)
    first = ingest(source, IngestRule())
    second = ingest(later, IngestRule(onto=first.digest), first)
    assert (second.rows, second.parents) == (3, (first.digest,))
    assert ingest(later, IngestRule(onto=first.digest), first) == second
    assert room.journal.record.stages["ingest"].state == "cached"


def test_what_is_left_after_deletions_passes_the_gate_even_where_a_whole_part_went(tmp_path: Path) -> None:
    from tasks import _gate

    keeping = Store(tmp_path / "store")
    first = publish(keeping, dataset(tmp_path, FIRST))
    deleted = tmp_path / "deleted.csv"
    deleted.write_text(f"user_id,deleted_at\nanna,{NOW + 15}\nben,{NOW + 15}\n")
    second = keeping.open(publish(keeping, dataset(tmp_path, SECOND), first, IngestRule(deleted=deleted)))
    assert [part.name for part in part_files(second)] == ["part-00000.parquet"]
    _gate.check(Stored, second, {})
