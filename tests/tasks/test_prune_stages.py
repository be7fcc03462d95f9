"""The stages that rewrite stored data: what they give does not descend from what they read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from e2urec_core.backbones.tiny_t5 import TinyT5
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.split import SplitRule
from e2urec_core.datasets.sample import Sample

if TYPE_CHECKING:
    from tasks._room import Room

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]

BACKBONE = TinyT5(width=16, num_layers=1, num_heads=2, inner_width=32, vocabulary=400)


def test_what_is_left_descends_from_nothing_that_held_the_forgotten(room: Room, tmp_path: Path) -> None:
    from tasks.forget import choose_forgotten
    from tasks.ingest import ingest
    from tasks.prune import prune_examples, prune_interactions, prune_tokens
    from tasks.retell import retell_changed
    from tasks.split import split_by_time
    from tasks.tokenise import tokenise

    rows = ingest(Sample(num_users=40, ratings_per_user=12), IngestRule())
    examples = split_by_time(rows, HistoryRule(length=4, at_least=3), SplitRule(), 0)
    tokens = tokenise(rows, examples, PromptRule(), BACKBONE)
    trained = pl.read_parquet(room.store.open(examples) / "examples.parquet").filter(split="train").sort("timestamp_s")
    (user, _), (other, item) = trained.unique("user_id", keep="first", maintain_order=True).select("user_id", "item_id").rows()[:2]
    (tmp_path / "both.csv").write_text(f"user_id,item_id\n{user},\n{other},{item}\n")
    request = choose_forgotten(rows, examples, ForgetRule(deletions_file=tmp_path / "both.csv"), 0)
    retold = retell_changed(rows, request, tokens, PromptRule())
    assert retold is not None

    left = prune_interactions(rows, request)
    told = prune_examples(examples, request, left)
    coded = prune_tokens(tokens, request, retold, told)

    assert (left.parents, told.parents, coded.parents) == ((), (left.digest,), (told.digest,))
    assert 0 < left.rows < rows.rows
    assert 0 < told.rows == coded.rows < examples.rows
    dirty = {handle.digest for handle in (rows, examples, tokens, request, retold)}
    for handle in (left, told, coded):
        manifest = (room.store.open(handle) / "manifest.json").read_text()
        assert not [digest for digest in dirty if digest in manifest]
        keys = [path.read_text() for path in (room.store.root / "keys").iterdir()]
        noted = [text for text in keys if json.loads(text)["record"]["handle"]["digest"] == handle.digest]
        assert len(noted) == 1
        assert not [digest for digest in dirty if digest in noted[0]]

    # What they read is in their keys all the same: nothing is done twice, and for another request anew.
    assert prune_interactions(rows, request) == left
    assert room.journal.record.stages["prune-interactions"].state == "cached"
    (tmp_path / "both.csv").write_text(f"user_id,item_id\n{other},{item}\n")
    assert prune_interactions(rows, choose_forgotten(rows, examples, ForgetRule(deletions_file=tmp_path / "both.csv"), 0)) != left
