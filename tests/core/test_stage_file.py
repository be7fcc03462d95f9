"""A stage written down: what is read back are the arguments that were given, wherever the file lies; what is wrong with it is said."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from e2urec_core import stages
from e2urec_core.backbones.tiny_bart import TinyBart
from e2urec_core.errors import BadSetting
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.release.gates import ContractGates, Gates, Handed
from e2urec_core.settings import Augment, CacheRule, EngineRule, Lora, Seat, Sharding, Training
from e2urec_core.stage_file import StageFile, StageName

SEAT = Seat(seed=4, threads=2, precision="bf16", engine=EngineRule(token_budget=99))
RULES: dict[str, Any] = {
    "backbone": TinyBart(width=16, num_heads=2),
    "training": Training(num_epochs=3, check_every=7),
    "augment": Augment(trains="adapter", lora=Lora(rank=2)),
    "sharding": Sharding(num_slices=2, lora=Lora(rank=3)),
    "method": E2URec(suppression=3, training=Training(num_epochs=1)),
    "rule": CacheRule(support="top", top=7, retained_per_forgotten=1.5),
    "gates": Gates(contracts=ContractGates(broken_rules=2)),
    "handed": Handed(candidate="a" * 64, damaged=0),
}


def folder(root: Path, name: str) -> Path:
    place = root / name
    place.mkdir(exist_ok=True)
    return place


def arguments(stage: str, root: Path) -> dict[str, Any]:
    """Something for every argument that the stage's function has."""
    given: dict[str, Any] = {}
    for name in inspect.signature(getattr(stages, stage)).parameters:
        if name in RULES:
            given[name] = RULES[name]
        elif name == "earlier":
            given[name] = [folder(root, "first"), folder(root, "second")]
        elif name == "models":
            given[name] = [(model, folder(root, model)) for model in ("original", "retrain", "e2urec", "retrain_1")]
        elif name == "scored":
            given[name] = [(role, folder(root, f"{role} scores"), "model") for role in ("candidate", "champion")]
        elif name == "subject":
            given[name] = "e2urec"
        elif name not in ("bench", "place"):
            given[name] = folder(root, name)
    return given


@pytest.mark.parametrize("stage", StageName.__args__)  # type: ignore[attr-defined]
def test_every_stage_comes_back_from_its_file_with_all_its_arguments(stage: str, tmp_path: Path) -> None:
    given = arguments(stage, tmp_path)
    assert given
    file = StageFile.of(stage, given, SEAT, tmp_path / "place", tmp_path / "kept")
    back = StageFile.model_validate_json(file.model_dump_json())
    assert back == file
    assert back.arguments(tmp_path) == given
    assert (back.stage, back.seat, back.place, back.checkpoints) == (stage, SEAT, str(tmp_path / "place"), str(tmp_path / "kept"))


def test_an_input_that_a_stage_goes_without_stays_none(tmp_path: Path) -> None:
    given = {**arguments("unlearn", tmp_path), "augmented": None, "remembering": None, "teachers": None}
    back = StageFile.model_validate_json(StageFile.of("unlearn", given, SEAT, tmp_path, None).model_dump_json())
    assert back.arguments(tmp_path) == given
    assert back.checkpoints is None


def test_a_stage_without_earlier_outputs_is_given_an_empty_list(tmp_path: Path) -> None:
    given = {**arguments("cache_original", tmp_path), "earlier": []}
    assert StageFile.of("cache_original", given, SEAT, tmp_path, None).arguments(tmp_path) == given


def test_relative_folders_start_at_the_given_root_wherever_it_was_moved_to(tmp_path: Path) -> None:
    here, there = folder(tmp_path, "here"), tmp_path / "there"
    folder(here, "tokens")
    file = StageFile.of("train_original", {"tokens": "tokens", "training": Training()}, SEAT, Path("place"), None)
    assert file.arguments(here)["tokens"] == here / "tokens"
    shutil.move(here, there)
    assert file.arguments(there)["tokens"] == there / "tokens"


def test_a_folder_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    file = StageFile.of("train_original", {"tokens": "nowhere"}, SEAT, tmp_path, None)
    with pytest.raises(BadSetting, match="names the folder `nowhere`, which is not there"):
        file.arguments(tmp_path)


@pytest.mark.parametrize(
    ("stage", "given"),
    [("cache_original", {"earlier": ["gone"]}), ("evaluate", {"models": [(name, "gone") for name in "abc"], "subject": "c"})],
)
def test_a_folder_of_a_list_that_is_not_there_is_refused_too(stage: str, given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="`gone`"):
        StageFile.of(stage, given, SEAT, tmp_path, None).arguments(tmp_path)


@pytest.mark.parametrize("given", [{"subject": "e2urec"}, {"models": [("original", "."), ("retrain", "."), ("e2urec", ".")]}])
def test_an_evaluation_without_models_or_subject_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"names [03] models and the subject"):
        StageFile.of("evaluate", given, SEAT, tmp_path, None).arguments(tmp_path)


def test_a_rule_of_no_known_name_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    file = StageFile.of("train_original", {"schooling": Training()}, SEAT, tmp_path, None)
    with pytest.raises(BadSetting, match="has 1 unknown rules: schooling") as refused:
        file.arguments(tmp_path)
    assert all(name in refused.value.hint for name in RULES)


@pytest.mark.parametrize(
    ("harm", "where"),
    [
        ({"stage": "ingest"}, "stage"),
        ({"seat": {"sead": 1}}, "seat.seed"),
        ({"folder": {}}, "folder"),
        ({"models": [["only a name"]]}, "models"),
    ],
)
def test_a_file_that_is_no_stage_file_is_refused_at_its_field(harm: dict[str, Any], where: str, tmp_path: Path) -> None:
    whole = json.loads(StageFile.of("train_original", {}, SEAT, tmp_path, None).model_dump_json())
    with pytest.raises(ValidationError) as refused:
        StageFile.model_validate({**whole, **harm})
    assert any(".".join(map(str, error["loc"])).startswith(where) for error in refused.value.errors())
