"""Finds a user's tables and opens them lazily: CSV, NDJSON or Parquet; one file, a folder, a glob, or an address in an object store.

Text formats are read as text throughout, so that nobody guesses a type from the first rows; what the text means is decided by the
dataset, where an unreadable value becomes a named fault instead of a null.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from e2urec_core.data.object_stores import CHECK, files_at, is_remote, stamp
from e2urec_core.data.unreadable import reading, refuse_odd_text
from e2urec_core.errors import BadInput

if TYPE_CHECKING:
    import polars

Format = Literal["csv", "ndjson", "parquet"]
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}
PACKED = (".gz", ".zst")
FILE, LINE = "file", "line"
"""Columns that `Files.scan` adds: the file's name, and the row's number in it, from 1; of CSV the line, if no field holds line ends."""
PLACE = " line"
WILD = re.compile(r"[*?\[]")
NOTHING = "__HIVE_DEFAULT_PARTITION__"
"""What a `key=value` folder is called where the value is missing."""


@dataclass(frozen=True)
class Files:
    """Files of one format.

    Args:
        paths: Local paths or addresses, sorted.
        format: What they are written in.
        root: What the user named.
    """

    paths: tuple[str, ...]
    format: Format
    root: str

    def names(self) -> list[str]:
        """The files' names below what the user named, for messages and the quarantine."""
        if self.paths == (self.root,):
            return [PurePosixPath(self.root).name]
        return [_below(path, _fixed(self.root)[0]) for path in self.paths]

    def scan(self, separator: str = ",", wanted: tuple[str, ...] = ()) -> polars.LazyFrame:
        """All rows, with `file` and `line`. Text formats give text columns; Parquet keeps its types; `key=value` folders are text columns.

        Rows of text formats all of whose fields are missing, such as blank lines, are passed over. Nothing is read before it is
        collected. Columns of the files' own that are called `file` or `line` are not given.

        Args:
            separator: Between the fields of a CSV file.
            wanted: Columns for which an NDJSON file is read to its end, where its first rows do not have them.

        Raises:
            BadInput: A file's header cannot be read.
        """
        import polars as pl

        with reading(self.root, self.paths):
            parts = [self._one(path, name, separator, wanted) for path, name in zip(self.paths, self.names(), strict=True)]
            return pl.concat(parts, how="diagonal_relaxed")

    def _one(self, path: str, name: str, separator: str, wanted: tuple[str, ...]) -> polars.LazyFrame:
        import polars as pl

        if self.format == "parquet":
            rows = pl.scan_parquet(path, row_index_name=PLACE, row_index_offset=1, hive_partitioning=False, glob=False)
        elif self.format == "csv":
            if not is_remote(path):
                refuse_odd_text(Path(path))
            tab = re.sub(r"\.(gz|zst)$", "", path.lower()).endswith(".tsv")
            rows = pl.scan_csv(
                path,
                separator="\t" if tab else separator,
                infer_schema=False,
                row_index_name=PLACE,
                # The header is line 1.
                row_index_offset=2,
                glob=False,
                raise_if_empty=len(self.paths) == 1,
            )
        else:
            schema = dict.fromkeys(_json_names(path, wanted), pl.String)
            rows = pl.scan_ndjson(unglobbed(path), schema=schema, row_index_name=PLACE, row_index_offset=1)
        own = [each for each in rows.collect_schema().names() if each != PLACE]
        if self.format != "parquet" and own:
            rows = rows.filter(~pl.all_horizontal(pl.col(each).is_null() for each in own))
        folders = {key: pl.lit(value, pl.String) for key, value in _of_folders(path).items() if key not in own}
        kept = [each for each in own if each not in (FILE, LINE)]
        return rows.select(*kept, **folders, **{LINE: pl.col(PLACE), FILE: pl.lit(name)})

    def fingerprint(self) -> str:
        """SHA-256 over names and bytes of local files; over names, sizes and times of change of remote ones.

        Raises:
            BadInput: A file cannot be read, or the store does not answer.
        """
        digest = hashlib.sha256()
        for path, name in zip(self.paths, self.names(), strict=True):
            if is_remote(path):
                digest.update(f"{name} {stamp(path)}\n".encode())
                continue
            try:
                with open(path, "rb") as file:
                    digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
            except OSError as error:
                raise BadInput(f"`{path}` cannot be read: {error.strerror}", hint="mend the file's rights or copy it again") from error
        return digest.hexdigest()


def find(path: str, format: Format | None = None) -> Files:
    """The files behind a path, folder, glob or address.

    Args:
        path: What the user named.
        format: What the files are written in; without it, their ending tells.

    Raises:
        BadInput: There is no such file, or files of several formats lie together.
    """
    hint = "name a file, a folder or a glob such as `data/*.parquet`"
    fixed, is_glob = _fixed(path)
    if is_remote(path):
        hint = CHECK
        found = files_at(fixed)
        if is_glob:
            found = [each for each in found if _matches(path.split("/"), each.split("/"))]
    elif os.path.isdir(path):
        found = [str(each) for each in Path(path).rglob("*") if each.is_file()]
    elif is_glob:
        found = [each for each in glob.glob(path, recursive=True) if Path(each).is_file()]
    else:
        found = [path] if os.path.isfile(path) else []
    named = found == [path]
    asked = any(part.startswith((".", "_")) for part in path[len(fixed) :].split("/"))
    paths = sorted(each for each in found if named or asked or not _hidden(_below(each, fixed)))
    if not paths:
        there = f"`{path}` holds none" if not is_remote(path) and os.path.isdir(path) else f"there is no `{path}`"
        raise BadInput(f"0 files found: {there}", hint=hint)
    known = {each: _format_of(each) for each in paths}
    if format is not None:
        # What is named is read; of a folder what has this ending, or else what has none, or else all.
        same, bare = ([each for each, of in known.items() if of == wanted] for wanted in (format, None))
        return Files(tuple(paths if named else same or bare or paths), format, path)
    formats = {each for each in known.values() if each is not None}
    if len(formats) != 1:
        counts = ", ".join(f"{list(known.values()).count(each)} {each}" for each in sorted(formats)) or "none of a known format"
        raise BadInput(
            f"`{path}` holds {len(paths):,} files of {len(formats)} known formats: {counts}",
            hint=f"name files of one format ({', '.join(ENDINGS)}), or say `--dataset.format`",
        )
    return Files(tuple(each for each, of in known.items() if of), formats.pop(), path)


def _json_names(path: str, wanted: tuple[str, ...]) -> list[str]:
    """Names of an NDJSON file's fields: of its first rows, or of all where the first have not all that are wanted."""
    import polars as pl

    names = pl.scan_ndjson(unglobbed(path), infer_schema_length=1000).collect_schema().names()
    return names if set(wanted) <= set(names) else pl.scan_ndjson(unglobbed(path), infer_schema_length=None).collect_schema().names()


def _of_folders(path: str) -> dict[str, str | None]:
    """What the names of folders such as `country=de` say, as Hive, Spark and pyarrow write them."""
    told = [part.partition("=") for part in path.split("/")[:-1] if "=" in part]
    return {key: None if value == NOTHING else unquote(value) for key, _, value in told if key}


def unglobbed(path: str) -> str:
    """A path as `polars.scan_ndjson` must be told it: that takes every path for a glob, and offers no way out."""
    return path if is_remote(path) else glob.escape(path)


def _fixed(path: str) -> tuple[str, bool]:
    """The folder in which all files of a glob lie, and whether the path is a glob at all; a file may have brackets in its name."""
    wild = WILD.search(path)
    if wild is None or (not is_remote(path) and os.path.isfile(path)):
        return path, False
    return path[: path.rfind("/", 0, wild.start()) + 1], True


def _matches(pattern: list[str], parts: list[str]) -> bool:
    """Whether the parts of an address match those of a glob; `*` stays within a part, `**` is any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(pattern[1:] or ["*"], parts[start:]) for start in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(pattern[1:], parts[1:])


def _format_of(path: str) -> Format | None:
    name = PurePosixPath(path).name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return ENDINGS.get(PurePosixPath(name).suffix)


def _below(path: str, folder: str) -> str:
    return path.removeprefix(folder.rstrip("/") + "/") if is_remote(path) else os.path.relpath(path, folder or ".")


def _hidden(name: str) -> bool:
    """Whether a part of the name starts as those do that programs write for themselves."""
    return any(part.startswith((".", "_")) for part in name.split("/"))
