"""The questions that a model is trained and tested on: one prompt and one yes-or-no answer a row, in the order of time."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, between, finite, matches, one_of, sorted_by, unique
from data_contracts.interactions import LAST_TIMESTAMP_S


class ExamplesTable(Contract):
    """Column names of `EXAMPLES`."""

    example_id: ClassVar[str] = "example_id"
    user_id: ClassVar[str] = "user_id"
    item_id: ClassVar[str] = "item_id"
    timestamp_s: ClassVar[str] = "timestamp_s"
    split: ClassVar[str] = "split"
    prompt: ClassVar[str] = "prompt"
    label: ClassVar[str] = "label"
    rating: ClassVar[str] = "rating"


EXAMPLES = ExamplesTable(
    name="examples",
    columns=(
        Column(ExamplesTable.example_id, pa.int64(), "The row's number; ascending numbers are ascending time."),
        Column(ExamplesTable.user_id, pa.string(), "The user whose answer the row asks for.", personal=True),
        Column(ExamplesTable.item_id, pa.string(), "The item that the row asks about."),
        Column(ExamplesTable.timestamp_s, pa.int64(), "When the user rated the item, in whole seconds since 1970, UTC."),
        Column(ExamplesTable.split, pa.string(), "What the row is for: train, validation, test or holdout."),
        # A prompt tells what a user has seen and liked, which is as good as a name.
        Column(ExamplesTable.prompt, pa.string(), "What the model reads.", personal=True),
        Column(ExamplesTable.label, pa.int8(), "1 where the user liked the item, else 0."),
        Column(ExamplesTable.rating, pa.float32(), "The rating behind the label, on the dataset's own scale within 0 to 10."),
    ),
    rules=(
        unique(ExamplesTable.example_id),
        sorted_by(ExamplesTable.example_id),
        between(ExamplesTable.timestamp_s, 0, LAST_TIMESTAMP_S),
        sorted_by(ExamplesTable.timestamp_s),
        one_of(ExamplesTable.split, "train", "validation", "test", "holdout"),
        matches(ExamplesTable.prompt, r"\S"),
        one_of(ExamplesTable.label, 0, 1),
        finite(ExamplesTable.rating),
        between(ExamplesTable.rating, 0, 10),
    ),
)
