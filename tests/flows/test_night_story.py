"""Nights through the command: from deletion requests to a champion that has forgotten, erased data and receipts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2urec_console import Story, prefect_events, prefect_rows, prefect_table
from nightly_shops import LENIENT, NIGHT, NO_METHOD, NightShop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NightShop]:
    """A shop with a first champion that knows everybody."""
    shop = NightShop.opened(story.workspace, tmp_path_factory.mktemp("nights") / "workspace")
    yield shop
    shop.console.close()


def test_a_night_without_a_champion_says_how_to_make_one(shop: NightShop, tmp_path: Path) -> None:
    answer = shop.console("nightly", workspace=tmp_path / "fresh")
    assert answer.code == 2
    assert "no champion" in answer.stderr
    assert "e2urec train" in answer.stderr


def test_a_night_without_requests_says_so(shop: NightShop) -> None:
    answer = shop.console("nightly")
    assert (answer.code, answer.stdout.strip()) == (0, "nothing is pending")


@pytest.fixture(scope="module")
def first(shop: NightShop) -> dict[str, Any]:
    """The first night: a user, a single interaction of another, and somebody whom nobody knows."""
    import pyarrow.parquet as pq

    whole, single = shop.users[0], shop.users[1]
    (folder,) = shop.artifacts("Examples")
    rows = [row for row in pq.read_table(folder / "examples.parquet").to_pylist() if row["user_id"] == single and row["split"] == "train"]
    (stored,) = shop.artifacts("Interactions")
    users = [user for part in stored.glob("interactions/*") for user in pq.read_table(part)["user_id"].to_pylist()]
    named = {"whole": whole, "single": single, "item": rows[0]["item_id"], "rows": users.count(whole)}
    named["before"] = {path.name for path in shop.artifacts("Bundle")}
    asked = {"whole": shop.ask(whole), "single": shop.ask(single, named["item"]), "unknown": shop.ask("who-is-that-7")}
    assert shop.scan(whole)
    plan = shop.console("erase", "--dry-run", "--json").json()
    assert {each["kind"] for each in plan["artifacts"]} >= {"Examples", "Tokens", "Original", "Bundle", "Retrained"}
    (night,) = shop.night()
    return {"named": named, "asked": asked, "night": night}


def test_every_request_is_closed_with_a_receipt_that_verifies(shop: NightShop, first: dict[str, Any]) -> None:
    assert [shop.states()[first["asked"][name]] for name in ("whole", "single", "unknown")] == ["certified", "certified", "no_data"]
    assert shop.console("receipt", "verify-all").code == 0
    told = {each["request"]: each for each in shop.receipts()}
    whole = told[first["asked"]["whole"]]
    assert whole["model"]["version"] == shop.champion() == 2
    assert whole["found"]["interactions"] == first["named"]["rows"] > 0
    assert sum(whole["found"]["examples"].values()) > 0
    assert {each["kind"] for each in whole["erased"]["artifacts"]} >= {
        "Interactions",
        "Examples",
        "Tokens",
        "Original",
        "Augmented",
        "Bundle",
    }
    assert whole["erased"]["places"]["model_versions"] >= 1
    assert told[first["asked"]["single"]]["found"]["interactions"] == 1
    assert (told[first["asked"]["unknown"]]["outcome"], told[first["asked"]["unknown"]]["model"]) == ("no_data", None)


def test_nothing_names_the_forgotten_afterwards(shop: NightShop, first: dict[str, Any]) -> None:
    assert shop.scan(first["named"]["whole"]) == []
    assert shop.scan("who-is-that-7") == []
    told = shop.console("scan", "--user", first["named"]["whole"])
    assert (told.code, "the suppression list has a keyed mark of the user" in told.stdout) == (0, True)


def test_only_the_champion_and_the_rewritten_data_are_left(shop: NightShop, first: dict[str, Any]) -> None:
    left = {path.parent.name for path in (shop.place / "store" / "objects").glob("*/*")}
    assert left == {"Bundle", "Interactions", "Examples", "Tokens"}
    assert not first["named"]["before"] & {path.name for path in shop.artifacts("Bundle")}
    assert not list((shop.place / "store" / "checkpoints").glob("*"))
    assert not (shop.place / "claims").exists()
    assert [path.name for path in (shop.place / "erasures").glob("*")] == []


def test_the_tables_hold_neither_the_user_nor_the_interaction(shop: NightShop, first: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    (rows,), (examples,) = shop.artifacts("Interactions"), shop.artifacts("Examples")
    pairs = {(row["user_id"], row["item_id"]) for part in rows.glob("interactions/*") for row in pq.read_table(part).to_pylist()}
    named = first["named"]
    assert named["whole"] not in {user for user, _ in pairs}
    assert (named["single"], named["item"]) not in pairs
    assert named["single"] in {user for user, _ in pairs}
    assert named["whole"] not in pq.read_table(examples / "examples.parquet")["user_id"].to_pylist()


def test_the_released_model_has_no_adapter_to_switch_off(shop: NightShop, first: dict[str, Any]) -> None:
    from e2urec_core.recommender import load

    (bundle,) = shop.artifacts("Bundle")
    assert not load(bundle / "artifacts" / "bundle").has_adapter
    assert not [path for path in shop.place.rglob("*adapter*") if path.is_file()]


def test_the_report_says_what_was_tried_and_how_much_of_the_budget_is_used(shop: NightShop, first: dict[str, Any]) -> None:
    night = first["night"]
    assert [(each["method"], each["passed"]) for each in night["attempts"]] == [("e2urec", True)]
    assert night["drift"]["nights"] == 1
    assert night["drift"]["users"] == 2
    assert "Drift budget used" in night["text"]
    page = (shop.place / "reports" / night["run"] / "night.html").read_text()
    assert "Drift budget" in page
    assert "Gates of the new champion" in page


def test_prefect_shows_what_the_night_came_to_and_tells_automations(shop: NightShop, first: dict[str, Any]) -> None:
    run = first["night"]["run"]
    told = {row["What"]: row["Value"] for row in prefect_table(shop.place, run)}
    assert (told["Requests certified"], told["Requests about nobody in the data"], told["Gates, e2urec"]) == ("2", "1", "passed")
    assert told["Champion"] == "version 2, new"
    assert any(" of " in value for what, value in told.items() if what.startswith("AUC lost"))
    (ended,) = prefect_events(shop.place, "e2urec.night.ended")
    assert ended["run"] == run
    assert (ended["certified"], ended["no_data"], ended["champion"], ended["new_champion"], ended["failed"]) == (2, 1, 2, True, False)
    assert {"run": run, "version": 2} in prefect_events(shop.place, "e2urec.champion.promoted")
    assert prefect_rows(shop.place, "select name, state_name from flow_run where name = ?", run) == [(run, "Completed")]


def test_an_old_export_does_not_bring_the_forgotten_back(shop: NightShop, first: dict[str, Any]) -> None:
    answer = shop.console("data", "check", "sample", *NO_METHOD[:6])
    assert answer.code == 0, answer.stderr
    answer = shop.console("train", "sample", "tiny-t5", *NO_METHOD, *LENIENT, "--release.then", "nothing")
    assert answer.code == 0, answer.stderr
    assert shop.scan(first["named"]["whole"]) == []


def test_the_next_night_starts_from_the_champion_and_forgets_the_next(shop: NightShop, first: dict[str, Any]) -> None:
    user = shop.users[5]
    request = shop.ask(user)
    # Shadow Retrains are trained in every second night.
    (night,) = shop.night("--night.drift.shadow-every", "2")
    assert night["drift"]["distance"] > 0
    assert shop.states()[request] == "certified"
    assert (shop.champion(), night["drift"]["nights"], night["drift"]["users"]) == (3, 2, 3)
    assert shop.scan(user) == shop.scan(first["named"]["whole"]) == []
    (bundle,) = shop.artifacts("Bundle")
    assert shop.console("models", "show", "3", "--json").json()["bundle"] == bundle.name
    assert shop.console("receipt", "verify-all").code == 0


def test_the_same_request_again_is_about_nobody(shop: NightShop, first: dict[str, Any]) -> None:
    request = shop.ask(first["named"]["whole"])
    shop.night()
    assert shop.states()[request] == "no_data"
    assert shop.champion() == 3


def test_a_user_without_training_rows_is_erased_and_the_champion_stays(shop: NightShop, first: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    (examples,) = shop.artifacts("Examples")
    rows = pq.read_table(examples / "examples.parquet", columns=["user_id", "split"]).to_pylist()
    trained = {row["user_id"] for row in rows if row["split"] == "train"}
    user = next(row["user_id"] for row in rows if row["user_id"] not in trained)
    request, before = shop.ask(user), shop.champion()
    (night,) = shop.night()
    assert (shop.states()[request], shop.champion(), night["attempts"]) == ("certified", before, [])
    assert shop.scan(user) == []


def test_what_no_gate_passes_waits_and_leaves_everything_as_it_was(shop: NightShop, first: dict[str, Any]) -> None:
    request, before = shop.ask(shop.users[7]), shop.champion()
    answer = shop.console(*NIGHT, "--gates.utility.least-auc", "1")
    assert answer.code == 2
    assert "none of 1 attempts passed the gates, so 1 requests wait for the next night" in answer.stderr
    assert (shop.states()[request], shop.champion()) == ("queued", before)
    shop.night()
    assert shop.states()[request] == "certified"


def test_a_used_up_budget_trains_anew_on_what_is_left(shop: NightShop, first: dict[str, Any]) -> None:
    request = shop.ask(shop.users[9])
    (night,) = shop.night("--night.drift.share", "0.01", "--night.anew-seeds", "2")
    assert shop.states()[request] == "certified"
    assert [each["method"] for each in night["attempts"]] == ["retrain"]
    assert len([stage for stage in night["seconds"] if stage.startswith("train-original (seed ")]) == 2
    assert night["drift"]["nights"] == 0
    assert shop.console("models", "show", str(shop.champion()), "--json").json()["kind"] == "Original"
    assert shop.scan(shop.users[9]) == []


def test_a_retained_champion_can_be_taken_back_and_its_requests_are_carried_out_again(shop: NightShop, first: dict[str, Any]) -> None:
    user, before = shop.users[11], shop.champion()
    request = shop.ask(user)
    shop.night("--night.retention-hours", "2")
    assert shop.states()[request] == "promoted"
    after = shop.champion()
    answer = shop.console("models", "rollback")
    assert answer.code == 0, answer.stderr
    assert shop.champion() == before != after
    shop.night()
    assert shop.states()[request] == "certified"
    assert shop.champion() > after
    assert shop.scan(user) == []


def test_flags_that_would_change_the_champions_own_settings_are_refused(shop: NightShop) -> None:
    for flag in ("--split.holdout-share", "--dataset.num-users", "--method.suppression"):
        answer = shop.console("nightly", flag, "1")
        assert answer.code == 2
        assert flag in answer.stderr
    answer = shop.console("nightly", "--ladder", "sisa")
    assert (answer.code, "cannot forget at night" in answer.stderr) == (2, True)


def test_a_stage_of_a_night_is_not_run_again_by_itself(shop: NightShop, first: dict[str, Any]) -> None:
    answer = shop.console("stage", "unlearn", "--run", first["night"]["run"])
    assert (answer.code, "is no run of `unlearn` or `train`" in answer.stderr) == (2, True)


def test_receipts_and_logs_name_nobody(shop: NightShop, first: dict[str, Any]) -> None:
    texts = [path.read_text() for path in (shop.place / "receipts").glob("*.json")]
    texts += [path.read_text() for folder in ("runs", "reports") for path in (shop.place / folder).rglob("*") if path.is_file()]
    assert not [user for user in shop.users for text in texts if f'"{user}"' in text or f" {user} " in text]
    assert json.loads(texts[0])
