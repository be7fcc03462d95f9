"""What each model answers to each example of an evaluation, in long form: one row per example and model."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, between, finite, matches, one_of, unique


class ScoresTable(Contract):
    """Column names of `SCORES`."""

    example_id: ClassVar[str] = "example_id"
    label: ClassVar[str] = "label"
    group: ClassVar[str] = "group"
    model: ClassVar[str] = "model"
    yes_probability: ClassVar[str] = "yes_probability"


SCORES = ScoresTable(
    name="scores",
    columns=(
        Column(ScoresTable.example_id, pa.int64(), "The example that was scored."),
        Column(ScoresTable.label, pa.int8(), "1 where the user liked the item, else 0."),
        Column(
            ScoresTable.group, pa.string(), "Which rows the example belongs to: validation, test, forgotten, holdout or forgotten_test."
        ),
        Column(ScoresTable.model, pa.string(), "Which model answered, such as original, retrained or unlearned."),
        Column(ScoresTable.yes_probability, pa.float64(), "Probability of yes among the two answers, 0 to 1."),
    ),
    rules=(
        one_of(ScoresTable.label, 0, 1),
        one_of(ScoresTable.group, "validation", "test", "forgotten", "holdout", "forgotten_test"),
        matches(ScoresTable.model, r"\S"),
        finite(ScoresTable.yes_probability),
        between(ScoresTable.yes_probability, 0, 1),
        unique(ScoresTable.example_id, ScoresTable.model),
    ),
)
