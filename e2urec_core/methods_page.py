"""Writes `methods/README.md`: what each method does, where it comes from, what it costs, and its knobs.

All of it is read off the methods' own docstrings and fields, so that it is written once. To renew the page:

    python -m e2urec_core.methods_page
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from e2urec_core.methods.base import Method
from e2urec_core.plugins import kinds, load, word

PAGE = Path(__file__).parent / "methods" / "README.md"
COMMAND = "python -m e2urec_core.methods_page"
HEADS = ("Source", "Differs", "Cost")


def page() -> str:
    """The page as Markdown; ends in a newline."""
    members = {kind: load(Method.package, kind) for kind in kinds(Method.package)}
    lines = [
        "# Methods",
        "",
        f"Written by `{COMMAND}` from the methods' own files; change those, not this page. A method is one file in this folder, and is",
        "chosen by its word: `e2urec unlearn sample tiny-t5 WORD`. Its knobs are set with `--method.KNOB VALUE`.",
        "",
        "| method | word | in one sentence |",
        "|---|---|---|",
    ]
    for kind, member in members.items():
        lines.append(f"| [{member.title}](#{_anchor(member.title)}) | `{word(kind)}` | {_told(member)['sentence']} |")
    for kind, member in members.items():
        told = _told(member)
        lines += ["", f"## {member.title}", "", f"`{word(kind)}`: {told['sentence']} {told['more']}".rstrip(), ""]
        lines += [f"- **{head}:** {told[head]}" for head in HEADS if told[head]]
        lines.append(f"- **Needs:** {_needs(member)}")
        if rows := [f"| `{name}` | {default} | {sentence} |" for name, default, sentence in _knobs(member)]:
            lines += ["", "| knob | default | what it does |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _told(member: type[Method]) -> dict[str, str]:
    """First sentence of a method's file, what follows it, and its lines `Source`, `Differs` and `Cost`; each on one line."""
    text = sys.modules[member.__module__].__doc__ or ""
    free, *headed = re.split(rf"^({'|'.join(HEADS)}): ", text, flags=re.MULTILINE)
    first, _, more = free.strip().partition("\n\n")
    found = dict(zip(headed[::2], headed[1::2], strict=True))
    told = {"sentence": first, "more": more, **{head: found.get(head, "") for head in HEADS}}
    return {name: " ".join(value.split()) for name, value in told.items()}


def _knobs(member: type[Method]) -> Iterator[tuple[str, str, str]]:
    for name, field in member.model_fields.items():
        if name != "kind":
            sentence = " ".join((field.description or "").split()).replace("|", "\\|")
            yield name, _shown(getattr(member(), name)), sentence


def _shown(value: Any) -> str:
    """A default; of a group of settings, those that differ from the group's own defaults."""
    if not isinstance(value, BaseModel):
        return f"`{value}`"
    usual = type(value)()
    changed = [f"`{name} {getattr(value, name)}`" for name in type(value).model_fields if getattr(value, name) != getattr(usual, name)]
    return ", ".join(changed) or "the group's own"


def _needs(member: type[Method]) -> str:
    return ", ".join(sorted(f"`{kind.__name__}`" for kind in member.needs)) or "the original alone"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page())
