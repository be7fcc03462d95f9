"""What goes into the ledger about deletion requests and comes out of it, and the one table of how a request may move.

Who a request is about is in `NewRequest` and `Identity` alone; neither shows it when it is printed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from e2urec_core.artifacts import canonical_json
from e2urec_core.errors import BadInput
from e2urec_core.ledger.records import DIGEST
from e2urec_core.settings import Settings

Scope = Literal["user", "interaction"]
Reason = Literal["privacy", "pollution"]
Source = Literal["command", "import", "http", "restore"]
State = Literal[
    "received",
    "verified",
    "queued",
    "claimed",
    "built",
    "gated",
    "promoted",
    "purged",
    "certified",
    "rejected",
    "no_data",
    "cancelled",
    "legal_hold",
    "needs_human",
]

MOVES: Mapping[State, tuple[State, ...]] = {
    "received": ("verified", "cancelled", "rejected", "legal_hold"),
    "verified": ("queued", "cancelled", "rejected", "legal_hold"),
    "queued": ("claimed", "needs_human", "cancelled", "rejected", "legal_hold"),
    "claimed": ("built", "no_data", "queued", "needs_human"),
    "built": ("gated", "queued", "needs_human"),
    "gated": ("promoted", "queued", "needs_human"),
    "promoted": ("purged", "queued"),
    "purged": ("certified",),
    "certified": (),
    "no_data": (),
    "cancelled": (),
    "rejected": (),
    "needs_human": ("queued", "cancelled", "rejected", "legal_hold"),
    "legal_hold": ("received", "verified", "queued", "needs_human"),
}
"""From each state, the states that may follow it."""
UNCLAIMED: tuple[State, ...] = ("received", "verified", "queued", "needs_human", "legal_hold")
"""Nobody works on these; a later cut-off may still extend them."""
IN_FLIGHT: tuple[State, ...] = ("claimed", "built", "gated", "promoted", "purged")
"""A run works on these, and every change names its epoch."""
CLOSED: tuple[State, ...] = ("certified", "no_data", "cancelled", "rejected")
"""Nothing follows these."""

# No control characters: they have no place in a name, and PostgreSQL takes no NUL.
Identifier = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
RequestId = Annotated[str, StringConstraints(pattern=r"^r-[0-9a-f]{16}$")]


class NewRequest(Settings):
    """What somebody asks for, as it comes in."""

    model_config = ConfigDict(hide_input_in_errors=True)

    user_id: Identifier = Field(repr=False)
    """The data's own name of the user."""
    items: tuple[Identifier, ...] = Field((), max_length=1000, repr=False)
    """Items of the single interactions to forget; none asks for everything of the user."""
    reason: Reason = "privacy"
    """The user asks (`privacy`), or the data is bad (`pollution`)."""
    note: str = Field("", max_length=500, pattern=r"^[^\x00]*$", repr=False)
    """Free text for whoever looks at the request; treated as personal."""
    requested_at: AwareDatetime | None = None
    """When it was asked for; rows up to then are forgotten. Default: when it is received."""

    @field_validator("items")
    @classmethod
    def _each_once_in_order(cls, items: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(items)))

    @field_validator("requested_at")
    @classmethod
    def _in_utc(cls, moment: datetime | None) -> datetime | None:
        return moment and moment.astimezone(UTC)

    @property
    def scope(self) -> Scope:
        """Everything of the user, or single interactions."""
        return "interaction" if self.items else "user"

    @classmethod
    def read(cls, told: Mapping[str, object] | bytes) -> NewRequest:
        """What a command or a JSON document asks for.

        Raises:
            BadInput: A field is not as it should be; names the field and never what stands in it.
        """
        try:
            return cls.model_validate_json(told) if isinstance(told, bytes) else cls.model_validate(told)
        except ValidationError as error:
            wrong = {
                str(each["loc"][0]) if each["loc"] and each["loc"][0] in cls.model_fields else "the whole": each["msg"]
                for each in error.errors(include_url=False, include_input=False, include_context=False)
            }
            raise BadInput(
                f"{len(wrong)} of {len(cls.model_fields)} fields of the request are not as they should be: {', '.join(wrong)}",
                facts={name: "it is no JSON object of these fields" if name == "the whole" else said for name, said in wrong.items()},
                hint=f"the fields are {', '.join(cls.model_fields)}; a time has its zone, such as 2026-01-31T12:00:00Z",
            ) from None


class RequestRecord(Settings):
    """A request as the ledger holds it, without the person."""

    id: RequestId
    """Its public name, random."""
    number: int = Field(ge=1)
    """Its place in the order of arrival."""
    subject: str = Field(pattern=r"^[0-9a-f]{20}$")
    """Random name of the person in this request: what events, releases and receipts call them."""
    scope: Scope
    """Everything of the user, or single interactions."""
    reason: Reason
    """The user asks, or the data is bad."""
    source: Source
    """How it came in."""
    commitment: str = Field(pattern=DIGEST)
    """See `commitment_of`."""
    requested_at: AwareDatetime
    """When it was asked for, UTC."""
    received_at: AwareDatetime
    """When it came in, UTC."""
    covers_until: AwareDatetime
    """Rows up to this time are forgotten, UTC."""
    due_at: AwareDatetime
    """When it must be done, UTC."""
    state: State
    """How far it has come."""
    held_from: State | None = None
    """State to which it returns when a legal hold ends."""
    approved: bool
    """Whether a person has looked at it; then it may be one of many in a night."""
    attempts: int = Field(ge=0)
    """Nights that have failed since it came in or was approved; one that was taken back has not."""
    epoch: int | None = Field(None, ge=1)
    """Epoch of the run that has moved it last."""
    run: str | None = None
    """Name of that run."""
    model: str | None = Field(None, pattern=DIGEST)
    """Digest of the recommender that has forgotten it."""
    release: str | None = Field(None, pattern=DIGEST)
    """Bundle of the release that has forgotten it."""
    receipt: str | None = Field(None, pattern=DIGEST)
    """Digest of its receipt."""
    changed_at: AwareDatetime
    """When it last changed, UTC."""


class Identity(Settings):
    """Who a request is about, for as long as the ledger holds it."""

    user_id: str | None = Field(repr=False)
    """The data's own name of the user; gone once the request is purged or closed."""
    items: tuple[str, ...] = Field(repr=False)
    """Items of the single interactions, sorted."""
    note: str | None = Field(repr=False)
    """What was noted with it."""
    nonce: str | None = Field(repr=False)
    """64 hex digits that open the commitment; gone once the request is closed."""


class Claim(Settings):
    """What a run has to carry out, and the epoch that it names with every change."""

    epoch: int = Field(ge=1)
    """Number of the claim; it is refused once there is a later one."""
    requests: tuple[RequestRecord, ...]
    """Those claimed now, by due date."""
    unfinished: tuple[RequestRecord, ...]
    """Those that earlier runs have left between `claimed` and `purged`, as they stand."""


class RequestRule(Settings):
    """How requests are treated."""

    due_days: int = Field(30, ge=1, le=90)
    """Days from receipt within which a request must be done."""
    verify_days: int = Field(7, ge=1, le=90)
    """Days after which a request that nobody has verified is rejected."""
    max_attempts: int = Field(3, ge=1, le=100)
    """Failed nights after which a person must look at a request."""
    approval_share: float = Field(0.01, gt=0, le=1)
    """Share of all users that one night forgets without a person's approval; one user always."""
    trust_http: bool = False
    """Whether requests that come by HTTP need no `e2urec requests verify`."""


def commitment_of(nonce: str, user_id: str, items: Sequence[str] = ()) -> str:
    """What is kept of a person: SHA-256 over a nonce and the canonical JSON of `user` and, where there are any, `items`, sorted.

    Whoever has the nonce can show that a request was about them; without it, nothing can be told from the digest.

    Args:
        nonce: 64 hex digits, hashed as 32 bytes.
        user_id: The data's own name of the user.
        items: Of single interactions.

    >>> commitment_of("00" * 32, "7")[:12]
    '471d32812f52'
    """
    told = {"user": user_id} | ({"items": sorted(items)} if items else {})
    return hashlib.sha256(bytes.fromhex(nonce) + canonical_json(told).encode()).hexdigest()
