"""What a person or an operator asks to be forgotten: all of a user, or one interaction."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, matches, one_of, present_when, unique


class DeletionRequestTable(Contract):
    """Column names of `DELETION_REQUEST`."""

    request_id: ClassVar[str] = "request_id"
    scope: ClassVar[str] = "scope"
    user_id: ClassVar[str] = "user_id"
    item_id: ClassVar[str] = "item_id"
    reason: ClassVar[str] = "reason"
    requested_at: ClassVar[str] = "requested_at"


DELETION_REQUEST = DeletionRequestTable(
    name="deletion_request",
    columns=(
        Column(DeletionRequestTable.request_id, pa.string(), "The request's own name, which says nothing about the user."),
        Column(DeletionRequestTable.scope, pa.string(), "user: forget everything of the user; interaction: forget one rating."),
        Column(DeletionRequestTable.user_id, pa.string(), "The dataset's own name of the user.", personal=True),
        Column(DeletionRequestTable.item_id, pa.string(), "The item of the one interaction; missing for a whole user.", nullable=True),
        Column(DeletionRequestTable.reason, pa.string(), "privacy: the user asks; pollution: the data is bad."),
        # Parquet knows no seconds, so a coarser unit would come back as another type.
        Column(DeletionRequestTable.requested_at, pa.timestamp("us", tz="UTC"), "When the request arrived, UTC."),
    ),
    rules=(
        matches(DeletionRequestTable.request_id, r"\S"),
        unique(DeletionRequestTable.request_id),
        one_of(DeletionRequestTable.scope, "user", "interaction"),
        one_of(DeletionRequestTable.reason, "privacy", "pollution"),
        # A whole-user request that names an item would leave open how much to forget.
        present_when(DeletionRequestTable.item_id, DeletionRequestTable.scope, "interaction"),
    ),
)
