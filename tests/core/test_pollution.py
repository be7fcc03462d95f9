"""The search for polluted users: folds that never see whom they judge, evidence by hand arithmetic, proposals that know no cohort."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy
import pyarrow.parquet as pq
import pytest

from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.errors import BadSetting, MissingPackage
from e2urec_core.methods.base import Problem
from e2urec_core.pollution import quality
from e2urec_core.pollution.evidence import HeldOut, benjamini_hochberg, chance_of_sums, evidence
from e2urec_core.pollution.folds import OtherFolds, held_out_answers, into_folds
from e2urec_core.pollution.proposal import find, write_proposal
from e2urec_core.pollution.rule import FindRule, FoldRule
from e2urec_core.pollution.scoring import fold_scores, read_held_out, suspected
from e2urec_core.recommender import Recommender
from e2urec_core.settings import Training

SHORT = FoldRule(num_folds=3, training=Training(num_epochs=1, batch_size=16, learning_rate=1e-2))
PLAIN = FoldRule(quality="self_confidence")


@pytest.fixture(scope="module")
def rows(tiny_problem: Problem, rows_of: Callable[[Recommender, str], Prompts]) -> Prompts:
    return rows_of(tiny_problem.original, "train")


@pytest.fixture(scope="module")
def divided(rows: Prompts, tiny_problem: Problem, bench: Bench) -> OtherFolds:
    return into_folds(rows, tiny_problem.validation, SHORT, bench)


def held(*people: tuple[int, list[tuple[int, float]]]) -> HeldOut:
    """Rows of users: number, then label and p(Yes) of each row."""
    lines = [(user, label, yes) for user, told in people for label, yes in told]
    users, labels, yes = (numpy.array(column) for column in zip(*lines, strict=True))
    return HeldOut(numpy.arange(len(lines)), users, labels, yes)


def test_folds_are_of_users_and_hold_every_row_once(divided: OtherFolds, rows: Prompts) -> None:
    assert rows.users is not None
    own = [divided.own(fold) for fold in range(3)]
    assert numpy.array_equal(numpy.sort(numpy.concatenate(own)), numpy.arange(len(rows)))
    users = [set(rows.users[places].tolist()) for places in own]
    assert all(not one & other for at, one in enumerate(users) for other in users[at + 1 :])


def test_a_users_fold_does_not_depend_on_who_else_is_there(divided: OtherFolds, rows: Prompts, tiny_problem: Problem, bench: Bench) -> None:
    assert rows.users is not None
    few = rows.select(numpy.flatnonzero(rows.users > numpy.median(rows.users)))
    alone = into_folds(few, tiny_problem.validation, changed(SHORT, num_folds=3), bench)
    assert few.users is not None
    assert numpy.array_equal(alone.partition.places(few.users)[0], divided.partition.places(few.users)[0])


def changed(rule: FoldRule, **changes: object) -> FoldRule:
    return rule.model_copy(update=changes)


def test_a_network_learns_from_nobody_in_its_fold_and_nobody_set_aside(rows: Prompts, tiny_problem: Problem, bench: Bench) -> None:
    assert rows.users is not None
    aside = numpy.unique(rows.users)[:4]
    divided = into_folds(rows, tiny_problem.validation, SHORT, bench, aside)
    for fold in range(3):
        scored = set(rows.users[divided.own(fold)].tolist())
        for part in divided.upto(fold, 0):
            assert part.users is not None
            assert len(part)
            assert not (scored | set(aside.tolist())) & set(part.users.tolist())
        assert divided.count(fold, 0) == len(divided.upto(fold, 0)[0])
    # Whoever is set aside is scored all the same.
    assert set(aside.tolist()) <= set(rows.users[numpy.concatenate([divided.own(fold) for fold in range(3)])].tolist())


def test_the_answers_to_a_user_are_the_same_whatever_the_users_labels_are(divided: OtherFolds, tiny_problem: Problem, bench: Bench) -> None:
    """Out of sample, really: turn around all labels of one fold, and its answers stay, while those of the other folds change."""
    own = divided.own(0)
    labels = divided.rows.labels.copy()
    labels[own] = 1 - labels[own]
    turned = dataclasses.replace(divided, rows=dataclasses.replace(divided.rows, labels=labels))
    assert tiny_problem.fresh is not None
    before, after = (held_out_answers(each, tiny_problem.fresh(0), SHORT, bench) for each in (divided, turned))
    assert numpy.array_equal(before[own], after[own])
    assert not numpy.isclose(before, after)[divided.own(1)].any()


def test_the_same_seed_gives_the_same_bits(divided: OtherFolds, tiny_problem: Problem, bench: Bench) -> None:
    assert tiny_problem.fresh is not None
    first, second = (held_out_answers(divided, tiny_problem.fresh(0), SHORT, bench) for _ in range(2))
    assert numpy.array_equal(first, second)


def test_more_folds_than_users_are_refused(rows: Prompts, tiny_problem: Problem, bench: Bench) -> None:
    with pytest.raises(BadSetting, match="50 folds are asked of"):
        into_folds(rows, tiny_problem.validation, changed(SHORT, num_folds=50), bench)


def test_a_fold_without_teachers_is_refused(rows: Prompts, tiny_problem: Problem, bench: Bench) -> None:
    assert rows.users is not None
    with pytest.raises(BadSetting, match="3 of 3 folds"):
        into_folds(rows, tiny_problem.validation, SHORT, bench, numpy.unique(rows.users))


def test_the_chance_of_a_sum_is_that_of_drawing_it() -> None:
    # Two of four rows have quality 0, so a drawn row has it with chance 1/2.
    chance = chance_of_sums(numpy.array([0.0, 0.0, 1.0, 1.0]), numpy.array([0, 0, 1, 2]), numpy.array([2, 1, 1]))
    # Two draws sum to 0 with chance 1/4; one draw is at most 1 for sure.
    assert chance == pytest.approx([0.25, 1, 1], abs=1e-9)
    # 3 of 4 rows are 1: three draws have at most one 1 with chance (1/4)^3 + 3 * 3/4 * (1/4)^2 = 10/64.
    chance = chance_of_sums(numpy.array([0.0, 1.0, 1.0, 1.0]), numpy.array([0, 1, 1, 1]), numpy.array([1, 3]))
    assert chance == pytest.approx([0.25, 1], abs=1e-9)
    mixed = chance_of_sums(numpy.array([0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]), numpy.array([0, 0, 0, *[1] * 5]), numpy.array([3, 5]))
    # Chance 1/4 of a 0: three draws with at most one 1: (1/4)^3 + 3 * 3/4 * (1/4)^2 = 10/64.
    assert mixed[0] == pytest.approx(10 / 64, abs=1e-9)


def test_three_bad_rows_are_weaker_evidence_than_twelve() -> None:
    good = [(1, 0.9)] * 60
    told = evidence(held((1, [(0, 0.9)] * 3), (2, [(0, 0.9)] * 12), (3, good)), "self_confidence")
    assert told.score[:2] == pytest.approx([0.1, 0.1])
    assert told.chance[1] < told.chance[0] < told.chance[2]
    assert told.rows.tolist() == [3, 12, 60]


def test_chances_are_even_where_rows_are_dealt_at_random() -> None:
    random = numpy.random.default_rng(0)
    whose = numpy.repeat(numpy.arange(2000), random.integers(1, 20, 2000))
    chance = chance_of_sums(random.random(len(whose)), whose, numpy.bincount(whose))
    # 2,000 users: the share below a level has a standard deviation of at most 0.011.
    for level in (0.05, 0.2, 0.5, 0.8):
        assert (chance < level).mean() == pytest.approx(level, abs=0.035)
    assert (benjamini_hochberg(chance) < 0.05).sum() == 0


def test_benjamini_and_hochbergs_steps() -> None:
    # Sorted 0.01, 0.03, 0.04, 0.5 of 4: times 4/1, 4/2, 4/3, 4/4, and none above those behind it.
    assert benjamini_hochberg(numpy.array([0.01, 0.04, 0.03, 0.5])) == pytest.approx([0.04, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5])


def test_a_users_labels_must_contradict_and_not_only_follow_no_taste() -> None:
    contradicts, coin = [(0, 0.95)] * 10, [(0, 0.95), (1, 0.95)] * 5
    everybody = held((1, contradicts), (2, coin), *((number, [(1, 0.95), (0, 0.05)] * 10) for number in range(3, 30)))
    found = find(everybody, PLAIN, FindRule())
    # The coin's mean probability is (0.05 + 0.95) / 2 = 0.5: luck does not explain it, and it is not proposed.
    assert found.evidence.q[1] < 0.05
    assert found.evidence.own[:2] == pytest.approx([0.05, 0.5])
    assert found.evidence.users[found.users].tolist() == [1]
    assert find(everybody, PLAIN, FindRule(at_most=1)).users.tolist() == [0, 1]


def test_single_interactions_are_those_of_users_whom_luck_explains() -> None:
    turned = [(1, 0.97), (0, 0.03)] * 10 + [(0, 0.98)]
    everybody = held((1, [(0, 0.97)] * 12), *((number, turned) for number in range(2, 12)))
    found = find(everybody, PLAIN, FindRule(propose="interactions"))
    assert len(found.users) == 0
    assert set(found.interactions.tolist()) == {12 + 21 * number + 20 for number in range(10)}
    # Each has probability 1 - 0.98 of its own label, and so has the mean of those up to it.
    assert found.false_alarms == pytest.approx([0.02] * 10)
    assert len(find(everybody, PLAIN, FindRule(propose="interactions", interaction_level=0.01)).interactions) == 0
    assert len(find(everybody, PLAIN, FindRule()).interactions) == 0


def test_labels_of_one_kind_are_never_doubtful() -> None:
    assert not quality.is_doubtful(numpy.ones(5, dtype=int), numpy.full(5, 0.1)).any()


@pytest.mark.parametrize("kind", ["self_confidence", "normalized_margin", "confidence_weighted_entropy"])
def test_a_less_probable_label_has_less_quality(kind: quality.Quality) -> None:
    found = quality.label_quality(numpy.array([1, 1, 0, 0]), numpy.array([0.9, 0.2, 0.9, 0.2]), kind)
    # Own labels have the probabilities 0.9, 0.2, 0.1, 0.8.
    assert numpy.argsort(found).tolist() == [2, 1, 3, 0]
    assert ((found >= 0) & (found <= 1)).all()


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="cleanlab") as refusal:
        quality.label_quality(numpy.array([0, 1]), numpy.array([0.1, 0.9]), "self_confidence")
    assert "pip install" in refusal.value.hint


def with_suspects(scores: Path) -> FoldRule:
    """The short rule at a level at which some users are suspected and some are not."""
    return changed(SHORT, set_aside_below=float(numpy.unique(evidence(read_held_out(scores), SHORT.quality).q)[1]))


@pytest.fixture(scope="module")
def two_rounds(
    tiny_folders: tuple[Path, Path],
    tiny_interactions: Path,
    small_backbone: Callable[..., object],
    bench: Bench,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, Path]:
    """Folders of tokens and of the scores of two rounds."""
    from e2urec_core import stages
    from e2urec_core.backbones.base import Backbone
    from e2urec_core.data.prompts import PromptRule

    tokens, first, second = (tmp_path_factory.mktemp(name) for name in ("tokens", "first", "second"))
    backbone = small_backbone("tiny_t5")
    assert isinstance(backbone, Backbone)
    stages.tokenise(tiny_folders[0], tiny_interactions, PromptRule(), backbone, tokens)
    fold_scores(tokens, None, backbone, SHORT, bench, first)
    rule = with_suspects(first)
    fold_scores(tokens, first, backbone, rule, bench, second)
    return tokens, first, second


def test_the_stage_writes_every_training_row_and_who_was_set_aside(two_rounds: tuple[Path, Path, Path]) -> None:
    from data_contracts.expectations import violations
    from data_contracts.held_out import HELD_OUT
    from e2urec_core.data.tokens import prompts_of_split

    tokens, first, second = two_rounds
    aside = suspected(read_held_out(first), with_suspects(first))
    assert 0 < len(aside) < len(set(read_held_out(first).users.tolist()))
    for folder, expected in ((first, []), (second, aside.tolist())):
        table = pq.read_table(folder / "held_out.parquet")
        assert violations(HELD_OUT, table) == []
        assert table["example_id"].to_pylist() == prompts_of_split(tokens, "train").example_ids.tolist()
        of_users = dict(zip(table["user"].to_pylist(), table["set_aside"].to_pylist(), strict=True))
        assert sorted(user for user, is_aside in of_users.items() if is_aside) == expected


def test_a_proposal_names_users_and_items_and_keeps_its_contract(
    two_rounds: tuple[Path, Path, Path], tiny_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    from data_contracts.draft_request import PROPOSED
    from data_contracts.expectations import violations

    scores = read_held_out(two_rounds[1])
    found = find(scores, PLAIN, FindRule(propose="both"))
    made_up = dataclasses.replace(
        found, users=numpy.array([1, 0]), interactions=numpy.array([len(scores.users) - 1]), false_alarms=numpy.array([0.25])
    )
    assert write_proposal(tiny_folders[0], scores, made_up, tmp_path) == 3
    table = pq.read_table(tmp_path / "proposed.parquet")
    assert violations(PROPOSED, table) == []
    examples = pq.read_table(tiny_folders[0] / "examples.parquet", columns=["example_id", "user_id", "item_id"]).to_pylist()
    named = {row["example_id"]: (row["user_id"], row["item_id"]) for row in examples}
    ids = dict(zip(scores.users.tolist(), scores.example_ids.tolist(), strict=True))
    whom = [named[ids[user]][0] for user in found.evidence.users[[1, 0]].tolist()]
    last = named[int(scores.example_ids[-1])]
    assert [(row["scope"], row["user_id"], row["item_id"]) for row in table.to_pylist()] == [
        *(("user", user, None) for user in whom),
        ("interaction", *last),
    ]
    assert table["rows"].to_pylist() == [*found.evidence.rows[[1, 0]].tolist(), 1]


def test_an_empty_proposal_is_a_proposal(two_rounds: tuple[Path, Path, Path], tiny_folders: tuple[Path, Path], tmp_path: Path) -> None:
    scores = read_held_out(two_rounds[1])
    found = find(scores, PLAIN, FindRule(at_most=1e-9))
    assert write_proposal(tiny_folders[0], scores, found, tmp_path) == 0
    assert pq.read_table(tmp_path / "proposed.parquet").num_rows == 0


def test_a_finished_fold_is_not_trained_again(
    divided: OtherFolds, tiny_problem: Problem, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from e2urec_core.checkpoints import Checkpoints

    assert tiny_problem.fresh is not None
    kept = dataclasses.replace(bench, checkpoints=Checkpoints(tmp_path / "kept", every_s=1000.0))
    first = held_out_answers(divided, tiny_problem.fresh(0), SHORT, kept)

    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("a finished fold is trained again")

    monkeypatch.setattr("e2urec_core.sharding.training.fit_answers", refuse)
    assert numpy.array_equal(held_out_answers(divided, tiny_problem.fresh(0), SHORT, kept), first)
