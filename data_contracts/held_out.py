"""What networks that never trained on a user answer to the user's own training rows: one row an example."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, between, finite, one_of, unique


class HeldOutTable(Contract):
    """Column names of `HELD_OUT`."""

    example_id: ClassVar[str] = "example_id"
    user: ClassVar[str] = "user"
    fold: ClassVar[str] = "fold"
    set_aside: ClassVar[str] = "set_aside"
    label: ClassVar[str] = "label"
    yes_probability: ClassVar[str] = "yes_probability"


HELD_OUT = HeldOutTable(
    name="held_out",
    columns=(
        Column(HeldOutTable.example_id, pa.int64(), "The training example that was scored."),
        Column(HeldOutTable.user, pa.int64(), "The user's number, a digest of the user's name.", personal=True),
        Column(HeldOutTable.fold, pa.int64(), "The user's fold; the network that answered trained on other folds alone."),
        Column(HeldOutTable.set_aside, pa.int8(), "1 where the user was suspected in the round before and trained no network, else 0."),
        Column(HeldOutTable.label, pa.int8(), "1 where the user liked the item, else 0."),
        Column(HeldOutTable.yes_probability, pa.float64(), "Probability of yes among the two answers, 0 to 1."),
    ),
    rules=(
        between(HeldOutTable.fold, 0, None),
        one_of(HeldOutTable.set_aside, 0, 1),
        one_of(HeldOutTable.label, 0, 1),
        finite(HeldOutTable.yes_probability),
        between(HeldOutTable.yes_probability, 0, 1),
        unique(HeldOutTable.example_id),
    ),
)
