"""Plugin folders: what is found, how it is spelled, and what happens to a name that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from e2urec_core.backbones.base import Backbone
from e2urec_core.datasets.base import Dataset
from e2urec_core.errors import BadSetting
from e2urec_core.methods.base import Method
from e2urec_core.plugins import kinds, load, word
from e2urec_core.settings import Plugin, Settings

REPOSITORY = Path(__file__).parents[2]
FAMILIES = [Method, Dataset, Backbone]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_holds_one_member_a_file_and_its_base_is_none(family: type[Plugin]) -> None:
    folder = REPOSITORY / Path(*family.package.split("."))
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert kinds(family.package) == sorted(files)


def test_the_members_of_the_first_landing_are_found() -> None:
    assert "e2urec" in kinds("e2urec_core.methods")
    assert {"sample", "ml_1m"} <= set(kinds("e2urec_core.datasets"))
    assert {"tiny_t5", "tiny_bart"} <= set(kinds("e2urec_core.backbones"))


def test_listing_members_imports_none_of_them() -> None:
    code = (
        "import sys; from e2urec_core.plugins import kinds; kinds('e2urec_core.methods'); kinds('e2urec_core.datasets');"
        "print([name for name in sys.modules if name in ('torch', 'polars', 'transformers') or name.endswith(('.e2urec', '.sample'))])"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"


def test_settings_of_every_member_are_read_without_torch() -> None:
    code = (
        "import sys; from e2urec_core.plugins import kinds, load;"
        "[load(f'e2urec_core.{family}', kind)() for family in ('methods', 'datasets', 'backbones')"
        " for kind in kinds(f'e2urec_core.{family}')];"
        "print([name for name in ('torch', 'transformers', 'peft', 'polars') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"


def test_a_member_is_found_under_either_spelling() -> None:
    assert load("e2urec_core.backbones", "tiny-t5") is load("e2urec_core.backbones", "tiny_t5")
    assert word("tiny_t5") == "tiny-t5"


@pytest.mark.parametrize(("wrong", "offered"), [("e2ure", "did you mean `e2urec`?"), ("tiny", None), ("base", None), ("__init__", None)])
def test_an_unknown_name_is_refused_with_the_nearest_and_all_known_names(wrong: str, offered: str | None) -> None:
    with pytest.raises(BadSetting) as refused:
        load("e2urec_core.methods", wrong)
    assert f"`{wrong}`" in refused.value.fact
    assert str(len(kinds("e2urec_core.methods"))) in refused.value.fact
    assert all(word(kind) in refused.value.hint for kind in kinds("e2urec_core.methods"))
    if offered:
        assert offered in refused.value.hint


def test_validating_the_family_builds_the_member_that_kind_names() -> None:
    method = Method.model_validate({"kind": "e2urec", "suppression": 3})
    assert type(method) is load("e2urec_core.methods", "e2urec")
    assert method.suppression == 3  # type: ignore[attr-defined]


def test_a_field_of_a_family_holds_the_member_with_its_own_knobs() -> None:
    class Run(Settings):
        method: Method

    run = Run.model_validate({"method": {"kind": "e2urec", "forget_weight": 0.1}})
    assert run.method == load("e2urec_core.methods", "e2urec")(forget_weight=0.1)
    assert Run.model_validate_json('{"method": {"kind": "e2urec", "forget_weight": 0.1}}') == run


def test_a_member_refuses_knobs_of_another_and_values_beyond_its_bounds() -> None:
    with pytest.raises(ValidationError, match="num_users"):
        Method.model_validate({"kind": "e2urec", "num_users": 3})
    with pytest.raises(ValidationError, match="forget_weight"):
        Method.model_validate({"kind": "e2urec", "forget_weight": 1.1})


def test_a_kind_that_is_not_there_is_refused_when_a_family_is_validated() -> None:
    with pytest.raises(BadSetting, match="there is no `tiny_t6`"):
        Backbone.model_validate({"kind": "tiny_t6"})


def test_a_base_class_does_no_work_itself() -> None:
    with pytest.raises(AssertionError, match="Dataset does not read"):
        Dataset().scan()
    with pytest.raises(AssertionError, match="Backbone does not build"):
        Backbone().build(None, 0)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="Backbone has no tokenizer"):
        Backbone().tokenizer([])
