"""The tables of docs/report.md, made from the sentences under the fields of the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from e2urec_core.report.schema import ReportDocument

BEGIN, END = "<!-- schema: begin -->", "<!-- schema: end -->"
_TYPES = {"string": "text", "number": "number", "integer": "whole number", "boolean": "yes or no", "null": "null"}


def schema_table() -> str:
    """One Markdown table for each object of report.json, the document first."""
    schema = ReportDocument.model_json_schema(by_alias=True)
    objects = {"ReportDocument": schema, **{name: part for name, part in schema["$defs"].items() if "properties" in part}}
    return "\n\n".join(_table(name, part) for name, part in objects.items())


def refreshed(page: str) -> str:
    """The text of docs/report.md with the present tables between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{schema_table()}\n\n{END}{after}"


def _table(name: str, part: Mapping[str, Any]) -> str:
    lines = [f"### {name}", "", part["description"].replace("\n", " "), "", "| field | type | bounds | meaning |", "|---|---|---|---|"]
    for field, what in part["properties"].items():
        sentence = what["description"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| `{field}` | {_type(what)} | {', '.join(_bounds(what))} | {sentence} |")
    return "\n".join(lines)


def _type(what: Mapping[str, Any]) -> str:
    if "anyOf" in what:
        return " or ".join(_type(one) for one in what["anyOf"])
    if "const" in what:
        return f"`{what['const']}`"
    if "$ref" in what:
        name = what["$ref"].rsplit("/", 1)[-1]
        return "any JSON value" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if what.get("type") == "array":
        return f"list of {_type(what['items'])}"
    if what.get("type") == "object":
        return f"object of name to {_type(what['additionalProperties'])}"
    return _TYPES[what["type"]]


def _bounds(what: Mapping[str, Any]) -> Iterator[str]:
    """The bounds of a number, also inside a choice, a list or an object."""
    for key, sign in (("minimum", ">= "), ("maximum", "<= "), ("minLength", "length >= "), ("minItems", "entries >= ")):
        if key in what:
            yield f"{sign}{what[key]:g}"
    inner = [*what.get("anyOf", ()), what.get("items"), what.get("additionalProperties")]
    for part in inner:
        if isinstance(part, dict):
            yield from _bounds(part)
