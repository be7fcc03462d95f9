"""The stage `verdict`: what it hands to the gates, what it tracks, and that a damaged candidate is refused and not read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from e2urec_core.artifacts import Examples, ForgetRequest, Interactions, Original, Scores, Tokens, Verdict
from e2urec_core.release.gates import ContractGates, Gates
from e2urec_core.settings import ScoreRule, Seat

if TYPE_CHECKING:
    from tasks._room import Room

pytestmark = pytest.mark.slow

SEAT = Seat(seed=0)
RoomIn = Callable[[Path], AbstractContextManager["Room"]]


class Made(NamedTuple):
    """What the stages before have made; the original is judged against itself."""

    workspace: Path
    rows: Interactions
    examples: Examples
    request: ForgetRequest
    tokens: Tokens
    original: Original
    scores: Scores


@pytest.fixture(scope="module")
def made(prefect: None, room_in: RoomIn, tmp_path_factory: pytest.TempPathFactory) -> Made:
    from e2urec_core.backbones.tiny_t5 import TinyT5
    from e2urec_core.data.examples import HistoryRule
    from e2urec_core.data.forget import ForgetRule
    from e2urec_core.data.ingest import IngestRule
    from e2urec_core.data.prompts import PromptRule
    from e2urec_core.data.split import SplitRule
    from e2urec_core.datasets.sample import Sample
    from e2urec_core.settings import Training
    from tasks.forget import choose_forgotten
    from tasks.ingest import ingest
    from tasks.score import score
    from tasks.split import split_by_time
    from tasks.tokenise import tokenise
    from tasks.train import train_original

    workspace, backbone = tmp_path_factory.mktemp("verdict"), TinyT5(width=16, num_layers=1, num_heads=2, inner_width=32, vocabulary=400)
    with room_in(workspace):
        rows = ingest(Sample(num_users=60, ratings_per_user=12), IngestRule())
        examples = split_by_time(rows, HistoryRule(), SplitRule(), 0)
        tokens = tokenise(rows, examples, PromptRule(), backbone)
        request = choose_forgotten(rows, examples, ForgetRule(share=0.2), 0)
        original = train_original(tokens, backbone, Training(num_epochs=1), SEAT)
        scores = score(original, tokens, request, ScoreRule(), SEAT)
    return Made(workspace, rows, examples, request, tokens, original, scores)


def decided(made: Made, **more: Any) -> Verdict:
    from tasks.verdict import decide

    scored = [("candidate", made.scores, "model"), ("champion", made.scores, "model")]
    given = (made.original, made.original, made.tokens, made.request, made.rows, made.examples)
    return decide(scored, *given, **{"rule": Gates(), "seat": SEAT, **more})


def test_a_candidate_is_judged_tracked_and_taken_from_the_store_when_asked_again(made: Made, room_in: RoomIn) -> None:
    from tasks.verdict import read_verdict

    with room_in(made.workspace) as room:
        verdict, again = decided(made), decided(made)
        assert again == verdict
        assert room.journal.record.stages["verdict"].state == "cached"
        told = read_verdict(room.store.open(verdict))
        tracked = {name: value for name, value, _ in room.tracker.points if name.startswith("gate.")}
    assert told.passed
    assert verdict.rows == len(told.gates) == 13
    assert (told.candidate, told.champion, told.retrain) == (made.original.digest, made.original.digest, "")
    assert [told.gate(name).value for name in ("damaged_artifacts", "broken_rules", "quarantined_share")] == [0, 0, 0]
    assert {made.original.digest, made.scores.digest, made.rows.digest} <= set(verdict.parents)
    assert tracked["gate.auc.value"] == 0
    assert tracked["gate.auc.margin"] == Gates().utility.auc_fall
    assert {tracked[f"gate.{gate.name}.passed"] for gate in told.gates} == {1.0}


@pytest.mark.long
def test_in_a_process_of_its_own_the_verdict_is_the_same(made: Made, room_in: RoomIn) -> None:
    """Other stages: `tests/faults/test_stage_process.py` and `test_pool.py`."""
    changed = Gates(contracts=ContractGates(quarantined_share=0.02))
    with room_in(made.workspace) as room:
        inline = decided(made, rule=changed)
        room.execution, room.mode = "process", lambda stage: "force"
        assert decided(made, rule=changed) == inline


def test_a_damaged_candidate_is_refused_and_nothing_is_read_from_it(made: Made, room_in: RoomIn) -> None:
    from tasks.verdict import read_verdict

    with room_in(made.workspace) as room:
        weights = room.store.open(made.original) / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        try:
            told = read_verdict(room.store.open(decided(made, rule=Gates(contracts=ContractGates(quarantined_share=0.03)))))
        finally:
            weights.write_bytes(whole)
    assert [gate.name for gate in told.gates if not gate.passed] == ["damaged_artifacts", "non_finite_weights", "probe_difference"]
    assert told.gate("damaged_artifacts").value == 2


def test_broken_rules_are_counted_over_all_tables(made: Made, room_in: RoomIn, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks._gate import count_broken

    with room_in(made.workspace) as room:
        folders = {type(handle): room.store.open(handle) for handle in (made.rows, made.examples, made.tokens)}
    assert count_broken(folders) == 0
    table = pq.read_table(folders[Tokens] / "tokens.parquet")
    labels = pa.array([7, *table["label"].to_pylist()[1:]], table.schema.field("label").type)
    pq.write_table(
        table.set_column(table.schema.get_field_index("label"), table.schema.field("label"), labels), tmp_path / "tokens.parquet"
    )
    (tmp_path / "tokenizer.json").write_bytes((folders[Tokens] / "tokenizer.json").read_bytes())
    # The label is none, and is not that of its example.
    assert count_broken({**folders, Tokens: tmp_path}) == 2
