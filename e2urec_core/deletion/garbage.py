"""What of a store nobody needs: which artifacts may go, oldest first, and how many bytes that frees.

Whatever is kept keeps what it was made from: an artifact with a missing ancestor cannot show whom it was made from, and the next erasure
would have to take it for made from whoever is erased. Files that several artifacts share are freed with the last of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2urec_core.artifacts import Artifact
from e2urec_core.deletion.removal import folder_of
from e2urec_core.store import Store

ANCESTOR = "what is kept was made from it"
UNNEEDED = "nobody needs it"
WITHIN_BUDGET = "nobody needs it, and the budget has room"


@dataclass(frozen=True)
class Stored:
    """An artifact as it lies in the store.

    Args:
        handle: The artifact.
        published_s: When it was published, seconds since 1970.
        files: Bytes of its files, by where the store keeps them.
    """

    handle: Artifact
    published_s: float
    files: Mapping[Hashable, int]


@dataclass(frozen=True)
class Fate:
    """What becomes of one artifact.

    Args:
        stored: The artifact.
        goes: Whether it is removed.
        why: Why, or why not.
        num_bytes: Bytes that its removal frees, where it goes; else what it holds that nothing before it in the list does.
    """

    stored: Stored
    goes: bool
    why: str
    num_bytes: int


def measured(store: Store, handles: Iterable[Artifact]) -> list[Stored]:
    """Artifacts with the sizes of their files, oldest first; one that is gone meanwhile is left out."""
    found = []
    for handle in handles:
        try:
            found.append(Stored(handle, *store.measure(folder_of(store, handle))))
        except FileNotFoundError:
            continue
    return sorted(found, key=lambda each: (each.published_s, each.handle.digest))


def with_ancestors(stored: Sequence[Stored], needed: Mapping[str, str]) -> dict[str, str]:
    """Digests of what is needed, and of everything that it was made from, each with the reason.

    Args:
        stored: All artifacts.
        needed: Reasons by digest.
    """
    parents = {each.handle.digest: each.handle.parents for each in stored}
    told, waiting = dict(needed), list(needed)
    while waiting:
        for parent in parents.get(waiting.pop(), ()):
            if parent not in told:
                told[parent] = ANCESTOR
                waiting.append(parent)
    return told


def fates(stored: Sequence[Stored], needed: Mapping[str, str], budget: int | None = None) -> list[Fate]:
    """What becomes of every artifact, in the order given, which is that in which they go.

    Args:
        stored: All artifacts, oldest first.
        needed: Reasons by digest, of what must stay; see `with_ancestors`.
        budget: Bytes that the artifacts may take together; none removes whatever is not needed.

    >>> old, new = (Stored(Artifact(digest=d * 64), float(n), {(0, n): 10}) for n, d in enumerate("ab"))
    >>> [fate.goes for fate in fates([old, new], {}, budget=10)]
    [True, False]
    """
    holders = Counter(file for each in stored for file in each.files)
    taken = sum({file: size for each in stored for file, size in each.files.items()}.values())
    told, seen = [], set[Hashable]()
    for each in stored:
        why = needed.get(each.handle.digest)
        if why is None and (budget is None or taken > budget):
            freed = sum(size for file, size in each.files.items() if holders[file] == 1)
            holders.subtract(each.files.keys())
            taken -= freed
            told.append(Fate(each, True, UNNEEDED, freed))
        else:
            told.append(Fate(each, False, why or WITHIN_BUDGET, sum(size for file, size in each.files.items() if file not in seen)))
            seen |= each.files.keys()
    return told


def bytes_below(folders: Iterable[Path]) -> int:
    """Bytes of all files in and below some folders or files, those that lie there under several names once."""
    told = [path.lstat() for folder in folders for path in (folder, *folder.rglob("*")) if path.is_file()]
    return sum({(each.st_dev, each.st_ino): each.st_size for each in told}.values())
