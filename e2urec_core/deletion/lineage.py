"""What was made from whom: which artifacts must go when some stored rows must go.

Every manifest names what an artifact was made from. An artifact some of whose ancestors are no longer there cannot show that it was
made from nothing that has gone, and is treated as if it were.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from e2urec_core.artifacts import Artifact


def made_from(artifacts: Iterable[Artifact], dirty: Collection[str], kept: Collection[str]) -> list[Artifact]:
    """The artifacts that are dirty, were made from a dirty one, or may have been; without those that are kept.

    Args:
        artifacts: Everything that is stored.
        dirty: Digests of those that hold what must go.
        kept: Digests of those that are known to hold nothing of it, whatever they were made from.

    Returns:
        In the order in which they came.
    """
    stored = {artifact.digest: artifact for artifact in artifacts}
    told: dict[str, bool] = dict.fromkeys(kept, False) | dict.fromkeys(dirty, True)

    def is_dirty(digest: str) -> bool:
        # Chains are as long as a run has stages, so this never goes deep.
        if digest not in told:
            told[digest] = digest not in stored or any(is_dirty(parent) for parent in stored[digest].parents)
        return told[digest]

    return [artifact for artifact in stored.values() if is_dirty(artifact.digest)]
