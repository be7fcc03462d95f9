"""Turns what libraries say of a file that is no table into one sentence with the place and a hint.

Their own messages go on with the offending text, which may name a user; nothing of them is shown.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from e2urec_core.data.object_stores import CHECK, is_remote, why
from e2urec_core.errors import BadInput

BYTES_LOOKED_AT = 1 << 20
AGAIN = "copy the file again"
RAGGED, NO_JSON, NO_OBJECT, NOT_UTF_8, CUT, DAMAGED, OTHER = (
    "a line has more fields than the header",
    "a line is no JSON",
    "a line is no JSON object",
    "it is not UTF-8",
    "it ends in the middle",
    "its packed bytes are damaged",
    "its bytes are not those of the format",
)
ONE_OBJECT = "write one object in each line, as UTF-8 without a byte order mark"
CONVERT = "convert it by `iconv -f LATIN1 -t UTF-8`"
CAUSES = {
    "more fields than defined": (RAGGED, "quote fields that hold the separator"),
    "invalidutf8": (NOT_UTF_8, CONVERT),
    "valid utf-8": (NOT_UTF_8, CONVERT),
    "expected to contain json object": (NO_OBJECT, ONE_OBJECT),
    "error parsing line": (NO_JSON, ONE_OBJECT),
    "tapeerror": (NO_JSON, ONE_OBJECT),
    "syntax at character": (NO_JSON, ONE_OBJECT),
    "could not parse": ("a quoted field never ends", "close the quotes, or double those that belong to the text"),
    "csv malformed": ("a quote stands inside a field", "put fields that hold quotes into quotes, and double those inside"),
    "invalid utf8": (NOT_UTF_8, CONVERT),
    "gzip header": ("it is not packed as its name says", AGAIN),
    "unexpected end of file": (CUT, AGAIN),
    "corrupt": (DAMAGED, AGAIN),
    "out of specification": (OTHER, AGAIN),
    "magic": (OTHER, AGAIN),
    "supertype": ("its files give one column types that do not go together", "write the column with one type in all files"),
    "no such file": ("there is no such file", "name a file, a folder or a glob"),
    "permission denied": ("it may not be read", "mend the file's rights"),
}
"""By what Polars says, in lower case, the fact and the hint."""


class reading:
    """Refuses a file that cannot be read as a table: `with reading(path): ...`.

    Args:
        path: What the user named.
        files: The files that are read, where `path` is a folder; the first that is wrong is named.
    """

    def __init__(self, path: str, files: Sequence[str] = ()) -> None:
        self.path = path
        self.files = tuple(files) or ((path,) if not is_remote(path) and os.path.isfile(path) else ())

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        import polars as pl

        said, faults = str(error), pl.exceptions
        if isinstance(error, faults.NoDataError) or (isinstance(error, faults.ComputeError) and "empty reader" in said):
            raise BadInput(f"`{self.path}` is empty: 0 rows", hint="copy the file again, or name another") from None
        # Polars panics over some damaged Parquet files. An error of the disk has a number, and is none of the file's.
        of_bytes = isinstance(error, faults.ComputeError | faults.PanicException | FileNotFoundError)
        of_types = isinstance(error, faults.SchemaError | faults.InvalidOperationError) and ("supertype" in said or "decode" in said)
        if of_bytes or of_types or (isinstance(error, OSError) and (error.errno is None or is_remote(self.path))):
            raise self._refusal(said) from None

    def _refusal(self, said: str) -> BadInput:
        if is_remote(self.path) and (wrong := why(said)) is not None:
            return BadInput(f"`{self.path}` cannot be read: {wrong}", hint=CHECK)
        found = (cause for mark, cause in CAUSES.items() if mark in said.lower())
        fact, hint = next(found, (OTHER, AGAIN))
        return BadInput(f"`{self.path}` cannot be read as a table: {fact}", facts=self._place(fact), hint=hint)

    def _place(self, fact: str) -> dict[str, object]:
        """The file and the line, from a second look at the files; only done once something is wrong."""
        local = [Path(each) for each in self.files if not is_remote(each)]
        for file in local:
            found = first_wrong(file, fact)
            if found:
                return {"file": file.name, **found}
        return {}


def first_wrong(path: Path, fact: str) -> dict[str, object]:
    """Where a file is wrong in the way that a fact of `CAUSES` says; empty if it is not, or where nobody can tell."""
    if path.suffix == ".zst":
        return {}
    lines = re.search(r"\.(json|jsonl|ndjson)(\.gz)?$", path.name.lower()) is not None
    try:
        if fact == RAGGED and not lines:
            return first_ragged(path)
        if fact in (NO_JSON, NO_OBJECT, NOT_UTF_8) and lines:
            return _first_no_object(path)
        if fact in (CUT, DAMAGED) and path.suffix == ".gz":
            return _damaged(path)
    except (OSError, EOFError, csv.Error):
        return {}
    return {}


def first_ragged(path: Path) -> dict[str, object]:
    """Line and number of fields of the first line with more fields than the header, and how many such lines there are.

    What stands most often in the header is taken for the separator.
    """
    with _text(path) as file:
        header = file.readline()
        separator = max(",\t;|", key=header.count)
        width = len(next(csv.reader([header], delimiter=separator)))
        rows = csv.reader(file, delimiter=separator)
        found: list[tuple[int, int]] = [(1 + rows.line_num, len(row)) for row in rows if len(row) > width]
    if not found:
        return {}
    return {"lines": f"{len(found):,}", "first line": found[0][0], "its fields": found[0][1], "the header's fields": width}


def refuse_odd_text(path: Path) -> None:
    """Refuse UTF-16 and NUL bytes, which a CSV reader would take for letters; looks at the first MiB.

    Raises:
        BadInput: The file is no UTF-8 text.
    """
    if path.suffix == ".zst":
        return
    try:
        with gzip.open(path) if _is_packed(path) else path.open("rb") as file:
            head = file.read(BYTES_LOOKED_AT)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise BadInput(f"`{path}` cannot be read as a table: {CUT}, or {DAMAGED}", facts=first_wrong(path, CUT), hint=AGAIN) from None
    except OSError as error:
        raise BadInput(f"`{path}` cannot be read: {error.strerror}", hint="mend the file's rights or copy it again") from error
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise BadInput(
            f"`{path.name}` looks like UTF-16, or holds NUL bytes: {head.count(0):,} in its first {len(head):,} bytes",
            hint="convert it by `iconv -f UTF-16 -t UTF-8`, or copy it again if it was damaged",
        )


def _first_no_object(path: Path) -> dict[str, object]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                whole = isinstance(json.loads(line.decode("utf-8")), dict)
            except ValueError:
                whole = False
            if not whole:
                return {"first line": number}
    return {}


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _damaged(path: Path) -> dict[str, object]:
    size = 0
    with gzip.open(path, "rb") as file:
        try:
            while some := file.read(BYTES_LOOKED_AT):
                size += len(some)
        except (OSError, EOFError, zlib.error):
            return {"whole up to": f"{size:,} bytes, unpacked"}
    return {}


def _text(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8", errors="replace")
    return path.open(newline="", encoding="utf-8-sig", errors="replace")
