"""Searches a workspace twice: first for the user's rows, whose numbers are not known beforehand, then for everything.

Nothing is taken from manifests, journals or names of files, nothing is written into the workspace, and links out of it are not
followed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa

from e2urec_core.errors import BadInput
from e2urec_core.pseudonyms import existing_pseudonyms
from e2urec_core.scanning.databases import search_server
from e2urec_core.scanning.matching import Matcher
from e2urec_core.scanning.places import FileSearch, Told
from e2urec_core.scanning.raw import RawMatcher
from e2urec_core.scanning.shelves import Shelf
from e2urec_core.scanning.tables import found_rows
from e2urec_core.scanning.targets import KINDS, UNREADABLE, Targets


@dataclass(frozen=True)
class Scanned:
    """What a search found.

    Args:
        places: Each place with what was found there, sorted; it never holds what was looked for.
        summary: One sentence on what was looked at, with numbers.
    """

    places: tuple[str, ...]
    summary: str


class Scan:
    """A search of one workspace for one user; further places, such as a tracking server, may be added before it is told."""

    def __init__(self, workspace: Path, targets: Targets, beside: Sequence[Shelf] = ()) -> None:
        """Find the user's rows in `workspace`, and make everything out of `targets` that is looked for.

        Args:
            workspace: Its folder.
            targets: What tells of the user.
            beside: What is searched like it, such as a store that lies elsewhere.

        Raises:
            BadInput: There is no such folder.
            BadKey: The key of the pseudonyms is damaged, or others may read it.
        """
        if not workspace.is_dir():
            raise BadInput("there is no workspace to look through", facts={"workspace": workspace}, hint="name one with `--workspace`")
        self.workspace, self._beside = workspace, beside
        ids, items, others = _first_pass(workspace, Matcher(targets), beside)
        pseudonyms = existing_pseudonyms(workspace)
        targets = targets.with_examples(ids)
        self.targets = targets.with_pseudonyms(pseudonyms, items) if pseudonyms else targets
        self.matcher, self.told = Matcher(self.targets), Told()
        self.matcher.longer |= others
        self._files = FileSearch(self.matcher, RawMatcher(self.matcher), self.told)

    def run(self) -> None:
        """Search every file below the workspace and beside it, and the names of files and folders."""
        self.folder(self.workspace, "")
        for shelf in self._beside:
            for folder, called in shelf.folders(tables_only=False):
                self.folder(folder, called)

    def folder(self, folder: Path, called: str) -> None:
        """Search every file below a folder, which is called `called` in what is told."""

        def refused(error: OSError) -> None:
            name = os.path.relpath(error.filename or folder, folder)
            self.told.add(self.matcher.hidden(os.path.join(called, name)), Counter({UNREADABLE: 1}))

        for path in _paths(folder, refused):
            name = os.path.join(called, str(path.relative_to(folder)))
            shown = self.matcher.hidden(name)
            self.told.add(f"{shown} (its name)", self._own_name(path, name))
            if path.is_file() and not path.is_symlink():
                self._files.file(path, shown)

    def file(self, path: Path, called: str) -> None:
        """Search one file that lies outside of the workspace, and the log and journal of a database beside it."""
        for each in (path, *(Path(f"{path}{end}") for end in ("-wal", "-journal"))):
            if each == path or each.exists():
                self._files.file(each, self.matcher.hidden(called + str(each)[len(str(path)) :]))

    def server(self, url: str, called: str) -> None:
        """Search the tables of a database on a server.

        Raises:
            StorageFailed: It cannot be reached or read.
        """
        shown, found, _ = search_server(url, self.matcher)
        self.told.num_databases += 1
        for table, what in found.items():
            self.told.add(self.matcher.hidden(f"{called} {shown} table {table}"), what)

    def values(self, place: str, values: Iterable[tuple[str, object]]) -> None:
        """Search fields and values that belong together and were asked of a server."""
        self.told.add(self.matcher.hidden(place), self.matcher.record(list(values)))

    def result(self) -> Scanned:
        """What was found so far."""
        places = [
            f"{self.matcher.hidden(place)}: {kind}, {count} time{'s' if count != 1 else ''}"
            for place, kinds in self.told.found.items()
            for kind, count in sorted(kinds.items())
        ]
        looked = [
            kind for kind in KINDS[2:] if kind in {*self.targets.numbers.values(), *(["pseudonym"] if self.targets.pseudonyms else [])}
        ]
        count = len(self.targets.pseudonyms) + len(self.targets.numbers)
        told = self.told
        summary = (
            f"looked through {told.num_files:,} files, {told.num_databases:,} databases, {told.num_bytes:,} bytes for the user's "
            f"{'interactions' if self.targets.items else 'identifier'} and {count:,} codes"
            f"{' (' + ', '.join(looked) + ')' if looked else ''}: {len(places):,} places found"
        )
        return Scanned(tuple(sorted(places)), summary)

    def _own_name(self, path: Path, name: str) -> Counter[str]:
        # Of a folder's name only its own part is told, so that it is not told again for everything inside.
        above = os.path.dirname(name)
        found = self.matcher.text(name) - self.matcher.text(above + os.sep if above else "")
        return found + self.matcher.text(os.readlink(path)) if path.is_symlink() else found


def example_ids(workspace: Path, user: str, items: Iterable[str] = (), beside: Sequence[Shelf] = ()) -> list[int]:
    """Numbers of the user's rows in a workspace, sorted: what to keep before a deletion and to give to the search after it."""
    return sorted(_first_pass(workspace, Matcher(Targets.of(user, items)), beside)[0])


def _first_pass(workspace: Path, matcher: Matcher, beside: Sequence[Shelf]) -> tuple[set[int], set[str], set[str]]:
    ids, items, others = set[int](), set[str](), set[str]()
    folders = chain([workspace], (folder for shelf in beside for folder, _ in shelf.folders(tables_only=True)))
    for path in chain.from_iterable(_paths(folder, lambda _: None) for folder in folders):
        if path.is_symlink() or not path.is_file() or not _is_parquet(path):
            continue
        try:
            here = found_rows(path, matcher)
        except (pa.ArrowException, OSError, ValueError, TypeError):
            continue
        ids |= here[0]
        items |= here[1]
        others |= here[2]
    return ids, items, others


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def _paths(folder: Path, refused: Callable[[OSError], None]) -> Iterator[Path]:
    """Everything below a folder, in order; links are told and not followed."""
    for root, folders, files in os.walk(folder, onerror=refused, followlinks=False):
        folders.sort()
        yield from (Path(root, name) for name in sorted([*folders, *files]))
