"""Finds the members of a plugin folder: one file, one class, the file's name is its `kind`.

Listing a folder imports nothing, so the command's help stays quick; a member is imported when it is named.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Any

from e2urec_core.errors import BadSetting


def kinds(package: str) -> list[str]:
    """Names of all members of `package` (such as `e2urec_core.methods`), sorted."""
    folder = importlib.import_module(package)
    return sorted(name for _, name, is_folder in pkgutil.iter_modules(folder.__path__) if not is_folder and name != "base")


def word(kind: str) -> str:
    """How a kind is spelled on the command line: `tiny_t5` is `tiny-t5`."""
    return kind.replace("_", "-")


def load(package: str, kind: str) -> type[Any]:
    """The settings class of the member `kind` (either spelling) of `package`.

    Raises:
        BadSetting: There is no such member; the nearest name is offered.
    """
    name = kind.replace("-", "_")
    family = package.rsplit(".", 1)[1]
    known = kinds(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        offer = f"did you mean `{word(near[0])}`? " if near else ""
        raise BadSetting(f"there is no `{kind}` among the {len(known)} {family}", hint=f"{offer}{family}: {', '.join(map(word, known))}")
    module = importlib.import_module(f"{package}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and "kind" in getattr(value, "model_fields", {})
    ]
    members = [value for value in found if value.__dict__["__pydantic_fields__"]["kind"].default == name]
    assert len(members) == 1, f"{module.__name__} must define one class whose kind is {name!r}, not {len(members)}"
    return members[0]
