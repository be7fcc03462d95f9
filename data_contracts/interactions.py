"""Who rated what, and when: the tables that every dataset becomes before anything else happens."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, between, finite, one_of, sorted_by, unique

LAST_TIMESTAMP_S = 4_102_444_800
"""2100-01-01 00:00:00 UTC. Milliseconds of any date after 17 February 1970 lie above it, so a wrong unit is noticed."""


class InteractionsTable(Contract):
    """Column names of `INTERACTIONS`."""

    interaction_id: ClassVar[str] = "interaction_id"
    user_id: ClassVar[str] = "user_id"
    item_id: ClassVar[str] = "item_id"
    rating: ClassVar[str] = "rating"
    timestamp_s: ClassVar[str] = "timestamp_s"
    label: ClassVar[str] = "label"


INTERACTIONS = InteractionsTable(
    name="interactions",
    columns=(
        Column(InteractionsTable.interaction_id, pa.int64(), "A number made of user, item and moment: the same in every run."),
        Column(InteractionsTable.user_id, pa.string(), "The dataset's own name of the user.", personal=True),
        Column(InteractionsTable.item_id, pa.string(), "The dataset's own name of the item."),
        Column(InteractionsTable.rating, pa.float32(), "The rating on the dataset's own scale; missing where it has none.", nullable=True),
        Column(
            InteractionsTable.timestamp_s,
            pa.int64(),
            "When the user rated, in whole seconds since 1970, UTC; between 1970 and 2100, which milliseconds would overshoot.",
        ),
        Column(InteractionsTable.label, pa.int8(), "1 where the user liked the item, else 0."),
    ),
    rules=(
        finite(InteractionsTable.rating),
        between(InteractionsTable.timestamp_s, 0, LAST_TIMESTAMP_S),
        one_of(InteractionsTable.label, 0, 1),
        unique(InteractionsTable.interaction_id),
        sorted_by(InteractionsTable.timestamp_s),
    ),
)


class ItemsTable(Contract):
    """Column names of `ITEMS`."""

    item_id: ClassVar[str] = "item_id"
    title: ClassVar[str] = "title"


ITEMS = ItemsTable(
    name="items",
    columns=(
        Column(ItemsTable.item_id, pa.string(), "The dataset's own name of the item."),
        Column(ItemsTable.title, pa.string(), "What a prompt calls the item."),
    ),
    rules=(unique(ItemsTable.item_id),),
)


class UsersTable(Contract):
    """Column names of `USERS`."""

    user_id: ClassVar[str] = "user_id"
    profile: ClassVar[str] = "profile"
    cohort: ClassVar[str] = "cohort"


USERS = UsersTable(
    name="users",
    columns=(
        Column(UsersTable.user_id, pa.string(), "The dataset's own name of the user.", personal=True),
        Column(UsersTable.profile, pa.string(), "One sentence about the user, as a prompt says it.", nullable=True, personal=True),
        Column(UsersTable.cohort, pa.string(), "A group of users that reports compare, such as an age band.", nullable=True),
    ),
    rules=(unique(UsersTable.user_id),),
)
