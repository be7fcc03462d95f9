"""What a receipt says, and what a change of keys says: the two documents of the chain.

A receipt holds no identifier of a person. It holds a commitment, which its subject can open with the number that they were given.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator

from e2urec_core.artifacts import canonical_json
from e2urec_core.errors import BadReceipt
from e2urec_core.receipts.envelope import ALGORITHM, KEY_ID
from e2urec_core.release.verdict import Gate
from e2urec_core.settings import Settings

CLAIMS: Final = "States the process and the measured gates; it does not claim that forgetting is mathematically certain."
NO_LINK = "0" * 64
NONCE_BYTES = 32


def _utc(moment: datetime) -> datetime:
    if moment.utcoffset() != timedelta(0):
        raise ValueError("the time is not UTC")
    return moment


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Count = Annotated[int, Field(ge=0)]
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
Sentence = Annotated[str, Field(min_length=1, max_length=500)]


class Found(Settings):
    """What of the subject was there when the request was carried out."""

    interactions: Count
    """Stored interactions."""
    examples: dict[Name, Count]
    """Examples by part of the split."""
    artifacts: Count
    """Artifacts of the store that were made from their rows."""
    model_versions: Count
    """Versions of the registered model that were trained on their rows."""


class ErasedArtifact(Settings):
    """One artifact that is gone."""

    kind: Name
    """Kind of the artifact."""
    digest: Digest
    """Its digest."""


class Erased(Settings):
    """What was erased."""

    artifacts: tuple[ErasedArtifact, ...] = ()
    """The artifacts, each once, wherever it lay."""
    places: dict[Name, Count] = Field({})
    """Erased files, rows or versions, by the place where they lay."""


class Kept(Settings):
    """Something that was kept on purpose."""

    what: Sentence
    """What was kept."""
    why: Sentence
    """What it is needed for."""
    legal_basis: Sentence
    """By what right it is kept."""


class KeptRule(Settings):
    """The words for what is kept on purpose."""

    suppression_basis: Sentence = "GDPR Art. 6(1)(c) with Art. 17(3)(b): the entry serves the duty to erase."
    """Legal basis of the suppression entry; have your lawyers agree to it."""

    def suppression(self) -> Kept:
        """The entry that keeps erased data from coming back with an old export or backup."""
        return Kept(
            what="An entry of the suppression list: a keyed hash and a time, no identifier.",
            why="Data from before the request is dropped when an old export or a backup brings it back.",
            legal_basis=self.suppression_basis,
        )


class Forgetter(Settings):
    """The model that has forgotten."""

    version: int = Field(ge=1)
    """Version of the registered model."""
    bundle: Digest
    """Digest of its bundle."""


class MeasuredGate(Settings):
    """What one gate measured."""

    name: Name
    """Name of the gate."""
    value: float | None
    """What was measured; null where it could not be."""
    low: float | None
    """Smallest value that passes; null where there is none."""
    high: float | None
    """Largest value that passes; null where there is none."""
    passed: bool
    """Whether the model passed."""
    blind: bool
    """Whether the gate would hardly refuse a model that forgot nothing."""

    @classmethod
    def of(cls, gate: Gate) -> MeasuredGate:
        """The gate of a verdict."""
        return cls(name=gate.name, value=gate.value, low=gate.low, high=gate.high, passed=gate.passed, blind=bool(gate.blind))

    @model_validator(mode="after")
    def _passes_inside_its_bounds_alone(self) -> Self:
        inside = self.value is not None and (self.low is None or self.low <= self.value) and (self.high is None or self.value <= self.high)
        if self.passed and not inside:
            raise ValueError(f"the gate {self.name} is said to be passed outside its bounds")
        return self


class Retention(Settings):
    """How long the models before stayed there for a rollback."""

    hours: float = Field(ge=0)
    """Hours they were kept after the promotion."""
    ended_at: Moment
    """When they were erased, UTC."""


class Facts(Settings):
    """What the caller knows of a request that is done: everything in a receipt but its place in the chain."""

    request: str = Field(pattern=r"^r-[0-9a-f]{16}$")
    """Public id of the request."""
    subject: str = Field(pattern=r"^[0-9a-f]{20}$")
    """What releases and events call the person: random digits that were made from nothing of theirs."""
    scope: Literal["user", "interaction"]
    """Whether everything of a user was to be forgotten, or single interactions."""
    reason: Literal["privacy", "pollution"]
    """Why it was asked for."""
    requested_at: Moment
    """When the subject asked, UTC."""
    received_at: Moment
    """When the request came in, UTC."""
    outcome: Literal["forgotten", "no_data", "rejected", "cancelled"]
    """What came of it."""
    found: Found
    """What was there."""
    erased: Erased = Erased()
    """What was erased."""
    kept: tuple[Kept, ...] = ()
    """What was kept on purpose."""
    model: Forgetter | None = None
    """The model in production that has forgotten; null unless the outcome is `forgotten`."""
    gates: tuple[MeasuredGate, ...] = ()
    """What was measured of that model."""
    retention: Retention | None = None
    """How long earlier models were kept; null where none were."""
    data: dict[Name, Digest] = Field({})
    """Digests of the data, by what it is."""
    run: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,128}$")
    """Name of the run that carried it out; empty where there was none."""
    commitment: Digest
    """SHA-256 over the subject's number and their identifier; see `commitment`."""

    @model_validator(mode="after")
    def _tells_what_follows_from_the_outcome(self) -> Self:
        if (self.model is not None) != (self.outcome == "forgotten"):
            raise ValueError(f"a model has forgotten exactly where the outcome is `forgotten`, not `{self.outcome}`")
        if self.gates and self.model is None:
            raise ValueError("gates were measured of no model")
        if self.outcome in ("rejected", "cancelled") and (self.erased.artifacts or self.erased.places):
            raise ValueError(f"nothing is erased for a request that is {self.outcome}")
        return self


class Link(Settings):
    """One signed document of the chain."""

    schema_version: Literal[1] = 1
    """Version of this schema; it rises when a field changes its meaning or goes."""
    id: str = Field(pattern=r"^(receipt|key)-[0-9a-f]{16}$")
    """Id of the document."""
    number: int = Field(ge=1)
    """Its place in the chain."""
    previous: Digest
    """SHA-256 of the file before it in the chain; zeros in the first."""
    issued_at: Moment
    """When it was written, UTC."""
    program: str = Field(pattern=r"^e2urec [0-9A-Za-z.+-]{1,32}$")
    """Program and version that wrote it."""
    algorithm: Literal["Ed25519"] = ALGORITHM
    """How it is signed."""
    payload_type: ClassVar[str]

    @model_validator(mode="after")
    def _begins_the_chain_with_zeros(self) -> Self:
        if (self.number == 1) != (self.previous == NO_LINK):
            raise ValueError(f"link {self.number} cannot follow {self.previous}")
        return self

    @property
    def file_name(self) -> str:
        """Name of its file."""
        return f"{self.number:06d}-{self.id}.json"

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """The document in a payload.

        Raises:
            BadReceipt: A field is missing, unknown, given twice or not what it should be.
        """
        try:
            json.loads(payload, object_pairs_hook=_given_once)
            return cls.model_validate_json(payload, strict=True)
        except (ValidationError, ValueError, RecursionError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            said = f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}" if first else str(error)
            raise BadReceipt(f"breaks the schema: {said}", hint="ask its issuer what it means") from None

    def to_payload(self) -> bytes:
        """The bytes to be signed."""
        return canonical_json(self.canonical()).encode()


class Receipt(Link, Facts):
    """What was done about one deletion request."""

    claims: Literal["States the process and the measured gates; it does not claim that forgetting is mathematically certain."] = CLAIMS
    """What the receipt claims, and what it does not."""
    key: str = Field(pattern=KEY_ID)
    """Id of the key that signs it."""
    payload_type: ClassVar[str] = "application/vnd.e2urec.receipt+json"

    def opens(self, nonce: bytes, user: str, items: Iterable[str] = ()) -> bool:
        """Whether this receipt is about `user`, or about these interactions of theirs.

        Args:
            nonce: The 32 bytes that the subject was given.
            user: Their identifier.
            items: The items, in any order, where the scope is `interaction`.
        """
        return hmac.compare_digest(commitment(nonce, user, items), self.commitment)


class Rotation(Link):
    """One key hands over to the next; signed by both, so that trust in either is trust in the other."""

    retired: Digest
    """The key that signed so far, raw, in hex."""
    successor: Digest
    """The key that signs from here on, raw, in hex."""
    payload_type: ClassVar[str] = "application/vnd.e2urec.key-rotation+json"


def commitment(nonce: bytes, user: str, items: Iterable[str] = ()) -> str:
    """What binds a receipt to a person without naming them: SHA-256 of the nonce and the canonical JSON of `{user[, items]}`.

    Args:
        nonce: 32 random bytes that the subject is given and nobody keeps.
        user: Identifier of the user.
        items: The items of an interaction request; their order does not matter.

    >>> commitment(bytes(32), "7")[:16], commitment(bytes(32), "7", ["b", "a"]) == commitment(bytes(32), "7", ["a", "b"])
    ('471d32812f52f178', True)
    """
    assert len(nonce) == NONCE_BYTES
    named: dict[str, Any] = {"user": user} | ({"items": sorted(set(items))} if (items := list(items)) else {})
    return hashlib.sha256(nonce + canonical_json(named).encode()).hexdigest()


def _given_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(given := dict(pairs)) != len(pairs):
        raise ValueError("a field is given twice")
    return given
