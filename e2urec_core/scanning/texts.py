"""Searches texts: JSON documents and lines, tables with separators, pages, logs, and the heads of safetensors files."""

from __future__ import annotations

import csv
import html
import io
import json
from collections import Counter
from typing import Any

from e2urec_core.scanning.fields import kind_of
from e2urec_core.scanning.matching import Matcher, opened, records_of, total

_SEPARATORS = (",", "\t", ";", "|")
_LONGEST_HEAD = 2**28


def search_text(text: str, matcher: Matcher) -> Counter[str]:
    """What a text names, by what it is: one JSON document, one a line, a table, or words."""
    document = opened(text)
    if document is not None or text.lstrip()[:1] == '"':
        return total(map(matcher.record, records_of(document))) if document is not None else matcher.text(text)
    separator = _separator(text)
    if separator:
        return _table(text, separator, matcher)
    found, words = Counter[str](), []
    for line in text.splitlines():
        document = opened(line)
        if document is None:
            words.append(line)
        else:
            found += total(map(matcher.record, records_of(document)))
    prose = "\n".join(words)
    found += matcher.text(html.unescape(prose) if "<" in prose else prose)
    return found


def head_of_safetensors(content: bytes) -> str | None:
    """The JSON text at the head of a safetensors file, or None where the bytes are no such file."""
    length = int.from_bytes(content[:8], "little")
    if content[8:9] != b"{" or not 2 <= length <= min(len(content), _LONGEST_HEAD):
        return None
    head = content[8 : 8 + length].decode(errors="replace")
    return head if _is_json(head) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _separator(text: str) -> str | None:
    """What separates the columns, if the first line names them and one of them holds people, or if it is all numbers."""
    lines = text.split("\n", 3)[:3]
    for separator in _SEPARATORS if len(lines) > 1 else ():
        cells = [cell.strip(' "\r') for cell in lines[0].split(separator)]
        if len(cells) > 1 and ((any(kind_of(cell) in ("user", "users") for cell in cells) and len(lines[0]) < 2000) or _all_numbers(cells)):
            return separator
    return None


def _all_numbers(cells: list[str]) -> bool:
    return all(cell.replace(".", "", 1).replace("-", "", 1).isdigit() for cell in cells)


def _table(text: str, separator: str, matcher: Matcher) -> Counter[str]:
    found, names = Counter[str](), None
    for row in csv.reader(io.StringIO(text), delimiter=separator):
        if names is None:
            # Without names the user stands first, as in most files of ratings.
            names = ["user", *("" for _ in row[1:])] if _all_numbers(row) else row
            if names is row:
                found += matcher.record([("", name) for name in row])
                continue
        record: list[tuple[str, Any]] = [(names[at] if at < len(names) else "", cell) for at, cell in enumerate(row)]
        found += matcher.record(record)
    return found
