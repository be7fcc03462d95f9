"""Whom a release without a request of its own has forgotten: those who are not among its rows, whoever names them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ledgers import champion, digest, promoted

from e2urec_core.artifacts import ForgetRequest, Interactions
from e2urec_core.data import places
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.places import part_files
from e2urec_core.datasets.sample import Sample
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.history import Ledger
from e2urec_core.ledger.releases import Releases
from e2urec_core.ledger.request_records import NewRequest
from e2urec_core.ledger.requests import Requests
from e2urec_core.ledger.restoring import bring_back
from e2urec_core.ledger.subjects import Subjects
from e2urec_core.pseudonyms import VARIABLE
from e2urec_core.scanning.scan import Scan
from e2urec_core.scanning.targets import Targets
from e2urec_core.store import Store
from tasks._desk import Desk
from tasks.release import whom_it_forgot

Stored = tuple[Store, Ledger, Interactions]


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    """A workspace's store and ledger, and the ratings of twenty users in it."""
    monkeypatch.delenv(VARIABLE, raising=False)
    store, ledger = Store(tmp_path / "store"), open_ledger(tmp_path / "requests.db")
    with store.workplace() as place:
        ingest(Sample(num_users=20, ratings_per_user=8), IngestRule(), place)
        rows = store.publish(Interactions, place, parents=(), rows=1, made_by="ingest")
    return store, ledger, rows


def test_a_request_that_may_be_taken_back_is_forgotten_only_by_rows_without_its_user_or_items(tmp_path: Path, stored: Stored) -> None:
    store, ledger, rows = stored
    nothing: Any = None
    desk, requests, early = Desk(tmp_path, store, ledger, nothing, "test"), Requests(ledger), datetime(2026, 1, 1, tzinfo=UTC)
    import pyarrow.parquet as pq

    met = pq.read_table(part_files(store.open(rows))[0]).slice(0, 1).to_pylist()[0]
    asked = [("u3", ()), ("gone", ()), (met["user_id"], (met["item_id"], "nothing")), (met["user_id"], ("nothing",)), ("u4", ())]
    made = requests.add_all([NewRequest(user_id=user, items=items, requested_at=early) for user, items in asked], "command")
    there, gone, there_singly, gone_singly, purged = (each.subject for each in made)
    champion(Releases(ledger), 1, forgotten=[int(each.subject, 16) for each in made])
    epoch = requests.claim("night", num_users=10_000).epoch
    promoted(requests, *(each.id for each in made), epoch=epoch)
    requests.erase_identity([made[-1].id], epoch=epoch)
    # Once a user is purged, only their data could tell, and it is gone.
    assert whom_it_forgot(desk, None, None, rows).keys() == {gone, gone_singly, purged}
    assert whom_it_forgot(desk, None, digest(1), rows).keys() == {there, gone, there_singly, gone_singly, purged}


def test_those_whom_a_run_forgot_are_found_until_they_are_purged(tmp_path: Path, stored: Stored) -> None:
    store, ledger, rows = stored
    with store.workplace() as place:
        write_request(place, users=["u3", "was-here-7"])
        request = store.publish(ForgetRequest, place, parents=(), rows=1, made_by="forget")
    nothing: Any = None
    desk = Desk(tmp_path, store, ledger, nothing, "test")
    asked = whom_it_forgot(desk, request, None, rows)
    champion(Releases(ledger), 1, forgotten=[int(subject, 16) for subject in asked])
    subjects = Subjects(ledger, desk.pseudonyms())
    (gone,) = subjects.of(["was-here-7"], [])
    # A model trained on these rows knows the one who is still among them.
    assert (len(asked), whom_it_forgot(desk, None, None, rows).keys()) == (2, {gone})
    assert find_in_ledger(tmp_path) == ("requests.db table subject_marks: pseudonym, 2 times",)
    subjects.erase(["was-here-7"], [])
    assert find_in_ledger(tmp_path) == ()
    assert whom_it_forgot(desk, None, None, rows).keys() == {gone}


def test_rows_that_a_restore_brought_back_say_nothing_of_whom_it_owes(tmp_path: Path, stored: Stored) -> None:
    store, ledger, rows = stored
    nothing: Any = None
    desk, requests, releases = Desk(tmp_path, store, ledger, nothing, "test"), Requests(ledger), Releases(ledger)
    champion(releases, 1)
    # Forgotten, and all that told of whom that was is purged.
    champion(releases, 2, forgotten=[7])
    assert len(whom_it_forgot(desk, None, None, rows)) == 1
    again = requests.add(NewRequest(user_id="u3"), "restore")
    taken = datetime(2026, 1, 1, tzinfo=UTC)
    bring_back(ledger, digest(1), backup=digest(9), taken_at=taken, again={again.id: ()}, held=[digest(1)], run="restore")
    assert whom_it_forgot(desk, None, digest(1), rows) == {}


def find_in_ledger(workspace: Path) -> tuple[str, ...]:
    """Where the workspace's ledger names the user who is not among the rows."""
    scan = Scan(workspace, Targets.of("was-here-7"))
    scan.run()
    return tuple(place for place in scan.result().places if place.startswith("requests.db"))


def write_request(place: Path, users: list[str]) -> None:
    """A request's file of users."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"user_id": users}), place / places.USERS)
    pq.write_table(pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}), place / places.NAMED)
