"""What an erasure has found and erased, written down as it goes: a night that is killed must still be able to say it on the receipts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from e2urec_core.artifacts import Artifact, digest_of
from e2urec_core.receipts.receipt import Digest, ErasedArtifact, Found
from e2urec_core.settings import Settings
from e2urec_core.store import write_whole

FOLDER = "erasures"


class ErasureRecord(Settings):
    """What one night's requests found and erased; holds names of requests, counts and digests, and nobody's name."""

    found: dict[str, Found] = Field({})
    """Of each request, what was there."""
    artifacts: dict[Digest, str] = Field({})
    """Kinds of the artifacts that were erased, by digest."""
    places: dict[str, int] = Field({})
    """Erased files, rows and versions, by the place where they lay."""
    data: dict[str, Digest] = Field({})
    """Digests of the data before and after."""
    left: tuple[str, ...] = ()
    """What others must still do, as a sentence each."""

    @classmethod
    def read(cls, path: Path) -> ErasureRecord:
        """The record in a file, or an empty one where there is none or a kill has left half of one."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return cls()

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(path, self.model_dump_json(indent=1))

    def with_found(self, found: Mapping[str, Found]) -> ErasureRecord:
        """With what requests have found; what was noted of a request before, when more was there, stays."""
        return self.model_copy(update={"found": {**found, **self.found}})

    def with_artifacts(self, artifacts: Iterable[Artifact]) -> ErasureRecord:
        """With further artifacts that are to be erased."""
        return self.model_copy(update={"artifacts": {**self.artifacts, **{each.digest: each.kind for each in artifacts}}})

    def with_places(self, places: Mapping[str, int]) -> ErasureRecord:
        """With counts of what goes, from a plan; where an earlier plan found more, some of it has gone since, and its count stays."""
        names = sorted({*self.places, *places})
        return self.model_copy(update={"places": {name: max(self.places.get(name, 0), places.get(name, 0)) for name in names}})

    def erased(self) -> tuple[ErasedArtifact, ...]:
        """The erased artifacts as a receipt lists them."""
        return tuple(ErasedArtifact(kind=kind, digest=digest) for digest, kind in sorted(self.artifacts.items()))


def record_file(workspace: Path, requests: Iterable[str]) -> Path:
    """Where the record of these requests lies; the same for the same requests, so that a later night finds it."""
    return workspace / FOLDER / f"{digest_of(sorted(requests))[:16]}.json"
