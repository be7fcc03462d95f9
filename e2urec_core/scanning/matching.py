"""Decides whether a value or a text names the user; what is distinctive and what is not is told in `targets.py`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from e2urec_core.scanning.fields import kind_of
from e2urec_core.scanning.targets import FEWEST_DIGITS, IDENTIFIER, PSEUDONYM, ROW, SUCCESSOR, Targets

Record = list[tuple[str, Any]]
"""Fields and values that stand together: a row, or one object of a JSON document."""

_NOT_BEFORE, _NOT_AFTER = r"(?<![^\W_])", r"(?![^\W_])"
# What says in a text that the next word is a user. After the plural only where it opens a list or a folder: `users: 17` is a count.
_SAYS_USER = (
    r"(?<![A-Za-z])(?i:user|subject|person|customer|uid)(?i:[_\- ]?(?:id|name))?"
    r"(?:s(?=[^A-Za-z0-9\n]{0,5}[\[/]))?[^A-Za-z0-9\n]{1,6}"
)
_CODES = re.compile(rf"[0-9a-f]{{20}}|[0-9]{{{FEWEST_DIGITS}}}")
_AROUND = " \t\r\n\"'`"
NOTHING: Counter[str] = Counter()
"""What most values name; never changed."""


class Matcher:
    """Finds one user's traces in values and texts, counted by kind."""

    def __init__(self, targets: Targets) -> None:
        """Look for `targets`."""
        self.targets = targets
        self.users = frozenset(targets.users)
        # Longer names first, so that a name is not taken for another that it begins with.
        name = re.escape(targets.user) if not targets.together else f"(?:{'|'.join(map(re.escape, by_length(self.users)))})"
        self._any = re.compile(name)
        tail = r"(?P<later>#[0-9]+)?"
        self._whole = re.compile(rf"{name}{tail}(?:\.0)?")
        self._word = re.compile(rf"{_NOT_BEFORE}{name}{tail}{_NOT_AFTER}")
        self._said = re.compile(rf"{_SAYS_USER}(?P<name>{name}{tail})(?![^\W_]|\.[0-9]|[-@+_][A-Za-z0-9])")
        self._line = re.compile(rf"^\s*{name}{tail}(?=(?:::[^:\n]*){{3}})", re.MULTILINE)
        self._numbers = targets.numbers
        self._longer = re.compile(rf"[A-Za-z0-9]*{name}[A-Za-z0-9]*")
        self.longer: set[str] = set()
        """Words met so far in which the identifier is only a part, such as other users' names."""
        self._lengths = sorted({len(str(number)) for number in self._numbers})

    def holds(self, text: str) -> bool:
        """Whether an identifier is part of a text."""
        return self._any.search(text) is not None if self.targets.together else self.targets.user in text

    def record(self, record: Record) -> Counter[str]:
        """What stands in fields that belong together."""
        if not self.targets.items:
            return total(self.value(field, value) for field, value in record)
        found = Counter[str]()
        for field, value in record:
            inner = opened(value) if isinstance(value, str) else None
            found.update(total(map(self.record, records_of(inner, field))) if inner else self.codes(str(value)))
        named = any(self.names(field, value) for field, value in record)
        if named and any(self.is_item(field, value) for field, value in record):
            found[ROW] += 1
        return found

    def is_item(self, field: str, value: Any) -> bool:
        """Whether a value is one of the items that are looked for."""
        return kind_of(field) not in ("user", "users") and isinstance(value, str | int) and str(value).strip(_AROUND) in self.targets.items

    def value(self, field: str, value: Any) -> Counter[str]:
        """What one value names: of any kind, under a path of names with points between; bytes are looked at as text."""
        if isinstance(value, bool) or value is None:
            return NOTHING
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if isinstance(value, int):
            return Counter({self._numbers[value]: 1}) if value in self._numbers else self.names(field, value)
        if not isinstance(value, str):
            return NOTHING
        inner = opened(value)
        if inner is not None:
            return total(map(self.record, records_of(inner, field)))
        return total((self.names(field, value), self.codes(value)))

    def names(self, field: str, value: Any) -> Counter[str]:
        """How often a value names the user by the identifier or a successor's."""
        if not isinstance(value, str):
            is_it = isinstance(value, int) and str(value) in self.users and kind_of(field) == "user"
            return Counter({IDENTIFIER: 1}) if is_it else NOTHING
        if not self.holds(value):
            return NOTHING
        kind = kind_of(field)
        if kind == "vocabulary" and not self.targets.is_distinctive:
            return Counter()
        whole = self._whole.fullmatch(value.strip(_AROUND))
        if kind in ("user", "users"):
            if whole:
                return _counted([whole])
            if not self.targets.is_distinctive:
                parts = re.split(r"[\s,;|\"'\[\](){}]+", value)
                return _counted(match for part in parts if (match := self._whole.fullmatch(part))) or self.prose(value)
        if kind == "item" and not self.targets.is_distinctive:
            return Counter()
        if whole and not self.targets.is_number:
            return _counted([whole])
        return self.prose(value)

    def prose(self, text: str) -> Counter[str]:
        """How often a text names the user: as a word if nothing else is spelled so, else where the words before it say that it is one."""
        if not self.holds(text):
            return Counter()
        if self.targets.is_distinctive or self.targets.is_mixed:
            self.longer.update(word for word in self._longer.findall(text) if word not in self.users)
            return _counted(self._word.finditer(text))
        return _counted([*self._said.finditer(text), *self._line.finditer(text)])

    def text(self, text: str) -> Counter[str]:
        """What a text without fields names; of single interactions, only lines that name an item, too, and codes."""
        if not self.targets.items:
            return self.prose(text) + self.codes(text)
        found = self.codes(text)
        for line in text.splitlines() if self.holds(text) else ():
            if self.prose(line) and any(re.search(rf"{_NOT_BEFORE}{re.escape(item)}{_NOT_AFTER}", line) for item in self.targets.items):
                found[ROW] += 1
        return found

    def codes(self, text: str) -> Counter[str]:
        """Pseudonyms and numbers in a text."""
        if not _CODES.search(text):
            return NOTHING
        return total(self.in_run(run) for run in re.findall(r"[0-9a-f]{10,}", text))

    def in_run(self, run: str) -> Counter[str]:
        """Pseudonyms and numbers in a run of hex digits; other digits may stand right beside them, as in a database's pages."""
        found: Counter[str] = Counter()
        pseudonyms = self.targets.pseudonyms
        count = sum(run[at : at + 20] in pseudonyms for at in range(len(run) - 19)) if pseudonyms else 0
        if count:
            found[PSEUDONYM] = count
        for text in re.findall(r"[0-9]{10,}", run) if self._lengths else ():
            for length in self._lengths:
                for at in range(len(text) - length + 1):
                    kind = self._numbers.get(int(text[at : at + length])) if text[at] != "0" else None
                    if kind:
                        found[kind] += 1
        return found

    def hidden(self, text: str) -> str:
        """The text without what is looked for, to be shown."""
        if self.targets.is_distinctive or self.targets.is_mixed:
            text = self._word.sub("<the user>", text)
        else:
            text = self._said.sub(lambda match: match[0].replace(match["name"], "<the user>"), text)
        for code in (*self.targets.pseudonyms, *map(str, self._numbers)):
            text = text.replace(code, "<a code of the user>")
        return text


def by_length(names: Iterable[str]) -> list[str]:
    """Names, the longest first."""
    return sorted(names, key=lambda name: (-len(name), name))


def _counted(matches: Iterable[re.Match[str]]) -> Counter[str]:
    return Counter(SUCCESSOR if match["later"] else IDENTIFIER for match in matches)


def total(found: Iterable[Counter[str]]) -> Counter[str]:
    """All of it together; a new counter."""
    every: Counter[str] = Counter()
    for each in found:
        if each:
            every.update(each)
    return every


def opened(text: str) -> Any:
    """The JSON document that a text is, or None where it is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def records_of(document: Any, above: str = "") -> Iterator[Record]:
    """Every object of a JSON document as a record: its keys, its values, and the values of its lists."""
    waiting = [(above, document)]
    while waiting:
        field, held = waiting.pop()
        record: Record = []
        for name, value in held.items() if isinstance(held, dict) else [("", held)]:
            path = f"{field}.{name}" if field and name else name or field
            if name:
                record.append((field, name))
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, dict | list):
                    waiting.append((path, inner))
                else:
                    # A number in a list of users is one of them.
                    record.append((path, str(inner) if isinstance(value, list) and type(inner) is int else inner))
        if record:
            yield record
