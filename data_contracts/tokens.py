"""The prompts as token ids: what every training and scoring stage reads, made once from the examples."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, one_of, unique


class TokensTable(Contract):
    """Column names of `TOKENS`."""

    example_id: ClassVar[str] = "example_id"
    user: ClassVar[str] = "user"
    split: ClassVar[str] = "split"
    label: ClassVar[str] = "label"
    token_ids: ClassVar[str] = "token_ids"


TOKENS = TokensTable(
    name="tokens",
    columns=(
        Column(TokensTable.example_id, pa.int64(), "The example; rows stand in the order of time."),
        # Rows of one user stay together where users are drawn, sharded or judged; the name itself is not needed for that.
        Column(TokensTable.user, pa.int64(), "The row's user as a number that is the same in every run.", personal=True),
        Column(TokensTable.split, pa.string(), "What the row is for: train, validation, test or holdout."),
        Column(TokensTable.label, pa.int8(), "1 where the user liked the item, else 0."),
        # Token ids are the prompt in another writing, so they tell as much of a user.
        Column(TokensTable.token_ids, pa.list_(pa.int32()), "The prompt's tokens.", personal=True),
    ),
    rules=(
        unique(TokensTable.example_id),
        one_of(TokensTable.split, "train", "validation", "test", "holdout"),
        one_of(TokensTable.label, 0, 1),
    ),
)
