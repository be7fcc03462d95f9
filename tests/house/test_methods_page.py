"""The page of methods is what their files say."""

from __future__ import annotations

import re

from e2urec_core.methods.base import Method
from e2urec_core.methods_page import COMMAND, HEADS, PAGE, page
from e2urec_core.plugins import kinds, load, word


def test_the_page_of_methods_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), f"{PAGE.name} is out of date; renew it with: {COMMAND}"


def test_the_page_has_every_method_with_its_source_its_cost_and_every_knob() -> None:
    sections = re.split(r"^## ", page(), flags=re.MULTILINE)[1:]
    members = {kind: load(Method.package, kind) for kind in kinds(Method.package)}
    assert [section.splitlines()[0] for section in sections] == [member.title for member in members.values()]
    for section, (kind, member) in zip(sections, members.items(), strict=True):
        assert f"`{word(kind)}`: " in section
        assert [head for head in HEADS if f"- **{head}:** " not in section] == []
        knobs = re.findall(r"^\| `(\w+)` \| \S", section, re.MULTILINE)
        assert knobs == [name for name in member.model_fields if name != "kind"]
