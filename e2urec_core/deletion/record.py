"""What the erasure for each request has found and erased, written down as it goes: a night that is killed must still be able to tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from e2urec_core.disk import write_whole
from e2urec_core.receipts.receipt import Digest, ErasedArtifact, Found
from e2urec_core.settings import Settings

FOLDER = "erasures"
NOTHING = Found(interactions=0, examples={}, artifacts=0, model_versions=0)


class ErasureRecord(Settings):
    """What was found and erased for one request, which holds counts and digests and nobody's name."""

    found: Found = NOTHING
    """What was there of it when its erasure began."""
    artifacts: dict[Digest, str] = Field({})
    """Kinds of the artifacts that were erased, by digest."""
    places: dict[str, int] = Field({})
    """Erased files, rows and versions, by the place where they lay."""
    interactions_before: Digest | None = None
    """The stored interactions that it was among."""
    interactions_after: Digest | None = None
    """The same without it."""
    left: tuple[str, ...] = ()
    """What others must still do, as a sentence each."""

    def then(self, now: ErasureRecord) -> ErasureRecord:
        """What is known after a further try: what was found first, all that went, and what is left now."""
        # A later try finds less, because an earlier one has erased some of it.
        return ErasureRecord(
            found=self.found if self.found != NOTHING else now.found,
            artifacts={**self.artifacts, **now.artifacts},
            places=largest((self.places, now.places)),
            interactions_before=self.interactions_before or now.interactions_before,
            interactions_after=now.interactions_after or self.interactions_after,
            left=now.left,
        )

    def erased(self) -> tuple[ErasedArtifact, ...]:
        """The erased artifacts as a receipt lists them."""
        return tuple(ErasedArtifact(kind=kind, digest=digest) for digest, kind in sorted(self.artifacts.items()))

    def data(self) -> dict[str, str]:
        """Digests of the data before and after, as a receipt lists them."""
        told = {"interactions_before": self.interactions_before, "interactions_after": self.interactions_after}
        return {name: digest for name, digest in told.items() if digest is not None}


class ErasureRecords:
    """The records of the requests whose erasure is under way, a file each, so that a night with further requests finds them."""

    def __init__(self, workspace: Path, requests: Iterable[str]) -> None:
        """Read the records of `requests`; one that is not there, or of which a kill has left half, is empty."""
        self._folder = workspace / FOLDER
        self._records = {request: _read(self._folder / f"{request}.json") for request in requests}

    def __getitem__(self, request: str) -> ErasureRecord:
        """The record of a request."""
        return self._records[request]

    @property
    def places(self) -> dict[str, int]:
        """How much has gone, by the place where it lay; requests that were erased together share their counts."""
        return largest(record.places for record in self._records.values())

    def note(self, now: ErasureRecord, found: Mapping[str, Found] | None = None) -> None:
        """Write down, of every request, what is known now.

        Args:
            now: What goes for all of them.
            found: What was there of each, by request.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for request, before in self._records.items():
            own = now.model_copy(update={"found": (found or {}).get(request, NOTHING)})
            self._records[request] = before.then(own)
            write_whole(self._folder / f"{request}.json", self._records[request].model_dump_json(indent=1))

    def close(self) -> None:
        """Remove the files: the receipts tell it now."""
        for request in self._records:
            (self._folder / f"{request}.json").unlink(missing_ok=True)


def largest(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The largest of each count."""
    told: dict[str, int] = {}
    for each in counts:
        told |= {name: max(count, told.get(name, 0)) for name, count in each.items()}
    return dict(sorted(told.items()))


def _read(path: Path) -> ErasureRecord:
    try:
        return ErasureRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return ErasureRecord()
