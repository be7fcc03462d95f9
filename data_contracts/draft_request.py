"""Requests for deletion that nobody has made yet: users and interactions that a person may accept, each with what speaks against it."""

from typing import ClassVar

import pyarrow as pa

from data_contracts.contract import Column, Contract, between, finite, one_of, present_when
from data_contracts.deletion_request import DELETION_REQUEST, DeletionRequestTable


class _Evidence(Contract):
    score: ClassVar[str] = "score"
    q: ClassVar[str] = "q"
    rows: ClassVar[str] = "rows"


class DraftRequestTable(DeletionRequestTable, _Evidence):
    """Column names of `DRAFT_REQUEST`."""


class ProposedTable(_Evidence):
    """Column names of `PROPOSED`."""

    scope: ClassVar[str] = "scope"
    user_id: ClassVar[str] = "user_id"
    item_id: ClassVar[str] = "item_id"


_EVIDENCE = (
    Column(DraftRequestTable.score, pa.float64(), "Mean label quality of the rows, 0 to 1; the lower, the less their labels are expected."),
    Column(
        DraftRequestTable.q,
        pa.float64(),
        "Expected share of false alarms among this proposal and those with more against them, 0 to 1.",
    ),
    Column(DraftRequestTable.rows, pa.int64(), "Training rows that would be forgotten."),
)
_RULES = (
    finite(DraftRequestTable.score),
    between(DraftRequestTable.score, 0, 1),
    finite(DraftRequestTable.q),
    between(DraftRequestTable.q, 0, 1),
    between(DraftRequestTable.rows, 1, None),
)

DRAFT_REQUEST = DraftRequestTable(
    name="draft_request",
    columns=(*DELETION_REQUEST.columns, *_EVIDENCE),
    rules=(*DELETION_REQUEST.rules, *_RULES),
    min_rows=0,
)
# What a draft is made from: it has no names of requests and no time yet.
PROPOSED = ProposedTable(
    name="proposed",
    columns=(*(DELETION_REQUEST.column(name) for name in ("scope", "user_id", "item_id")), *_EVIDENCE),
    rules=(
        one_of(ProposedTable.scope, "user", "interaction"),
        present_when(ProposedTable.item_id, ProposedTable.scope, "interaction"),
        *_RULES,
    ),
    min_rows=0,
)
