"""The prompts as token ids: what every training and scoring stage reads, made once from the examples."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, one_of, unique


class TokensTable(Contract):
    """Column names of `TOKENS`."""

    example_id: ClassVar[str] = "example_id"
    split: ClassVar[str] = "split"
    label: ClassVar[str] = "label"
    token_ids: ClassVar[str] = "token_ids"


TOKENS = TokensTable(
    name="tokens",
    columns=(
        Column(TokensTable.example_id, pa.int64(), "The example; rows stand in the order of time."),
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
