"""What holds between tables: each contract is about one row of numbers that are measured on several of them.

Nearly every number counts what must not be there, so its rule is that it is 0.
"""

import pyarrow as pa

from data_contracts.contract import Column, Contract, between, finite

MOST_SHARE_LOST = 0.25
"""A cut moves back to the start of its second, so a part may be smaller than asked; by more than this the seconds are too coarse."""


def _relation(name: str, counts: dict[str, str], shares: dict[str, tuple[str, float]] | None = None) -> Contract:
    shares = shares or {}
    columns = [Column(each, pa.int64(), sentence) for each, sentence in counts.items()]
    columns += [Column(each, pa.float64(), sentence) for each, (sentence, _) in shares.items()]
    rules = [between(each, 0, 0) for each in counts]
    for each, (_, most) in shares.items():
        rules += [finite(each), between(each, 0, most)]
    return Contract(name, tuple(columns), tuple(rules))


EXAMPLES_RELATION = _relation(
    "examples and their interactions",
    {
        "leaking_rows": "Training rows as new as a validation row, and validation rows as new as a test row.",
        "unknown_examples": "Examples whose number no stored interaction bears.",
        "candidates_in_history": "Rows whose history holds the very item that is asked about.",
        "held_out_users_in_training": "Users with rows both in training or validation and held out.",
        "uneven_histories": "Rows that show another number of ratings than of items.",
    },
    {
        "train_share_lost": ("How much of the asked training share the cut at whole seconds took.", MOST_SHARE_LOST),
        "validation_share_lost": ("How much of the asked shares of training and validation together it took.", MOST_SHARE_LOST),
    },
)
REQUEST_RELATION = _relation(
    "forget request and its examples",
    {
        "misplaced_marks": "Marks that do not stand in the place of their example.",
        "users_forgotten_and_retained": "Users who are forgotten as a whole, and of whom training rows are retained.",
        "held_out_users_forgotten": "Users who are held out and forgotten.",
        "forgotten_rows_told_anew": "Rows that are told without an interaction although they do not stay themselves.",
        "gone_rows_marked_otherwise": "Rows that go and are not marked as forgotten, and rows that stay and are.",
    },
)
TOKENS_RELATION = _relation(
    "tokens and their examples",
    {
        "misplaced_rows": "Rows whose number, part or label is not that of the example in their place.",
        "further_endings": "Endings of prompts beyond the one that all must share; an answer written into prompts would make a second one.",
    },
)
LOGITS_RELATION = _relation(
    "teachers' outputs and their rows",
    {
        "unknown_rows": "Rows that the request does not hold in that part.",
        "missing_rows": "Rows of the request that have no outputs, where all must have them.",
        "differing_labels": "Rows whose label is not that of their tokens.",
    },
)
SCORES_RELATION = _relation(
    "scores and their rows",
    {"unknown_rows": "Rows that the tokens do not hold.", "differing_labels": "Rows whose label is not that of their tokens."},
)
