"""What both teachers say at the answer position, once per example, so that the loss's knobs sweep without a teacher forward.

bytes = rows * 9 (example_id, label) + (2 * rows_forgotten + rows_retained) * width * 4 [+ rows * num_ids * 4 for the support]

A forgotten row keeps two teachers, a retained row only the original: the augmented teacher never scores it. Two answers (width 2) of
1,000,000 rows, a fifth of them forgotten, take 19 MB; a whole vocabulary of 32,128 takes 154 GB, which is why a support exists.
"""

from typing import ClassVar, Literal

import pyarrow as pa

from data_contracts.contract import Column, Contract, finite, one_of, unique

Part = Literal["forgotten", "retained"]
FLOAT_BYTES = 4
KEY_BYTES = 8 + 1
"""An int64 example_id and an int8 label."""


class TeacherLogitsTable(Contract):
    """Column names of a table of teacher logits."""

    example_id: ClassVar[str] = "example_id"
    label: ClassVar[str] = "label"
    original: ClassVar[str] = "original"
    augmented: ClassVar[str] = "augmented"
    support: ClassVar[str] = "support"
    states: ClassVar[str] = "states"


def teacher_logits(width: int, num_ids: int | None, part: Part = "forgotten", *, states: bool = False) -> TeacherLogitsTable:
    """The contract of a logit cache.

    Args:
        width: Outputs kept per row and teacher, >= 1.
        num_ids: Token ids kept per row where the vocabulary was cut down to a support, >= 1; None keeps no such column.
        part: Forgotten rows carry both teachers; retained rows have no column `augmented`, because that model never scores them.
        states: Whether the encoder's states are kept: tokens times width numbers a row, which the formula leaves out.
    """
    assert width >= 1, f"no cache is {width} wide"
    assert num_ids is None or num_ids >= 1, f"no support holds {num_ids} ids"
    columns = [
        Column(TeacherLogitsTable.example_id, pa.int64(), "The example that was scored."),
        Column(TeacherLogitsTable.label, pa.int8(), "1 where the user liked the item, else 0."),
        Column(TeacherLogitsTable.original, pa.list_(pa.float32(), width), "Answer logits of the model that still remembers."),
    ]
    rules = [unique(TeacherLogitsTable.example_id), one_of(TeacherLogitsTable.label, 0, 1), finite(TeacherLogitsTable.original)]
    if part == "forgotten":
        sentence = "Answer logits of the same model after further training on the forgotten rows."
        columns.append(Column(TeacherLogitsTable.augmented, pa.list_(pa.float32(), width), sentence))
        rules.append(finite(TeacherLogitsTable.augmented))
    if num_ids is not None:
        columns.append(Column(TeacherLogitsTable.support, pa.list_(pa.int32(), num_ids), "Token ids that the logits belong to."))
        rules.append(finite(TeacherLogitsTable.support))
    if states:
        columns.append(
            Column(TeacherLogitsTable.states, pa.large_binary(), "The original's encoder states, token by token, as raw floats.")
        )
    return TeacherLogitsTable("teacher_logits", tuple(columns), tuple(rules))


def cache_bytes(rows_forgotten: int, rows_retained: int, width: int, num_ids: int | None) -> int:
    """Size of a logit cache in bytes before compression, by the formula at the head; a few KB of file footer come on top.

    >>> cache_bytes(200_000, 800_000, 2, None)
    18600000
    """
    rows = rows_forgotten + rows_retained
    return rows * KEY_BYTES + (2 * rows_forgotten + rows_retained) * width * FLOAT_BYTES + rows * (num_ids or 0) * FLOAT_BYTES
