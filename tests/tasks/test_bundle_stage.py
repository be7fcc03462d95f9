"""The stage `bundle`: from handles to a folder that MLflow serves and that is known again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from e2urec_core.artifacts import Artifact, Examples, Interactions, Tokens, Unlearned, Verdict
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.places import BUNDLE
from e2urec_core.data.prompts import PromptRule
from e2urec_core.notes import note
from e2urec_core.recommender import Recommender
from e2urec_core.release.card import CardFacts, GateRow
from e2urec_core.release.probe import check_probe
from e2urec_core.settings import Seat

if TYPE_CHECKING:
    from tasks._room import Room

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]

Build = Callable[..., Recommender]


@pytest.fixture
def given(room: Room, build_tiny: Build, tiny_interactions: Path) -> dict[str, Any]:
    """The stage's arguments; what it only names is a line of text."""

    def published(kind: type[Artifact], write: Callable[[Path], None]) -> Artifact:
        with room.store.workplace() as place:
            write(place)
            return room.store.publish(kind, place, parents=(), rows=1, made_by="test")

    def line(place: Path) -> None:
        (place / "line.txt").write_text("only named")

    def model(place: Path) -> None:
        recommender = build_tiny("tiny_t5")
        recommender.save(place)
        note(place, **recommender.count(), curve=[])

    from tasks._servable import serving

    return {
        "model": published(Unlearned, model),
        "verdict": published(Verdict, line),
        "rows": published(Interactions, lambda place: shutil.copytree(tiny_interactions, place, dirs_exist_ok=True) and None),
        "examples": published(Examples, line),
        "tokens": published(Tokens, line),
        "prompt": PromptRule(),
        "history": HistoryRule(length=4),
        "facts": CardFacts(backbone="tiny_t5", method="e2urec", requests=("e" * 64,)),
        "gates": [GateRow(name="auc", value=0.75, bound="at least 0.7", margin=0.05, passed=True)],
        "served": serving(),
        "seat": Seat(seed=3),
    }


# Other stages in processes of their own: `tests/faults/test_stage_process.py` and `test_pool.py`.
@pytest.mark.parametrize("execution", ["inline", pytest.param("process", marks=pytest.mark.long)])
def test_a_bundle_comes_of_its_lineage_and_is_known_again(
    given: dict[str, Any], room: Room, build_tiny: Build, execution: Literal["inline", "process"]
) -> None:
    import mlflow
    import pandas

    from tasks.bundle import bundle

    room.execution = execution
    handle = bundle(**given)
    assert handle.kind == "Bundle"
    assert handle.rows == 64
    assert set(handle.parents) == {given[name].digest for name in ("model", "verdict", "rows", "examples", "tokens")}
    folder = room.store.open(handle)
    assert check_probe(folder / BUNDLE) == 0.0
    page = (folder / "README.md").read_text()
    for told in (given["model"].digest, given["rows"].digest, "| auc | 0.75 |", f"{build_tiny('tiny_t5').count()['total_parameters']:,}"):
        assert told in page
    copy = shutil.copytree(folder, room.workspace / "exported")
    told = mlflow.pyfunc.load_model(str(copy)).predict(pandas.DataFrame([{"history": [], "candidates": ["Golden Vault", "Old Ghost"]}]))
    assert told["rank"].tolist() == [1, 2]


def test_the_same_recommender_is_bundled_once_and_other_gates_or_other_code_bundle_it_anew(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import bundle as module
    from tasks.bundle import bundle

    first, calls = bundle(**given), []
    write = module.write_servable
    monkeypatch.setattr(module, "write_servable", lambda *told: calls.append("written") or write(*told))
    assert bundle(**given) == first
    assert not calls
    failed = [GateRow(name="auc", value=0.65, bound="at least 0.7", margin=-0.05, passed=False)]
    code = given["served"].model_copy(update={"code": ("0" * 64, "1" * 64)})
    assert bundle(**{**given, "gates": failed}).digest != first.digest
    bundle(**{**given, "served": code})
    assert calls == ["written", "written"]
