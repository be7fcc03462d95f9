"""Rows that a rule kept out, as they stood in the file: what an operator needs to mend them, and nothing that a stage reads."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, matches


class QuarantineTable(Contract):
    """Column names of `QUARANTINE`."""

    rule: ClassVar[str] = "rule"
    file: ClassVar[str] = "file"
    line: ClassVar[str] = "line"
    user_id: ClassVar[str] = "user_id"
    item_id: ClassVar[str] = "item_id"
    rating: ClassVar[str] = "rating"
    time: ClassVar[str] = "time"


QUARANTINE = QuarantineTable(
    name="quarantine",
    columns=(
        Column(QuarantineTable.rule, pa.string(), "The first rule that the row breaks."),
        Column(QuarantineTable.file, pa.string(), "The file in which it stood."),
        Column(QuarantineTable.line, pa.int64(), "Its line in a text file, its number among the rows of a Parquet file, from 1."),
        Column(QuarantineTable.user_id, pa.string(), "Its user, as it stood.", nullable=True, personal=True),
        Column(QuarantineTable.item_id, pa.string(), "Its item, as it stood.", nullable=True, personal=True),
        Column(QuarantineTable.rating, pa.string(), "Its rating or click, as it stood.", nullable=True, personal=True),
        Column(QuarantineTable.time, pa.string(), "Its moment, as it stood.", nullable=True, personal=True),
    ),
    rules=(matches(QuarantineTable.rule, r"\S"),),
    min_rows=0,
)
