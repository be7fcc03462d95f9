"""What differs between two stage keys, part by part, and how that is said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from e2urec_core.settings import Settings
from tasks._keys import FINGERPRINT

About = Literal["artifact", "input", "setting", "file", "code", "package", "unknown"]
DIGEST = re.compile("[0-9a-f]{64}")
SHOWN = 12
"""Digits of a digest that people are shown."""
LONGEST_SHOWN = 60
"""Letters of a value that people are shown."""


class Reason(Settings):
    """One thing because of which a stage is not taken from the store, or is not the one that it was."""

    about: About
    """What kind of thing it is."""
    name: str
    """Name of the input, setting, file or package; of the stage that has made, or would make, an artifact."""
    before: Any = None
    """Its value or digest then; nothing where it was not there, or is not known."""
    now: Any = None
    """Its value or digest now; nothing where it is not there, or is not known yet."""
    text: str
    """The reason for people."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefixes: Mapping[str, str]) -> Iterator[Reason]:
    """What stands in the parts of one key and not in those of another, but for the code.

    Args:
        before: Parts of a key that was used; see `key_parts`.
        now: Parts of the key that would be used.
        prefixes: What stands before the names of an argument's settings, by the argument, where it is not the argument itself.

    >>> [reason.text for reason in differences({"given": {"seed": 0}}, {"given": {"seed": 1}}, {})]
    ['setting `seed`: 0 -> 1']
    """
    then, new = before.get("given", {}), now.get("given", {})
    for argument in dict.fromkeys((*new, *then)):
        pair = then.get(argument), new.get(argument)
        if _holds_digest(pair[0]) or _holds_digest(pair[1]):
            if pair[0] != pair[1]:
                text = f"another `{argument}`: {_shown(pair[0])} -> {_shown(pair[1])}"
                yield Reason(about="input", name=argument, before=pair[0], now=pair[1], text=text)
        else:
            yield from _settings(*pair, prefixes.get(argument, argument))
    versions = [{"python": _dotted(parts.get("python", ())), **parts.get("versions", {})} for parts in (before, now)]
    for package, old, new_version in _changed(*versions):
        text = f"package `{package}`: {_shown(old)} -> {_shown(new_version)}"
        yield Reason(about="package", name=package, before=old, now=new_version, text=text)


def code_differences(before: Mapping[str, str] | None, now: Mapping[str, str]) -> Iterator[Reason]:
    """Which files of the code differ.

    Args:
        before: Digests of the files then; None where that was not kept.
        now: Digests of the files now.
    """
    if before is None:
        yield Reason(about="code", name="", text="the code has changed; which files it had is not known")
        return
    for file, old, new in _changed(before, now):
        text = f"code `{file}` " + ("is new" if old is None else "is gone" if new is None else "has changed")
        yield Reason(about="code", name=file, before=old, now=new, text=text)


def _settings(before: Any, now: Any, prefix: str) -> Iterator[Reason]:
    for path, old, new in _changed(_leaves(before, prefix), _leaves(now, prefix)):
        owner, _, last = path.rpartition(".")
        if last == FINGERPRINT:
            # The digest of a short list of users is as good as the list to whoever tries names.
            yield Reason(about="file", name=owner, text=f"the contents of the files that `{owner}` names have changed")
        else:
            yield Reason(about="setting", name=path, before=old, now=new, text=f"setting `{path}`: {_shown(old)} -> {_shown(new)}")


def _leaves(value: Any, path: str) -> dict[str, Any]:
    """Nested values under dotted names."""
    if not isinstance(value, Mapping):
        return {path: value}
    inner = [_leaves(each, f"{path}.{name}" if path else name) for name, each in value.items()]
    return {name: each for leaves in inner for name, each in leaves.items()}


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys((*now, *before)):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def _holds_digest(value: Any) -> bool:
    return any(map(_holds_digest, value)) if isinstance(value, list) else isinstance(value, str) and DIGEST.fullmatch(value) is not None


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    text = str(value)
    return text[:SHOWN] if _holds_digest(value) else text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _dotted(version: Any) -> str:
    return ".".join(map(str, version))
