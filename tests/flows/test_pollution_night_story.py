"""A night of polluted data: every candidate is made, and the best on validation rows is taken (in parts: `test_night_choosing.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from e2urec_console import Story
from nightly_shops import LENIENT, NightShop

from e2urec_core.report.night.schema import Attempt, NightDocument
from e2urec_core.report.night.wording import sentences

LADDER = "undial:training.num-epochs=1,retain-only:rows=all;num-copies=2;training.num-epochs=1;training.learning-rate=0.003,retrain"


@pytest.fixture(scope="module")
def shop(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NightShop]:
    """A shop with a first champion that knows everybody."""
    shop = NightShop.opened(story.workspace, tmp_path_factory.mktemp("polluted-nights") / "workspace")
    yield shop
    shop.console.close()


@pytest.fixture(scope="module")
def polluted(shop: NightShop) -> dict[str, Any]:
    """A night of two polluted users."""
    for user in shop.users[:2]:
        assert shop.console("requests", "add", "--user", user, "--reason", "pollution").code == 0
    answer = shop.console("nightly", "--pollution-ladder", LADDER, *LENIENT, "--requests.approval-share", "1", "--json")
    assert answer.code == 0, answer.stderr
    (night,) = answer.json()["nights"]
    return {"night": night, "said": answer.stderr}


@pytest.mark.long
def test_every_candidate_is_made_and_the_best_on_validation_is_champion(shop: NightShop, polluted: dict[str, Any]) -> None:
    night = polluted["night"]
    assert [(each["method"], each["passed"]) for each in night["attempts"]] == [("undial", True), ("retain-only", True), ("retrain", True)]
    aucs = {each["method"]: each["validation_auc"] for each in night["attempts"]}
    assert len(set(aucs.values())) == 3
    taken = max(aucs, key=lambda name: aucs[name])
    # An ordinary night would take the first.
    assert taken != "undial"
    champion = shop.console("models", "show", str(shop.champion()), "--json").json()
    assert champion["method"] == {"retain-only": "retain_only", "undial": "undial", "retrain": ""}[taken]
    assert f"AUC on validation rows {aucs[taken]:.4f}, of the champion {night['validation_auc']:.4f}" in polluted["said"]
    assert f"`{taken}` is the best of 3 candidates" in night["text"]


@pytest.mark.long
def test_candidates_that_were_not_taken_are_erased_with_the_data(shop: NightShop, polluted: dict[str, Any]) -> None:
    (bundle,) = shop.artifacts("Bundle")
    assert shop.console("models", "show", str(shop.champion()), "--json").json()["bundle"] == bundle.name
    # What was trained anew, and asked, never saw them, and stays; what was made from the champion before does not.
    left = {path.parent.name for path in (shop.place / "store" / "objects").glob("*/*")}
    assert left == {"Bundle", "Interactions", "Examples", "Tokens", "ForgetRequest", "Original", "Scores"}
    assert [len(shop.artifacts(kind)) for kind in ("Interactions", "Examples", "Tokens")] == [1, 1, 2]
    assert [shop.scan(user) for user in shop.users[:2]] == [[], []]


@pytest.mark.long
def test_one_request_of_a_person_makes_it_an_ordinary_night(shop: NightShop, polluted: dict[str, Any]) -> None:
    assert shop.console("requests", "add", "--user", shop.users[4], "--reason", "pollution").code == 0
    shop.ask(shop.users[5])
    (night,) = shop.night()
    assert [(each["method"], each["validation_auc"]) for each in night["attempts"]] == [("e2urec", None)]
    assert night["validation_auc"] is None
    assert "validation" not in night["text"]


@pytest.mark.long
def test_an_empty_pollution_ladder_is_refused(shop: NightShop) -> None:
    answer = shop.console("nightly", "--pollution-ladder", " ")
    assert (answer.code, "`--pollution-ladder` names 0 methods" in answer.stderr) == (2, True)


def document(before: float | None, *tried: Attempt) -> NightDocument:
    # Only what the sentences on pollution look at; a whole document is that of the nights above.
    return NightDocument.model_construct(
        requests=(), waiting=0, overdue=0, attempts=tried, validation_auc=before, drift=_Unspent(), budget=None
    )


class _Unspent:
    def spent(self, budget: object) -> list[str]:
        return []


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (0.88, "Without the polluted data the AUC on validation rows rose from 0.8800 to 0.9100: `undial` is the best of 2 candidates"),
        (
            0.91,
            "is 0.9100, and was 0.9100: `undial` is the best of 2 candidates that passed the gates, and none is better than the champion",
        ),
    ],
)
def test_the_report_says_whether_the_recommender_is_better_without_them(before: float, said: str) -> None:
    tried = (
        Attempt(method="simnpo", passed=True, said="", validation_auc=0.9),
        Attempt(method="undial", passed=True, said="", validation_auc=0.91),
        Attempt(method="retrain", passed=False, said="refused"),
    )
    (sentence,) = sentences(document(before, *tried))
    assert said in sentence
    assert sentences(document(None, tried[2])) == []
