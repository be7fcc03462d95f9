"""Forms of settings for Prefect's page: the fields of a group, each of which may be left empty, which leaves it as the run had it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from e2urec_core.settings import Settings


@cache
def form_of(owner: type[Settings], only: tuple[str, ...] = ()) -> type[Settings]:
    """A group of settings of which any may be absent: names, types, bounds and sentences are those of `owner`, or of `only` some of it."""
    fields: dict[str, Any] = {name: _field(field) for name, field in owner.model_fields.items() if not only or name in only}
    return create_model(f"{owner.__name__}Form", __base__=Settings, __doc__=owner.__doc__, **fields)


def filled_in(name: str, form: Settings | None) -> dict[str, Any]:
    """What of a form was filled in, by the dotted name of its setting; `name` is the group's, empty for settings of no group."""
    return _flat(name, {} if form is None else form.model_dump(exclude_none=True))


def _field(field: FieldInfo) -> tuple[Any, Any]:
    inner = field.annotation
    if isinstance(inner, type) and issubclass(inner, Settings):
        form = form_of(inner)
        return form, Field(form(), description=field.description)
    bound: Any = Annotated[(inner, *field.metadata)] if field.metadata else inner
    told = "none" if field.default is None else field.default
    return bound | None, Field(None, description=f"{field.description} Empty: as the run had it; the default of new runs is {told}.")


def _flat(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for field, value in values.items():
        path = f"{name}.{field}" if name else field
        told |= _flat(path, value) if isinstance(value, dict) else {path: value}
    return told
