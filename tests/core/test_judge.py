"""The stage that judges: a stored candidate that is whole passes, one that is not is refused, and scores of other rows are not taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from e2urec_core import stages
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.tokens import load_tokenizer
from e2urec_core.engine import Bench
from e2urec_core.ensemble import Combining, Ensemble, MemberNetworks
from e2urec_core.errors import BadInput
from e2urec_core.recommender import Recommender
from e2urec_core.release.gates import Gates, Handed, UtilityGates
from e2urec_core.release.verdict import VerdictDocument
from e2urec_core.settings import ScoreRule

BENCH = Bench(seed=0)
SOUND = Handed(candidate="a" * 64, champion="b" * 64, damaged=0, broken_rules=0, quarantined_share=0.0)
WEIGHTS = "model.safetensors"
Folders = tuple[Path, Path]


@pytest.fixture(scope="module")
def folders(
    tiny_interactions: Path, tiny_folders: Folders, small_backbone: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Folders:
    """Tokens and request."""
    tokens = tmp_path_factory.mktemp("tokens")
    stages.tokenise(tiny_folders[0], tiny_interactions, PromptRule(), small_backbone("tiny_t5"), tokens)
    return tokens, tiny_folders[1]


@pytest.fixture(scope="module")
def model(folders: Folders, small_backbone: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Recommender]:
    return lambda seed: small_backbone("tiny_t5").build(load_tokenizer(folders[0]), seed)


@pytest.fixture
def stored(model: Callable[[int], Recommender], tmp_path: Path) -> Path:
    """The candidate's folder."""
    return saved(model(1), tmp_path / "candidate")


@pytest.fixture
def scores(stored: Path, folders: Folders, tmp_path: Path) -> Path:
    return scored(stored, folders, tmp_path / "scores")


def saved(recommender: Recommender, place: Path) -> Path:
    place.mkdir()
    recommender.save(place)
    return place


def scored(model: Path, folders: Folders, place: Path) -> Path:
    place.mkdir()
    stages.score(model, *folders, ScoreRule(), BENCH, place)
    return place


def judged(
    scores: Path,
    folders: Folders,
    candidate: Path | None,
    place: Path,
    *,
    more: Sequence[tuple[str, Path, str]] = (),
    handed: Handed = SOUND,
    gates: Gates | None = None,
) -> VerdictDocument:
    """What the gates say of a candidate that is held against itself as the champion."""
    place.mkdir()
    roles = [("candidate", scores, "model"), ("champion", scores, "model"), *more]
    asked = stages.judge(roles, *folders, candidate, gates or Gates(), handed, BENCH, place)
    told = VerdictDocument.from_json((place / "verdict.json").read_text())
    assert asked == len(told.gates)
    return told


def failed(told: VerdictDocument) -> list[str]:
    return [gate.name for gate in told.gates if not gate.passed]


def test_an_untrained_candidate_that_is_whole_passes_and_the_gates_own_to_be_blind(
    scores: Path, folders: Folders, stored: Path, tmp_path: Path
) -> None:
    told = judged(scores, folders, stored, tmp_path / "verdict")
    assert told.passed
    assert [gate.group for gate in told.gates] == ["utility"] * 6 + ["forgetting"] * 2 + ["completeness"] * 3 + ["contracts"] * 2
    assert told.counts["test_rows"] == 67
    assert told.counts["forgotten_rows"] == 47
    assert (told.candidate, told.champion, told.retrain, told.seed) == ("a" * 64, "b" * 64, "", 0)
    assert all(each.blind for each in told.power)
    assert "64 rows again" in told.gate("probe_difference").sentence


def test_the_same_judgement_is_written_in_the_same_bytes(scores: Path, folders: Folders, stored: Path, tmp_path: Path) -> None:
    first, second = (judged(scores, folders, stored, tmp_path / name) for name in ("first", "second"))
    assert first.to_json() == second.to_json()


def test_with_a_retrain_two_more_gates_are_asked(
    scores: Path, folders: Folders, stored: Path, model: Callable[[int], Recommender], tmp_path: Path
) -> None:
    others = [scored(saved(model(seed), tmp_path / f"model {seed}"), folders, tmp_path / f"scores {seed}") for seed in (2, 3)]
    more = [("retrain", others[0], "model"), ("further", others[1], "model")]
    told = judged(scores, folders, stored, tmp_path / "verdict", more=more)
    assert told.gate("residual").value == 1
    assert "Retrains of other seeds" in told.gate("residual").remark


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_found_and_the_probe_finds_no_answer(
    scores: Path, folders: Folders, stored: Path, tmp_path: Path, value: float
) -> None:
    weights = load_file(stored / WEIGHTS)
    weights["decoder.final_layer_norm.weight"][3:5] = value
    save_file(weights, stored / WEIGHTS, metadata={"format": "pt"})
    told = judged(scores, folders, stored, tmp_path / "verdict")
    assert failed(told) == ["non_finite_weights", "probe_difference"]
    assert told.gate("non_finite_weights").value == 2
    assert told.gate("probe_difference").value is None


def test_a_candidate_that_is_not_the_one_that_was_evaluated_is_found_by_the_probe(
    scores: Path, folders: Folders, model: Callable[[int], Recommender], tmp_path: Path
) -> None:
    told = judged(scores, folders, saved(model(2), tmp_path / "other"), tmp_path / "verdict")
    assert failed(told) == ["probe_difference"]
    assert (told.gate("probe_difference").value or 0) > 1e-4


def test_a_broken_file_of_weights_and_a_folder_without_any_fail_closed(
    scores: Path, folders: Folders, stored: Path, tmp_path: Path
) -> None:
    (stored / WEIGHTS).write_bytes((stored / WEIGHTS).read_bytes()[:1000])
    broken = judged(scores, folders, stored, tmp_path / "broken")
    (stored / WEIGHTS).unlink()
    none, damaged = judged(scores, folders, stored, tmp_path / "none"), judged(scores, folders, None, tmp_path / "damaged")
    for told, why in ((broken, "no weights were found"), (none, "no weights were found"), (damaged, "the candidate is damaged")):
        assert failed(told) == ["non_finite_weights", "probe_difference"]
        assert why in told.gate("probe_difference").remark


def test_every_member_of_an_ensemble_is_looked_at(folders: Folders, model: Callable[[int], Recommender], tmp_path: Path) -> None:
    members = [model(seed) for seed in (1, 2)]
    with torch.no_grad():
        next(iter(members[1].network.parameters()))[0, 0] = torch.nan
    networks = MemberNetworks([member.network for member in members])
    whole = Ensemble(networks, members[0].tokenizer, members[0].answers, Combining(how="logits", num_members=2))
    place = saved(whole, tmp_path / "ensemble")
    scores = scored(saved(members[0], tmp_path / "one"), folders, tmp_path / "scores")
    told = judged(scores, folders, place, tmp_path / "verdict")
    assert told.gate("non_finite_weights").value == 1


@pytest.mark.parametrize(
    ("handed", "gate"),
    [
        ({"damaged": 1}, "damaged_artifacts"),
        ({"damaged": None}, "damaged_artifacts"),
        ({"broken_rules": 2}, "broken_rules"),
        ({"broken_rules": None}, "broken_rules"),
        ({"quarantined_share": 0.02}, "quarantined_share"),
        ({"quarantined_share": None}, "quarantined_share"),
    ],
    ids=str,
)
def test_what_is_handed_in_decides_its_gate_and_what_nobody_looked_at_does_not_pass(
    scores: Path, folders: Folders, stored: Path, tmp_path: Path, handed: dict[str, Any], gate: str
) -> None:
    told = judged(scores, folders, stored, tmp_path / "verdict", handed=SOUND.model_copy(update=handed))
    assert failed(told) == [gate]


def test_the_bounds_are_those_of_the_rule(scores: Path, folders: Folders, stored: Path, tmp_path: Path) -> None:
    told = judged(scores, folders, stored, tmp_path / "verdict", gates=Gates(utility=UtilityGates(auc_fall=0.5, group_auc_fall=0.25)))
    assert [gate.high for gate in told.gates[:5]] == [0.5, 0.15, 0.08, 0.25, 0.25]


def test_scores_of_other_rows_and_roles_nobody_plays_are_refused(scores: Path, folders: Folders, stored: Path, tmp_path: Path) -> None:
    table = pq.read_table(scores / "scores.parquet")
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(table.filter(pc.not_equal(table["example_id"], table["example_id"][0])), other / "scores.parquet")
    with pytest.raises(BadInput, match="66 test rows on which the retrain was scored are not the 67"):
        judged(scores, folders, stored, tmp_path / "first", more=[("retrain", other, "model")])
    with pytest.raises(BadInput, match="`judge` is unknown"):
        judged(scores, folders, stored, tmp_path / "second", more=[("judge", scores, "model")])
    with pytest.raises(BadInput, match="`champion` is taken twice"):
        judged(scores, folders, stored, tmp_path / "third", more=[("champion", scores, "model")])


def test_a_table_without_a_group_of_rows_fails_closed(scores: Path, folders: Folders, stored: Path, tmp_path: Path) -> None:
    table = pq.read_table(scores / "scores.parquet")
    pq.write_table(pa.table(table.filter(pc.equal(table["group"], "test"))), scores / "scores.parquet")
    told = judged(scores, folders, stored, tmp_path / "verdict")
    assert failed(told) == ["attack", "user_test", "probe_difference"]
    assert "47 of 47 forgotten rows have no score" in told.gate("attack").remark
