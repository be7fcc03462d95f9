"""Rewrites stored data without what a request forgets: what the next model is made from, once everything older is erased.

Nothing of the forgotten is carried over, so the new artifacts do not count the old ones among their parents.
"""

from __future__ import annotations

from e2urec_core.artifacts import Examples, ForgetRequest, Interactions, Retold, Tokens
from e2urec_core.data import pruning
from e2urec_core.data.named import read_named
from tasks._stage import Work, stage


@stage("prune-interactions", writes=Interactions, cleansed=("rows", "request"))
def prune_interactions(work: Work, rows: Interactions, request: ForgetRequest) -> int:
    """Rewrite the stored interactions without the request's users and single interactions."""
    return pruning.prune_interactions(work.open(rows), *read_named(work.open(request)), work.place)


@stage("prune-examples", writes=Examples, cleansed=("examples", "request"))
def prune_examples(work: Work, examples: Examples, request: ForgetRequest, rows: Interactions) -> int:
    """Rewrite the examples without the rows that go, and with the changed ones as they are told now; `rows` are the pruned ones."""
    # What is written is held against the rows that were opened.
    work.open(rows)
    return pruning.prune_examples(work.open(examples), work.open(request), work.place)


def prune_rows(rows: Interactions, examples: Examples, request: ForgetRequest) -> tuple[Interactions, Examples]:
    """Rewrite the stored interactions, and the examples that were cut from them, without what the request names."""
    left = prune_interactions(rows, request)
    return left, prune_examples(examples, request, left)


@stage("prune-tokens", writes=Tokens, cleansed=("tokens", "request", "retold"))
def prune_tokens(work: Work, tokens: Tokens, request: ForgetRequest, retold: Retold | None, examples: Examples) -> int:
    """Rewrite the token rows likewise, the changed ones from `retold`; `examples` are the pruned ones."""
    # What is written is held against the examples that were opened.
    work.open(examples)
    told = work.open(retold) if retold else None
    return pruning.prune_tokens(work.open(tokens), work.open(request), told, work.place)
