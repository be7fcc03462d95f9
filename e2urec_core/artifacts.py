"""Handles to what stages make: small, frozen and typed, a kind, a digest, and the digests it was made from.

Handles are what stages exchange; the bytes lie in the store (`store.py`). `parents` is the lineage that erasure follows.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from e2urec_core.settings import Settings


class Artifact(Settings):
    """Handle to one published folder of files."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over the names and digests of the files and over the parents."""
    parents: tuple[str, ...] = ()
    """Digests of the artifacts it was made from; the lineage that erasure follows."""
    rows: int = Field(0, ge=0)
    """Number of rows it holds, or was trained on."""
    made_by: str = ""
    """Stage that made it."""
    kind: ClassVar[str]
    inside: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.kind = cls.__name__

    @property
    def short(self) -> str:
        """First twelve digits of the digest, for people."""
        return self.digest[:12]


class Interactions(Artifact):
    """Ratings in time order, with the items' titles and the users' profiles."""


class Examples(Artifact):
    """Prompts with labels, each in its part of the split."""


class Tokens(Artifact):
    """The prompts as token ids, and their tokenizer."""


class ForgetRequest(Artifact):
    """Users or interactions to be forgotten, and the part that every row plays from then on."""


class Retold(Artifact):
    """Rows that stay but whose history shows a forgotten interaction, told without it, as token ids of the same tokenizer."""


class Model(Artifact):
    """A network with its tokenizer."""


class Original(Model):
    """Network trained on all training rows: the model in production."""


class Augmented(Model):
    """The original, trained further on the forgotten rows alone."""


class Retrained(Model):
    """Network trained without the forgotten rows: the yardstick."""


class Shards(Model):
    """A network or an adapter for each shard of the users, trained before any request, and which user is in which."""


class Unlearned(Model):
    """Network after unlearning: merged weights, and the adapter that made them; or an ensemble of the shards that are left."""


class OriginalLogits(Artifact):
    """The original's outputs at the answer position on retained rows; later requests take them as they are."""


class TeacherLogits(Artifact):
    """Both teachers' outputs at the answer position on the rows to forget."""


class Scores(Artifact):
    """p(Yes) of every compared model on the rows it is judged by, and the measures taken from them."""


class HeldOutScores(Artifact):
    """p(Yes) of every training row by a network that never trained on its user."""


class Proposal(Artifact):
    """Users and interactions that are proposed to be forgotten, by name, and a page without names."""


class Report(Artifact):
    """The report as JSON and as a page."""


class Verdict(Artifact):
    """What every gate said of a recommender that is to be released."""


class Bundle(Model):
    """A recommender as it is released: one folder that MLflow's own tools serve, with its card and its probe."""

    inside: ClassVar[str] = "artifacts/bundle"


KINDS: dict[str, type[Artifact]] = {
    kind.kind: kind
    for kind in (
        Interactions,
        Examples,
        Tokens,
        ForgetRequest,
        Retold,
        Original,
        Augmented,
        Retrained,
        Shards,
        Unlearned,
        OriginalLogits,
        TeacherLogits,
        Scores,
        HeldOutScores,
        Proposal,
        Report,
        Verdict,
        Bundle,
    )
}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(value: Any) -> str:
    """SHA-256 of a plain JSON value, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
