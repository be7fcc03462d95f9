"""The questions that a model is trained and tested on, in the order of time: an item, what came before it, and a yes-or-no answer.

The history is kept as places in the table of items; the prompt's text is written where it is tokenised.
"""

from dataclasses import replace
from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, between, finite, one_of, sorted_by, unique
from data_contracts.interactions import LAST_TIMESTAMP_S


class ExamplesTable(Contract):
    """Column names of `EXAMPLES`."""

    example_id: ClassVar[str] = "example_id"
    user_id: ClassVar[str] = "user_id"
    item_id: ClassVar[str] = "item_id"
    timestamp_s: ClassVar[str] = "timestamp_s"
    split: ClassVar[str] = "split"
    item: ClassVar[str] = "item"
    history: ClassVar[str] = "history"
    history_ratings: ClassVar[str] = "history_ratings"
    label: ClassVar[str] = "label"
    rating: ClassVar[str] = "rating"


EXAMPLES = ExamplesTable(
    name="examples",
    columns=(
        Column(ExamplesTable.example_id, pa.int64(), "The interaction's number: the same in every run."),
        Column(ExamplesTable.user_id, pa.string(), "The user whose answer the row asks for.", personal=True),
        Column(ExamplesTable.item_id, pa.string(), "The item that the row asks about."),
        Column(ExamplesTable.item, pa.int32(), "Its place in the table of items, from 0."),
        Column(ExamplesTable.timestamp_s, pa.int64(), "When the user rated the item, in whole seconds since 1970, UTC."),
        Column(ExamplesTable.split, pa.string(), "What the row is for: train, validation, test or holdout."),
        Column(ExamplesTable.label, pa.int8(), "1 where the user liked the item, else 0."),
        Column(ExamplesTable.rating, pa.float32(), "The rating behind the label, on the dataset's own scale.", nullable=True),
        # A history tells what a user has seen and liked, which is as good as a name.
        Column(ExamplesTable.history, pa.list_(pa.int32()), "Places of the items met before, oldest first.", personal=True),
        Column(ExamplesTable.history_ratings, pa.list_(pa.float32()), "Their ratings, missing where there are none.", personal=True),
    ),
    rules=(
        unique(ExamplesTable.example_id),
        between(ExamplesTable.timestamp_s, 0, LAST_TIMESTAMP_S),
        sorted_by(ExamplesTable.timestamp_s),
        one_of(ExamplesTable.split, "train", "validation", "test", "holdout"),
        one_of(ExamplesTable.label, 0, 1),
        finite(ExamplesTable.rating),
    ),
)
# A request may change no history, and then it tells nothing anew.
TOLD_ANEW = replace(EXAMPLES, min_rows=0)


class GoneTable(Contract):
    """Column names of `GONE`."""

    example_id: ClassVar[str] = "example_id"


GONE = GoneTable(
    name="gone",
    columns=(Column(GoneTable.example_id, pa.int64(), "An example that is no longer there once the request is carried out."),),
    rules=(unique(GoneTable.example_id),),
    min_rows=0,
)
