"""What a workspace needs, as its ledger and its runs say it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from e2urec_core.artifacts import Artifact, Bundle, Interactions, Original, Retrained, Unlearned
from e2urec_core.failpoints import VARIABLE
from e2urec_core.ledger.request_records import NewRequest
from e2urec_core.ledger.requests import Requests
from e2urec_core.stage_record import StageRecord
from tasks import collect
from tasks._desk import Desk
from tasks._journal import Journal, StageEntry
from tasks.collect import Collection

NOW_S = 2_000_000_000.0
DAY_S = 86_400


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Of a workspace without a champion."""
    return Desk.of(tmp_path / "shop", "gc")


def publish(desk: Desk, kind: type[Artifact], name: str, *parents: Artifact, days: float = 100) -> Artifact:
    """An artifact that was published so many days ago."""
    with desk.store.workplace() as place:
        (place / "file").write_text(name)
        handle = desk.store.publish(kind, place, parents=tuple(each.digest for each in parents), rows=1, made_by="test")
    manifest = desk.store.root / "objects" / handle.kind / handle.digest / "manifest.json"
    os.utime(manifest, (NOW_S - days * DAY_S,) * 2)
    return handle


def run(desk: Desk, *made: Artifact, days: float = 100, **values: object) -> Journal:
    """A run that made them so many days ago."""
    (desk.workspace / "runs").mkdir(exist_ok=True)
    journal = Journal.start(desk.workspace / "runs", "test", {})
    for number, each in enumerate(made):
        journal.note(f"stage-{number}", StageEntry(state="completed", kind=each.kind, handle=each.canonical()))
    journal.change(**({"state": "completed"} | values))
    os.utime(journal.path, (NOW_S - days * DAY_S,) * 2)
    return journal


def plan(desk: Desk, *, keep_days: float = 14, budget: int | None = None) -> Collection:
    return collect.plan(desk, keep_days=keep_days, budget=budget, now_s=NOW_S)


def why(found: Collection) -> dict[str, str]:
    """Why each artifact stays, by digest."""
    return {fate.stored.handle.digest: fate.why for fate in found.fates if not fate.goes}


def test_what_is_old_and_of_no_use_goes(desk: Desk) -> None:
    publish(desk, Original, "old")
    young = publish(desk, Original, "young", days=1)
    assert why(plan(desk)) == {young.digest: collect.YOUNG}


def test_a_young_run_keeps_what_it_took_from_the_store(desk: Desk) -> None:
    old = publish(desk, Original, "old")
    run(desk, old, days=1)
    assert why(plan(desk)) == {old.digest: collect.YOUNG}
    assert why(plan(desk, keep_days=0.5)) == {}


def test_a_run_of_another_machine_that_has_not_ended_keeps_what_it_made(desk: Desk) -> None:
    old = publish(desk, Original, "old")
    run(desk, old, state="running", host="elsewhere")
    assert why(plan(desk)) == {old.digest: collect.RUNNING}


def test_an_open_request_keeps_what_its_night_has_built(desk: Desk) -> None:
    built, tried, rejected = (publish(desk, kind, kind.kind) for kind in (Unlearned, Retrained, Bundle))
    night = run(desk, built, tried)
    requests = Requests(desk.ledger)
    requests.add(NewRequest(user_id="anna"), "command")
    state = desk.store.root / "checkpoints" / "key" / "state"
    state.parent.mkdir(parents=True)
    state.touch()
    for path in (state, state.parent):
        os.utime(path, (NOW_S - 100 * DAY_S,) * 2)
    assert (why(plan(desk)), len(plan(desk).checkpoints)) == ({}, 1)
    claim = requests.claim(night.record.run, num_users=9)
    requests.advance([claim.requests[0].id], "built", epoch=claim.epoch, model=built.digest)
    found = plan(desk, keep_days=0)
    assert why(found) == {built.digest: collect.OPEN, tried.digest: collect.OPEN}
    assert found.checkpoints == ()
    assert rejected.digest not in why(found)


def test_rows_that_files_were_appended_to_stay_with_their_earlier_parts(desk: Desk) -> None:
    first = publish(desk, Interactions, "first", days=300)
    second = publish(desk, Interactions, "second", first, days=200)
    alone = publish(desk, Interactions, "alone", days=150)
    newest = publish(desk, Interactions, "newest", days=100)
    assert set(why(plan(desk))) == {first.digest, second.digest, newest.digest}
    assert alone.digest not in why(plan(desk))


def test_a_budget_that_needs_exceed_is_told(desk: Desk) -> None:
    publish(desk, Original, "young", days=1)
    taken = sum(size for fate in plan(desk).fates for size in fate.stored.files.values())
    assert plan(desk, budget=taken).over == 0
    assert plan(desk, budget=taken - 3).over == 3


def test_pages_of_dead_runs_go_and_those_of_others_stay(desk: Desk) -> None:
    runs = {name: run(desk, state=state, settings=settings).record.run for name, state, settings in PAGES}
    for each in runs.values():
        page = desk.workspace / "reports" / each / "report.html"
        page.parent.mkdir(parents=True)
        page.touch()
        for path in (page, page.parent):
            os.utime(path, (NOW_S - 100 * DAY_S,) * 2)
    assert [path.name for path in plan(desk).pages] == [runs["dead"]]


PAGES = (("dead", "failed", {}), ("well", "completed", {}), ("night", "failed", {"night": {}}))


def test_a_removal_that_was_cut_off_goes_on_and_keys_go_with_their_artifacts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    old = [publish(desk, Original, name) for name in "abc"]
    stays = publish(desk, Retrained, "young", days=1)
    for handle in (*old, stays):
        desk.store.remember(handle.digest, StageRecord(stage="test", kind=handle.kind, handle=handle.canonical(), seconds=1.0))
    strange = desk.store.root / "objects" / "Original" / "half"
    strange.mkdir()
    os.utime(strange, (NOW_S - 100 * DAY_S,) * 2)
    found = plan(desk)
    monkeypatch.setenv(VARIABLE, "erase.renamed:0:raise")
    with pytest.raises(Exception, match="cannot be written"):
        collect.carry_out(desk.store, found)
    monkeypatch.delenv(VARIABLE)
    # What was to go first is gone whole; what remembers it is still there, and gives nothing.
    (gone,) = {each.digest for each in old} - {each.digest for each in desk.store.all(Original)}
    assert desk.store.record(gone) is not None
    assert desk.store.recall(gone) is None
    collect.carry_out(desk.store, plan(desk))
    assert desk.store.all(Original) == []
    assert not strange.exists()
    assert [path.stem for path in (desk.store.root / "keys").iterdir()] == [stays.digest]
    assert plan(desk).num_bytes == 0


def test_the_clock_of_the_command_is_that_of_the_files(desk: Desk) -> None:
    handle = publish(desk, Original, "now")
    os.utime(desk.store.root / "objects" / "Original" / handle.digest / "manifest.json")
    assert why(collect.plan(desk, keep_days=1, budget=None, now_s=time.time())) == {handle.digest: collect.YOUNG}
