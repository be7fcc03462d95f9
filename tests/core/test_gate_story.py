"""The gates on trained recommenders: the unmodified champion is refused, a true Retrain passes. Bounds are the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2urec_core import stages
from e2urec_core.artifacts import file_digest
from e2urec_core.backbones.tiny_t5 import TinyT5
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.split import SplitRule
from e2urec_core.datasets.sample import Sample
from e2urec_core.engine import Bench
from e2urec_core.release.gates import Gates, Handed
from e2urec_core.release.verdict import VerdictDocument
from e2urec_core.settings import ScoreRule, Training

BACKBONE, TRAINING = TinyT5(), Training(num_epochs=8, batch_size=32, learning_rate=1.5e-3)


@pytest.mark.long
@pytest.mark.parametrize("seed", [10, 11])
def test_the_unmodified_champion_is_refused_by_night_and_a_true_retrain_passes(seed: int, tmp_path: Path) -> None:
    folders = {}
    for name in ("rows", "examples", "request", "tokens", "original", "retrain", "original_scores", "retrain_scores"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
    rows, examples, request, tokens, original, retrain = list(folders.values())[:6]
    bench = Bench(seed=seed)
    stages.ingest(Sample(num_users=200, idiosyncratic_share=0.3), IngestRule(), None, rows)
    stages.split(rows, HistoryRule(), SplitRule(holdout_share=0.3), seed, examples)
    stages.forget(rows, examples, ForgetRule(share=1.0, cohort="idiosyncratic"), seed, request)
    stages.tokenise(examples, rows, PromptRule(), BACKBONE, tokens)
    stages.train_original(tokens, BACKBONE, TRAINING, bench, original)
    stages.train_retrained(tokens, request, BACKBONE, TRAINING, bench, retrain)
    for name in ("original", "retrain"):
        stages.score(folders[name], tokens, request, ScoreRule(), bench, folders[f"{name}_scores"])

    def judged(name: str) -> VerdictDocument:
        place = tmp_path / f"verdict of {name}"
        place.mkdir()
        scored = [("candidate", folders[f"{name}_scores"], "model"), ("champion", folders["original_scores"], "model")]
        digest = file_digest(folders[name] / "model.safetensors")
        handed = Handed(candidate=digest, damaged=0, broken_rules=0, quarantined_share=0.0)
        stages.judge(scored, tokens, request, folders[name], Gates(), handed, bench, place)
        return VerdictDocument.from_json((place / "verdict.json").read_text())

    champion, true = judged("original"), judged("retrain")
    assert [gate.name for gate in champion.gates if not gate.passed] == ["attack", "user_test"]
    assert true.passed, true.text
    together = true.power[-1]
    assert (together.gate, together.refused, together.blind) == ("forgetting_without_retrain", True, False)
