"""Shows the settings of chosen words: every knob with its sentence, bounds and default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.runs import Run, flag


def knobs(
    members: Mapping[str, type[BaseModel]], values: Mapping[str, Any], whole: type[BaseModel] = Run
) -> Iterator[tuple[str, str, str, str]]:
    """Flag, what it takes, its value without the flag, and its sentence, for every setting of the chosen words.

    Args:
        members: Settings classes of the chosen words, by section.
        values: Settings as they are before any flag.
        whole: Settings class that holds all sections.
    """
    yield from _of(whole, [], members, values)


def _of(
    owner: type[BaseModel], path: list[str], members: Mapping[str, type[BaseModel]], values: Mapping[str, Any]
) -> Iterator[tuple[str, str, str, str]]:
    for name, field in owner.model_fields.items():
        if name == "kind":
            continue
        inner = members.get(name, field.annotation) if not path else field.annotation
        value = values.get(name)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _of(inner, [*path, name], members, value or {})
        else:
            yield flag([*path, name]), _takes(field), "none" if value is None else str(value), field.description or ""


def _takes(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "|".join(map(str, get_args(field.annotation)))
    named = [part for part in get_args(field.annotation) if part is not type(None)] or [field.annotation]
    words = {"int": "whole number", "float": "number", "str": "text", "Path": "path", "bool": "true|false"}
    takes = words.get(getattr(named[0], "__name__", ""), "value")
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "multiple of"}
    bounds = [
        f"{sign} {getattr(rule, name)}" for rule in field.metadata for name, sign in signs.items() if getattr(rule, name, None) is not None
    ]
    return ", ".join([takes, *bounds])
