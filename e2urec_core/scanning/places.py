"""Searches one file by what its bytes are, whatever it is called; packed files are opened, members and all."""

from __future__ import annotations

import io
import sqlite3
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from e2urec_core.scanning.databases import BESIDE, MAGIC, search_sqlite
from e2urec_core.scanning.matching import Matcher, total
from e2urec_core.scanning.raw import OVERLAP_BYTES, PIECE_BYTES, How, RawMatcher
from e2urec_core.scanning.tables import search_parquet
from e2urec_core.scanning.targets import UNREADABLE
from e2urec_core.scanning.texts import head_of_safetensors, search_text

PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
MOST_TEXT_BYTES, DEEPEST = 2**28, 4


@dataclass
class Told:
    """What was found, by place and kind, and how much was looked at."""

    found: dict[str, Counter[str]] = field(default_factory=dict)
    num_files: int = 0
    num_databases: int = 0
    num_bytes: int = 0

    def add(self, place: str, found: Counter[str]) -> None:
        """Note what was found; a kind that was found there before, as values are before bytes, keeps its count."""
        if +found:
            self.found[place] = Counter({**+found, **self.found.get(place, Counter())})


@dataclass(frozen=True)
class FileSearch:
    """Searches files.

    Args:
        matcher: For values and texts.
        raw: For bytes.
        told: Gathers what is found.
    """

    matcher: Matcher
    raw: RawMatcher
    told: Told

    def file(self, path: Path, place: str) -> None:
        """Search the file at `path`, called `place` where something is found."""
        try:
            with path.open("rb") as stream:
                head = stream.read(4096)
            self.told.num_files += 1
            self.told.num_bytes += path.stat().st_size
            if head.startswith(MAGIC):
                self._database(path, place)
            elif head.startswith(b"PAR1"):
                self._parquet(path, place)
            elif _is_packed(path, head):
                with path.open("rb") as stream:
                    self._packed(stream.read(), place, 1)
                self._bytes(path, place, "cells")
            elif _is_text(head) and not place.endswith(BESIDE):
                if path.stat().st_size <= MOST_TEXT_BYTES:
                    self.told.add(place, search_text(_decoded(path.read_bytes()), self.matcher))
                else:
                    with path.open(errors="replace") as lines:
                        self.told.add(place, total(search_text(line, self.matcher) for line in lines))
                self._bytes(path, place, "text")
            else:
                self._bytes(path, place, "cells" if self._head(path, place) else "joined")
        except OSError:
            self.told.add(place, Counter({UNREADABLE: 1}))

    def _database(self, path: Path, place: str) -> None:
        self.told.num_databases += 1
        named = Counter[str]()
        try:
            for table, found in search_sqlite(path, self.matcher).items():
                self.told.add(f"{place} table {table}" if table != "schema" else f"{place} schema", found)
                named += found
        except sqlite3.Error:
            self.told.add(place, Counter({UNREADABLE: 1}))
        raw = self._searched(path, "joined")
        # What stands in a row stands in the bytes, too.
        self.told.add(f"{place} pages", Counter({kind: count for kind, count in raw.items() if kind not in named}))

    def _parquet(self, path: Path, place: str) -> None:
        try:
            self.told.add(place, search_parquet(path, self.matcher))
        except (pa.ArrowException, OSError, ValueError, TypeError):
            self.told.add(place, Counter({UNREADABLE: 1}))
        self._bytes(path, place, "cells")

    def _head(self, path: Path, place: str) -> bool:
        """Search the head of a safetensors file; returns whether it is one."""
        with path.open("rb") as stream:
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            text = head_of_safetensors(start + stream.read(length)) if 2 <= length <= path.stat().st_size else None
        if text is not None:
            self.told.add(place, search_text(text, self.matcher))
        return text is not None

    def _bytes(self, path: Path, place: str, how: How) -> None:
        self.told.add(place, self._searched(path, how))

    def _searched(self, path: Path, how: How) -> Counter[str]:
        found, last = Counter[str](), b""
        with path.open("rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                content = last + piece
                here = self.raw.search(content, how)
                # What lies in the overlap was counted with the piece before.
                found += here - self.raw.search(last, how) if last else here
                last = content[-OVERLAP_BYTES:]
        return found

    def _packed(self, content: bytes, place: str, depth: int) -> None:
        """Search what is inside of packed bytes."""
        if depth > DEEPEST:
            self.told.add(place, Counter({UNREADABLE: 1}))
            return
        try:
            for name, inner in _members(content):
                inside = f"{place} member {name}" if name else place
                self.told.add(inside, self.matcher.text(name))
                self._inner(inner, inside, depth)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError):
            self.told.add(place, Counter({UNREADABLE: 1}))

    def _inner(self, content: bytes, place: str, depth: int) -> None:
        import tempfile

        if any(content.startswith(magic) for magic in (*PACKED, b"PK\x03\x04")) or tarfile.is_tarfile(io.BytesIO(content)):
            self.told.add(place, self.raw.search(content, "cells"))
            self._packed(content, place, depth + 1)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "member")
            path.write_bytes(content)
            files, size = self.told.num_files, self.told.num_bytes
            self.file(path, place)
            self.told.num_files, self.told.num_bytes = files, size


def _is_packed(path: Path, head: bytes) -> bool:
    return any(head.startswith(magic) for magic in (*PACKED, b"PK\x03\x04")) or (head[257:262] == b"ustar" and tarfile.is_tarfile(path))


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    codec = next((codec for magic, codec in PACKED.items() if content.startswith(magic)), None)
    if codec:
        with pa.CompressedInputStream(pa.BufferReader(content), codec) as stream:
            yield "", stream.read()
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                yield member.filename, archive.read(member)
    else:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                stored = archive.extractfile(entry) if entry.isfile() else None
                yield entry.name, stored.read() if stored else b""


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if b"\x00" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # A letter of several bytes may be cut off at the end.
        return error.start > len(head) - 4
    return True


def _decoded(content: bytes) -> str:
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return content.decode("utf-16" if wide else "utf-8-sig", errors="replace")
