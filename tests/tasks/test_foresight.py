"""Stages in foresight: looked up, never run, and what is told of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2urec_core.artifacts import Augmented, Original, Unlearned, canonical_json, digest_of
from e2urec_core.settings import Training
from tasks import _keys
from tasks._foresight import ForeseenStore, Foresight, UnsavedJournal, newest, of_run
from tasks._room import CHAPTER, ROOM, Room, StoryEnds
from tasks._stage import Work, stage

if TYPE_CHECKING:
    from tasks._journal import RunRecord

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]
TITLES = ["train-original", "train-augmented", "unlearn"]


@stage("train-original", writes=Original, aside=("seconds",))
def first(work: Work, training: Training, seconds: float) -> int:
    """Write a number of passes."""
    (work.place / "line.txt").write_text(str(training.num_epochs))
    return 1


@stage("train-augmented", writes=Augmented)
def second(work: Work, original: Original, words: str) -> int:
    """Write some words, whatever the original is."""
    (work.place / "line.txt").write_text(words)
    return 1


@stage("unlearn", writes=Unlearned)
def third(work: Work, both: list[Original | Augmented], training: Training) -> int:
    """Write how many there are."""
    (work.place / "line.txt").write_text(str(len(both)))
    return 1


def tell(training: Training, words: str = "x") -> Unlearned:
    original = first(training, 1.0)
    return third([original, second(original, words)], Training())


@contextmanager
def foreseeing(room: Room, run: RunRecord | None = None) -> Iterator[Foresight]:
    """A room in foresight on the store of another."""
    store = ForeseenStore(room.store.root)
    journal = UnsavedJournal(room.journal.path, room.journal.record)
    foresight = Foresight(store, journal, of_run(store, run) if run else newest(store), {})
    token = ROOM.set(Room(room.workspace, store, journal, room.tracker, foresight=foresight))
    try:
        yield foresight
    finally:
        ROOM.reset(token)


def foreseen(room: Room, story: Callable[[], object], run: RunRecord | None = None) -> dict[str, tuple[str, list[str]]]:
    """State and reasons of each stage of a story by its title."""
    with foreseeing(room, run) as foresight:
        story()
    return {each.stage: (each.state, [reason.text for reason in each.reasons]) for each in foresight.stages}


def test_what_was_run_is_all_from_the_store_and_the_handles_are_the_same(room: Room) -> None:
    made = tell(Training())
    noted = room.journal.path.read_bytes()
    with foreseeing(room) as foresight:
        assert tell(Training()) == made
    assert [(each.stage, each.state, each.reasons) for each in foresight.stages] == [(title, "stored", ()) for title in TITLES]
    assert foresight.stages[-1].digest == made.digest
    assert room.journal.path.read_bytes() == noted


def test_in_a_store_that_is_not_there_everything_would_run_and_nothing_is_made(room: Room, tmp_path: Path) -> None:
    empty = Room(tmp_path / "elsewhere", ForeseenStore(tmp_path / "elsewhere" / "store"), room.journal, room.tracker)
    told = foreseen(empty, lambda: tell(Training()))
    assert {title: state for title, (state, _) in told.items()} == dict.fromkeys(TITLES, "run")
    assert told["train-original"][1] == ["no such stage was run in this workspace"]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("against_a_run", [True, False])
def test_a_changed_setting_is_named_and_what_is_made_from_it_depends(room: Room, against_a_run: bool) -> None:
    tell(Training())
    run = room.journal.record if against_a_run else None
    told = foreseen(room, lambda: tell(Training(num_epochs=9)), run)
    assert told == {
        "train-original": ("run", [f"setting `training.num_epochs`: {Training().num_epochs} -> 9"]),
        "train-augmented": ("depends", ["its input `original` would be made anew by `train-original`"]),
        "unlearn": (
            "depends",
            ["its input `both` would be made anew by `train-original`", "its input `both` may be made anew by `train-augmented`"],
        ),
    }


def test_what_is_stored_is_not_taken_for_the_stand_in_of_another_that_is_to_be_made(room: Room) -> None:
    tell(Training())

    def story() -> None:
        first(Training(num_epochs=9), 1.0)
        tell(Training())

    with foreseeing(room) as foresight:
        story()
    assert [each.state for each in foresight.stages] == ["run", "stored", "stored", "stored"]


def test_a_stage_under_another_title_is_held_against_the_newest_of_its_name(room: Room) -> None:
    first(Training(), 1.0)
    token = CHAPTER.set("seed 3")
    told = foreseen(room, lambda: first(Training(num_epochs=9), 1.0))
    CHAPTER.reset(token)
    assert told == {"train-original (seed 3)": ("run", [f"setting `training.num_epochs`: {Training().num_epochs} -> 9"])}


def test_a_stage_with_a_changed_setting_of_its_own_would_run_whatever_its_inputs_come_out_as(room: Room) -> None:
    tell(Training())
    state, reasons = foreseen(room, lambda: tell(Training(num_epochs=9), "y"))["train-augmented"]
    assert (state, reasons) == ("run", ["setting `words`: x -> y", "its input `original` would be made anew by `train-original`"])


def room_digest(room: Room) -> str:
    entry = room.journal.entry("train-original")
    assert entry
    assert entry.handle
    return str(entry.handle["digest"])


def test_a_damaged_artifact_is_named_with_its_damage_and_a_missing_one_too(room: Room) -> None:
    tell(Training())
    folder = room.store.open(Original(digest=room_digest(room)))
    (folder / "line.txt").write_text("!")
    state, (reason,) = foreseen(room, lambda: tell(Training()))["train-original"]
    assert (state, reason) == ("run", f"its artifact {room_digest(room)[:12]} is not whole: the bytes of `line.txt` have changed")
    folder.rename(folder.with_name("gone"))
    state, (reason,) = foreseen(room, lambda: tell(Training()))["train-original"]
    assert (state, reason.split(": ")[1]) == ("run", "its folder is missing")


def test_a_changed_file_of_the_code_is_named(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(Training())
    files = {**_keys.code_files("train-original"), "e2urec_core/training.py": "0" * 64}
    monkeypatch.setattr(_keys, "_code_files", lambda _with_report: files)
    monkeypatch.setattr(_keys, "_code_digest", lambda _with_report: digest_of(files))
    told = foreseen(room, lambda: tell(Training()))
    assert told["train-original"] == ("run", ["code `e2urec_core/training.py` has changed"])
    assert told["train-augmented"][1][0] == "code `e2urec_core/training.py` has changed"


def test_files_of_the_code_are_kept_once_and_believed_only_whole(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(Training())
    (kept,) = (room.store.root / "code").iterdir()
    assert kept.stem == digest_of(json.loads(kept.read_text()))
    kept.write_text(canonical_json({"e2urec_core/training.py": "1"}))
    monkeypatch.setattr(_keys, "_code_digest", lambda _with_report: "0" * 64)
    told = foreseen(room, lambda: tell(Training()))
    assert told["train-original"] == ("run", ["the code has changed; which files it had is not known"])


def test_a_key_is_the_digest_of_the_parts_that_its_record_keeps(room: Room) -> None:
    tell(Training())
    for path in (room.store.root / "keys").iterdir():
        record = room.store.record(path.stem)
        assert record
        assert digest_of(record.parts) == path.stem


def test_of_a_record_from_before_parts_were_kept_it_is_said_that_nothing_is_known(room: Room) -> None:
    tell(Training())
    entry = room.journal.entry("train-original")
    assert entry
    record = room.store.record(entry.key)
    assert record
    room.store.remember(entry.key, record.model_copy(update={"parts": {}}))
    told = foreseen(room, lambda: tell(Training(num_epochs=9)))
    assert told["train-original"] == ("run", ["what differs is not known: its record is older than the parts of keys"])
    assert foreseen(room, lambda: tell(Training()))["train-original"] == ("stored", [])


def test_what_a_run_never_came_to_or_failed_at_is_said(room: Room) -> None:
    first(Training(), 1.0)
    run = room.journal.record
    assert foreseen(room, lambda: tell(Training()), run)["train-augmented"] == ("run", ["the run has not come to it"])
    failed = run.stages["train-original"].model_copy(update={"state": "failed", "fault": "no memory", "handle": None})
    changed: Any = run.model_copy(update={"stages": {**run.stages, "train-augmented": failed}})
    assert foreseen(room, lambda: tell(Training()), changed)["train-augmented"] == ("run", ["it failed: no memory"])


def test_a_record_that_was_removed_is_told_as_that(room: Room) -> None:
    tell(Training())
    entry = room.journal.entry("train-original")
    assert entry
    (room.store.root / "keys" / f"{entry.key}.json").unlink()
    told = foreseen(room, lambda: tell(Training()), room.journal.record)
    assert told["train-original"] == ("run", ["the record of what it gave is not in the store any more"])
    assert told["train-augmented"][0] == "depends"


def test_what_would_have_to_be_made_first_cannot_be_opened_and_ends_the_story(room: Room) -> None:
    tell(Training())
    with foreseeing(room) as foresight:
        awaited = first(Training(num_epochs=9), 1.0)
        told = ROOM.get()
        assert told.awaits(awaited)
        with pytest.raises(StoryEnds, match=r"^train-original$"):
            told.store.open(awaited)
        foresight.ended("train-original", {"train-original": "Original", "unlearn": "Unlearned"})
    assert [(each.stage, each.state) for each in foresight.stages] == [("train-original", "run"), ("unlearn", "depends")]
    assert foresight.ends_at == "train-original"
