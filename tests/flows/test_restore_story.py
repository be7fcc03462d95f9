"""A workspace is backed up, forgets, is lost and is restored: whoever was forgotten since is forgotten again, and nights go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from e2urec_console import Console, Story
from nightly_shops import NightShop

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def shop(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NightShop]:
    """A shop with a first champion that knows everybody."""
    shop = NightShop.opened(story.workspace, tmp_path_factory.mktemp("restored") / "workspace")
    yield shop
    shop.console.close()


class Lost(NightShop):
    """The same shop in another folder, restored."""

    def __init__(self, console: Console, users: list[str]) -> None:
        self.console, self.place, self.users = console, console.workspace, users


@pytest.fixture(scope="module")
def told(shop: NightShop) -> Iterator[dict[str, Any]]:
    """Backed up; a user and an interaction forgotten in two nights; the ledger backed up; the workspace lost; restored."""
    import pyarrow.parquet as pq

    base = shop.place.parent
    whole, single = shop.users[0], shop.users[1]
    (stored,) = shop.artifacts("Interactions")
    pairs = [(row["user_id"], row["item_id"]) for part in stored.glob("interactions/*") for row in pq.read_table(part).to_pylist()]
    item = next(item for user, item in pairs if user == single)
    taken = shop.console("backup", base / "old", "--json")
    assert taken.code == 0, taken.stderr
    asked = [shop.ask(whole)]
    shop.night()
    asked.append(shop.ask(single, item))
    shop.night()
    assert {shop.states()[each] for each in asked} == {"certified"}
    receipts = shop.receipts()
    open_one = shop.ask(shop.users[2])
    later = shop.console("backup", base / "deletions", "--only-deletions", "--with-keys", "--json")
    assert later.code == 0, later.stderr
    shutil.rmtree(shop.place)
    # The champion's own files must be found in the new place, so the old one is gone, and the new one is another.
    place = base / "elsewhere"
    answer = shop.console("restore", base / "old", "--deletions-since", base / "deletions", "--json", workspace=place)
    assert answer.code == 0, answer.stderr
    lost = Lost(Console(place), shop.users)
    yield {
        "shop": lost, "base": base, "taken": taken.json(), "answer": answer.json(), "whole": whole, "pair": (single, item),
        "asked": asked, "open": open_one, "receipts": receipts,
    }  # fmt: skip
    lost.console.close()


def test_a_restore_asks_again_for_whoever_was_forgotten_since(told: dict[str, Any]) -> None:
    shop = told["shop"]
    assert told["answer"]["champion"] == 1
    assert len(told["answer"]["deletions_waiting"]) == 2
    assert told["answer"]["releases_lost"] == 2
    assert told["answer"]["keys_missing"] == []
    assert shop.champion() == 1
    states = shop.states()
    assert [states[each] for each in (*told["asked"], told["open"])] == ["certified", "certified", "queued"]
    assert {states[each] for each in told["answer"]["deletions_waiting"]} == {"queued"}
    assert shop.scan(told["whole"])
    listed = shop.console("models", "list")
    assert "2 restored deletions wait" in listed.stderr
    noted = next(event for event in reversed(_history(shop)) if event["event"] == "workspace restored")
    assert noted["subject"] == told["taken"]["digest"]
    assert sorted(each for closed in json.loads(noted["facts"])["answers"].values() for each in closed) == sorted(told["asked"])


def test_a_request_that_a_restore_has_opened_cannot_be_withdrawn(told: dict[str, Any]) -> None:
    answer = told["shop"].console("requests", "cancel", told["answer"]["deletions_waiting"][0])
    assert answer.code == 2
    assert "a back-up restored" in answer.stderr


def test_an_old_export_is_kept_out_at_once(told: dict[str, Any]) -> None:
    from e2urec_core.ledger.suppressions import suppressed_in

    suppressed = suppressed_in(told["shop"].place)
    assert suppressed.user_cut_offs([told["whole"]])
    assert suppressed.pair_cut_off([told["pair"][0]], told["pair"][1]) is not None


@pytest.fixture(scope="module")
def night(told: dict[str, Any]) -> dict[str, Any]:
    """The night after the restore."""
    (night,) = told["shop"].night()
    return dict(night)


def test_the_next_night_forgets_them_again_and_carries_on(told: dict[str, Any], night: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    shop = told["shop"]
    assert {shop.states()[each] for each in (*told["answer"]["deletions_waiting"], told["open"])} == {"certified"}
    # Numbers of versions that were lost are not given twice.
    assert shop.champion() == 4
    assert shop.scan(told["whole"]) == []
    (rows,) = shop.artifacts("Interactions")
    pairs = {(row["user_id"], row["item_id"]) for part in rows.glob("interactions/*") for row in pq.read_table(part).to_pylist()}
    assert told["pair"] not in pairs
    assert told["whole"] not in {user for user, _ in pairs}
    assert told["pair"][0] in {user for user, _ in pairs}
    assert "restored deletions wait" not in shop.console("models", "list").stderr


def test_receipts_and_ledger_verify_and_go_on(told: dict[str, Any], night: dict[str, Any]) -> None:
    from e2urec_core.ledger import open_ledger
    from e2urec_core.ledger.releases import Releases

    shop = told["shop"]
    assert shop.receipts()[: len(told["receipts"])] == told["receipts"]
    assert len(shop.receipts()) == len(told["receipts"]) + 3
    assert shop.console("receipt", "verify-all").code == 0
    Releases(open_ledger(shop.place / "requests.db")).verify()


def test_the_restored_workspace_goes_on(told: dict[str, Any], night: dict[str, Any]) -> None:
    shop = told["shop"]
    asked = shop.ask(shop.users[3])
    shop.night()
    assert shop.states()[asked] == "certified"
    assert shop.scan(shop.users[3]) == []
    assert shop.champion() == 5


def _history(shop: NightShop) -> list[dict[str, Any]]:
    from e2urec_core.ledger import open_ledger

    return [event.canonical() for event in open_ledger(shop.place / "requests.db").events()]
