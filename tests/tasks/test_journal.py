"""The journal of a run: unique names, whole files, and refusals that name what is there."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from e2urec_core.artifacts import Original
from e2urec_core.errors import UnknownRun
from tasks._journal import Journal, RunRecord, StageEntry, all_runs, place_of


def start_many(folder: Path) -> list[str]:
    return [Journal.start(folder, "toy", {}).record.run for _ in range(10)]


def test_runs_that_start_in_the_same_second_have_names_of_their_own(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        names = [name for some in pool.map(start_many, [tmp_path] * 3) for name in some]
    assert len(set(names)) == 30
    assert {record.run for record in all_runs(tmp_path)} == set(names)


def test_a_name_tells_the_words_and_the_second(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, "sample-tiny-t5-e2urec", {"seed": 3})
    day, clock = journal.record.run.removeprefix("sample-tiny-t5-e2urec-").split("-")[:2]
    started = journal.record.started_at
    assert f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}+00:00" == started
    assert (journal.record.state, journal.record.settings) == ("running", {"seed": 3})


def test_what_was_noted_is_read_again(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, "toy", {})
    handle = Original(digest="a" * 64, rows=3, made_by="train-original")
    journal.note("train-original", StageEntry(state="completed", key="k", kind="Original", handle=handle.canonical(), seconds=1.5))
    journal.change(state="completed")
    again = Journal.open(tmp_path, journal.record.run)
    assert again.record == journal.record
    entry = again.entry("train-original")
    assert entry is not None
    assert entry.artifact() == handle
    assert again.entry("unlearn") is None


def test_a_later_note_of_a_stage_replaces_the_earlier_and_keeps_the_order(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, "toy", {})
    for label, state in (("ingest", "running"), ("split", "running"), ("ingest", "failed")):
        journal.note(label, StageEntry.model_validate({"state": state}))
    assert [(label, entry.state) for label, entry in Journal.open(tmp_path, journal.record.run).record.stages.items()] == [
        ("ingest", "failed"),
        ("split", "running"),
    ]


def test_a_change_leaves_one_file_and_no_half(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, "toy", {})
    for number in range(5):
        journal.change(tracking_run=str(number))
    assert [path.name for path in tmp_path.iterdir()] == [f"{journal.record.run}.json"]


@pytest.mark.parametrize("name", ["nothing", "../runs/nothing", "../secret", "/etc/passwd", "."])
def test_an_unknown_run_is_refused_with_the_newest_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.json").write_text("{}")
    known = [Journal.start(tmp_path / "runs", "toy", {}).record.run for _ in range(4)]
    with pytest.raises(UnknownRun) as caught:
        Journal.open(tmp_path / "runs", name)
    assert caught.value.fact == f"this workspace holds no run `{name}` among its 4"
    assert caught.value.facts == {"newest runs": ", ".join(known[-3:])}


def test_a_run_of_an_empty_workspace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownRun) as caught:
        Journal.open(tmp_path / "nowhere", "toy")
    assert caught.value.facts == {"newest runs": "none"}


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"run": "toy", "started_at": "x", "state": "odd", "settings": {}}'])
def test_a_record_that_cannot_be_read_is_refused_when_named_and_left_out_of_the_list(tmp_path: Path, text: str) -> None:
    kept = Journal.start(tmp_path, "toy", {}).record.run
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(UnknownRun, match="cannot be read"):
        Journal.open(tmp_path, "broken")
    assert [record.run for record in all_runs(tmp_path)] == [kept]


def test_runs_are_listed_oldest_first_whatever_they_are_called(tmp_path: Path) -> None:
    for run, started_at in (("b", "2026-01-02T00:00:00+00:00"), ("a", "2026-01-03T00:00:00+00:00"), ("c", "2026-01-01T00:00:00+00:00")):
        (tmp_path / f"{run}.json").write_text(RunRecord(run=run, started_at=started_at, state="completed", settings={}).model_dump_json())
    assert [record.run for record in all_runs(tmp_path)] == ["c", "b", "a"]


def test_a_record_on_disk_is_plain_json(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, "toy", {"method": {"suppression": 2.0}})
    assert json.loads(journal.path.read_text())["settings"] == {"method": {"suppression": 2.0}}


def test_the_workspace_is_the_one_named_then_the_variable_then_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("E2UREC_WORKSPACE", raising=False)
    assert place_of(None) == tmp_path / "workspace"
    monkeypatch.setenv("E2UREC_WORKSPACE", "elsewhere")
    assert place_of(None) == tmp_path / "elsewhere"
    assert place_of("named") == tmp_path / "named"
