"""Which candidate a night takes: of polluted data the best on validation rows, otherwise the first that passes the gates."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from flows import night_forgetting
from flows.night_choosing import best
from flows.night_forgetting import Night

# Every candidate's AUC on validation rows; None: it passes no gate.
VALIDATION = {"undial": 0.7, "retain_only": 0.9, "simnpo": None, "retrain": 0.9, "e2urec": 0.5}
LADDER, POLLUTION_LADDER = ("e2urec", "undial"), ("undial", "simnpo", "retain_only", "retrain")


def judged(method: str) -> Any:
    return SimpleNamespace(candidate=SimpleNamespace(method=method), verdict=method, bundle=method)


def rungs(*methods: str) -> tuple[Any, ...]:
    return tuple(SimpleNamespace(kind=method) for method in methods)


@pytest.mark.parametrize(
    ("passing", "taken"),
    [
        ([], None),
        ([("one", 0.4), ("other", 0.6)], "other"),
        ([("one", 0.6), ("other", 0.6)], "one"),
        # The rows that are left have one label alone, so no AUC is defined.
        ([("one", None), ("other", 0.1)], "other"),
        ([("one", None)], "one"),
    ],
)
def test_the_first_of_the_best_on_validation_rows_is_taken(passing: list[tuple[str, float | None]], taken: str | None) -> None:
    found = best(0.95, [(judged(method), value) for method, value in passing])
    assert (found and found.candidate.method) == taken


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a night releases, where no stage is run and a candidate's verdict stands in `VALIDATION`."""
    taken: list[str] = []

    def verdict(room: object, method: str) -> Any:
        return SimpleNamespace(passed=VALIDATION[method] is not None, reasons=lambda: ["a gate"])

    # The champion's bundle is asked as a candidate's is.
    asked = {**VALIDATION, "champion": 0.8}
    stood_in: dict[str, Any] = {
        "find": lambda *_: SimpleNamespace(counts={}),
        "write_deletions": lambda *_: "deletions",
        "choose_forgotten": lambda *_: "request",
        "retell_changed": lambda *_: None,
        "facts": lambda _: {"counts": {"forgotten": 3}},
        "Prepared": lambda *_: None,
        "ForgetRule": lambda **_: None,
        "_is_due": lambda *_: False,
        "chapter": lambda _: nullcontext(),
        "validation_auc": lambda run, prepared, bundle, title: asked[bundle],
        "_tried": lambda night, run, prepared, method, name: judged(method.kind),
        "_release": lambda night, snapshot, chosen, known, name: taken.append(chosen.candidate.method),
        "releases": SimpleNamespace(read_verdict=verdict, show_verdict=lambda *_: None),
    }
    for name, what in stood_in.items():
        monkeypatch.setattr(night_forgetting, name, what)
    return taken


@pytest.mark.parametrize(
    ("reasons", "tried", "taken"),
    [
        (("pollution", "pollution"), {"undial": 0.7, "simnpo": None, "retain-only": 0.9, "retrain": 0.9}, "retain_only"),
        (("pollution", "person"), {"e2urec": None}, "e2urec"),
        (("person",), {"e2urec": None}, "e2urec"),
    ],
    ids=["polluted alone", "a person too", "a person"],
)
def test_a_night_of_polluted_data_alone_compares_every_candidate_and_any_other_takes_the_first(
    released: list[str], reasons: tuple[str, ...], tried: dict[str, float | None], taken: str
) -> None:
    run: Any = SimpleNamespace(seed=0, prompt=None, ladder=rungs(*LADDER), pollution_ladder=rungs(*POLLUTION_LADDER))
    run.model_copy = lambda update: run
    room: Any = SimpleNamespace(store=SimpleNamespace(open=lambda _: None), workspace=None)
    desk: Any = SimpleNamespace(bundle_of=lambda _: "champion", champion=SimpleNamespace)
    night = Night(run, room, desk, requests=SimpleNamespace(), epoch=1)  # type: ignore[arg-type]
    known: Any = [SimpleNamespace(record=SimpleNamespace(id=str(at), reason=reason)) for at, reason in enumerate(reasons)]
    snapshot: Any = SimpleNamespace(rows=None, examples=None, tokens=None)
    night_forgetting._carry(night, snapshot, known, [], "night")
    assert {each.method: each.validation_auc for each in night.tried} == tried
    assert {each.method for each in night.tried if not each.passed} == {"simnpo"} & set(tried)
    assert night.validation_auc == (0.8 if set(reasons) == {"pollution"} else None)
    assert released == [taken]
