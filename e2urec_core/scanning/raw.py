"""Searches bytes whose meaning is not known: only what is distinctive, in every spelling and as numbers of eight bytes."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote

import numpy

from e2urec_core.scanning.matching import Matcher
from e2urec_core.scanning.targets import IDENTIFIER, SUCCESSOR

How = Literal["text", "cells", "joined"]
PIECE_BYTES, OVERLAP_BYTES = 2**25, 4096
_RUN = re.compile(rb"[0-9a-f]{10,}")
_IS_HEX = numpy.zeros(256, dtype=bool)
_IS_HEX[list(b"0123456789abcdef")] = True
_LATER = re.compile(rb"#[0-9]+")
# A run of ten letters holds two places of every fifth.
_STEP, _AROUND = 5, 80


class RawMatcher:
    """Finds one user's traces in bytes."""

    def __init__(self, matcher: Matcher) -> None:
        """Look for what `matcher` looks for; the longer words that it has met are not taken for the identifier."""
        targets = matcher.targets
        self.matcher = matcher
        sought = targets.users if targets.is_distinctive and not targets.items else ()
        self._names = tuple(written for user in sought for written in _spellings(user))
        numbers = numpy.array(sorted(targets.numbers), dtype=numpy.int64)
        self._orders = [(values, _table(values)) for values in (numbers.astype("<i8"), numbers.astype(">i8"))]
        self._kinds = targets.numbers

    def search(self, content: bytes, how: How) -> Counter[str]:
        """What a piece of bytes names.

        Args:
            content: The bytes.
            how: `text` holds no numbers of eight bytes, `cells` does. In `joined`, such as a database's pages, letters right beside the
                identifier are the next column, and not part of the word.
        """
        found = Counter[str]()
        for name in self._names:
            for at in _places(content, name):
                if self._counts(content, at, name, how == "joined"):
                    found[SUCCESSOR if _LATER.match(content, at + len(name)) else IDENTIFIER] += 1
        for run in _runs(content):
            found.update(self.matcher.in_run(run.decode()))
        if how != "text" and self._kinds:
            found += self._eight_bytes(content)
        return found

    def _counts(self, content: bytes, at: int, name: bytes, joined: bool) -> bool:
        before, after = content[at - 1 : at] if at else b"", content[at + len(name) : at + len(name) + 1]
        if not before.isalnum() and not after.isalnum():
            return True
        longer = map(str.encode, self.matcher.longer)
        return joined and not any(
            content.startswith(word, at - inside) for word in longer for inside in _places(word, name) if at >= inside
        )

    def _eight_bytes(self, content: bytes) -> Counter[str]:
        found = Counter[str]()
        for values, table in self._orders:
            for offset in range(8):
                count = (len(content) - offset) // 8
                if count <= 0:
                    continue
                # Two bytes tell nearly all places from what is looked for.
                low = numpy.frombuffer(content, "<u2", count=count * 4, offset=offset)[::4]
                places = numpy.flatnonzero(table[low])
                if len(places):
                    here = numpy.frombuffer(content, values.dtype, count=count, offset=offset)[places]
                    for number in here[numpy.isin(here, values)].tolist():
                        found[self._kinds[number]] += 1
        return found


def _table(values: numpy.ndarray) -> numpy.ndarray:
    table = numpy.zeros(65536, dtype=bool)
    table[numpy.frombuffer(values.tobytes(), "<u2")[::4]] = True
    return table


def _spellings(name: str) -> tuple[bytes, ...]:
    """The identifier as it is written in UTF-8, UTF-16, JSON, HTML and addresses."""
    written = {name.encode(), name.encode("utf-16-le"), name.encode("utf-16-be"), json.dumps(name)[1:-1].encode()}
    return tuple(sorted(written | {html.escape(name).encode(), quote(name).encode(), quote(name, safe="").encode()}))


def _places(content: bytes, name: bytes) -> list[int]:
    places, at = [], content.find(name)
    while at >= 0:
        places.append(at)
        at = content.find(name, at + 1)
    return places


def _runs(content: bytes) -> Iterable[bytes]:
    """Runs of ten and more hex digits; where there are few, the bytes between are stepped over."""
    is_hex = _IS_HEX[numpy.frombuffer(content, numpy.uint8)[::_STEP]]
    places = numpy.flatnonzero(is_hex[:-1] & is_hex[1:]) * _STEP
    if len(places) > len(content) // 200:
        yield from _RUN.findall(content)
        return
    done = 0
    for place in places.tolist():
        if place < done:
            continue
        start = max(done, place - _STEP)
        match = _RUN.search(content, start, place + 2 * _STEP + _AROUND)
        if match is None:
            continue
        # The run may begin before and go on after the part that was looked at.
        begin, end = match.span()
        while begin > done and _IS_HEX[content[begin - 1]]:
            begin -= 1
        while end < len(content) and _IS_HEX[content[end]]:
            end += 1
        yield content[begin:end]
        done = end
