"""What holds of every method, dataset and backbone as settings."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from e2urec_core.errors import BadSetting
from e2urec_core.settings import Plugin


def fields_without_a_sentence(settings: type[BaseModel], path: str = "") -> list[str]:
    found = []
    for name, field in settings.model_fields.items():
        if not re.search(r"\w.*\.$", (field.description or "").strip(), re.DOTALL):
            found.append(f"{path}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += fields_without_a_sentence(field.annotation, f"{path}{name}.")
    return found


def test_name_file_and_kind_are_one_word(member: type[Plugin], kind: str) -> None:
    assert Path(inspect.getfile(member)).stem == kind == member().kind
    assert member.__module__ == f"{member.package}.{kind}"


def test_it_belongs_to_its_family(member: type[Plugin], family: type[Plugin]) -> None:
    assert issubclass(member, family)
    assert member.package == family.package


def test_every_field_has_a_sentence(member: type[Plugin]) -> None:
    assert fields_without_a_sentence(member) == []


def test_every_field_has_a_default_within_its_bounds(member: type[Plugin]) -> None:
    assert member() == member.model_validate(member().model_dump())


def test_module_and_class_say_what_they_are_and_where_it_comes_from(member: type[Plugin]) -> None:
    told = [sys.modules[member.__module__].__doc__ or "", member.__doc__ or ""]
    assert all(len(text) > 15 for text in told)
    assert any(re.search(r"^\s*Source: \S", text, re.MULTILINE) for text in told)


def test_it_comes_back_from_json_through_its_family(member: type[Plugin], family: type[Plugin]) -> None:
    settings = member()
    back = family.model_validate_json(settings.model_dump_json())
    assert type(back) is member
    assert back == settings
    assert family.model_validate(settings.canonical()) == settings


def test_a_changed_knob_survives_the_way_through_its_family(member: type[Plugin], family: type[Plugin]) -> None:
    for name, default in member().canonical().items():
        if isinstance(default, int | float) and not isinstance(default, bool):
            changed = another_value(member, name, default)
            back = family.model_validate_json(changed.model_dump_json())
            assert back == changed != member()
            assert getattr(back, name) != default


def another_value(member: type[Plugin], name: str, default: float) -> Plugin:
    """The member with one knob at the first of a few values that its bounds admit."""
    for value in (default + 8, default + 1, default / 2, 0.5):
        try:
            changed = member.model_validate({name: value})
        except ValidationError:
            continue
        if getattr(changed, name) != default:
            return changed
    raise AssertionError(f"no other value of {name} was accepted")


def test_it_is_frozen(member: type[Plugin]) -> None:
    settings = member()
    for name in member.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, getattr(settings, name))


def test_an_unknown_knob_is_refused(member: type[Plugin], family: type[Plugin], kind: str) -> None:
    with pytest.raises(ValidationError, match="no_such_knob"):
        family.model_validate({"kind": kind, "no_such_knob": 1})


def test_it_does_not_answer_to_another_name(member: type[Plugin], family: type[Plugin]) -> None:
    with pytest.raises(ValidationError, match="kind"):
        member.model_validate({"kind": "another"})
    with pytest.raises(BadSetting):
        family.model_validate({"kind": "another"})
