"""A stage killed with SIGKILL and started again ends in the bytes of one that was never killed (FAULTS: I8, rows 1, 2, 7, 12)."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from killed_children import Children, Ended
from small_stages import RULE, SEAT, SHARDED, TRAINING, arguments, changed, digests_in

from e2urec_core.checkpoints import Checkpoints
from e2urec_core.settings import EngineRule, Seat
from tests.by_default import few


class Case(NamedTuple):
    """A stage, and what of its arguments and of its engine's rule is changed."""

    stage: str
    changes: Mapping[str, Any] = MappingProxyType({})
    engine: Mapping[str, Any] = MappingProxyType({})


# 32 rows of about 90 tokens are a step of the original: four pieces of it, and two of a step of unlearning.
PIECES = {"token_budget": 900}
CHECKED = changed(TRAINING, num_epochs=3, learning_rate=0.08, check_every=3, schedule="constant")
CASES = {
    "original": Case("train_original"),
    "original in pieces": Case("train_original", engine=PIECES),
    "original with checks": Case("train_original", {"training": CHECKED}),
    "augmented": Case("train_augmented"),
    "retrained": Case("train_retrained"),
    "unlearning": Case("unlearn"),
    "unlearning in pieces": Case("unlearn", engine=PIECES),
    "shards": Case("train_shards"),
    "unlearning of shards": Case("unlearn", {"method": SHARDED}),
    "original's outputs": Case("cache_original"),
    "original's outputs in pieces": Case("cache_original", engine=PIECES),
    "teachers' outputs": Case("cache_teachers"),
    "scores": Case("evaluate"),
}


class Stages:
    """Runs the cases in children and has them killed."""

    def __init__(self, children: Children, inputs: Path) -> None:
        self._children, self._inputs = children, inputs
        self._undisturbed: dict[str, Path] = {}

    def run(self, what: str, checkpoints: Path | None = None, *, every_steps: int = 0, kill_at: int = 0, kill_in_file: int = 0) -> Ended:
        """See `Children.run`; with a folder, `every_steps` are between two checkpoints."""
        stage, changes, engine = CASES[what]
        seat = Seat(seed=SEAT.seed, engine=EngineRule(**engine, checkpoint_every_s=1e9, checkpoint_every_steps=every_steps))
        given = arguments(self._inputs, stage, **changes)
        return self._children.run(stage, given, seat, checkpoints, kill_at=kill_at, kill_in_file=kill_in_file)

    def undisturbed(self, what: str) -> Path:
        """What the case gives when it is never killed; the plain cases were run in the process of the tests."""
        if not (CASES[what].changes or CASES[what].engine):
            return self._inputs / CASES[what].stage
        if what not in self._undisturbed:
            ended = self.run(what)
            assert ended.status == 0
            self._undisturbed[what] = ended.place
        return self._undisturbed[what]


@pytest.fixture(scope="module")
def stages(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    children = Children(tmp_path_factory.mktemp("children"))
    yield Stages(children, inputs)
    children.close()


def same(ended: Ended, undisturbed: Path) -> bool:
    """Whether a stage ended well, and in the same bytes of every file."""
    return ended.status == 0 and digests_in(ended.place) == digests_in(undisturbed)


TRAININGS = {
    "original": 6,
    "original in pieces": 2,
    "original with checks": 3,
    "augmented": 1,
    "retrained": 1,
    "unlearning": 6,
    "unlearning in pieces": 2,
}
# The augmented model's training has 6 steps, the others 16 or more.
LAST_STEP = {"augmented": 5}
KILL_POINTS = [
    (what, random.Random(f"{what}-{number}").randint(1, LAST_STEP.get(what, 15)), random.Random(f"{what}/{number}").choice([1, 2, 3, 5]))
    for what, times in TRAININGS.items()
    for number in range(times)
]
# Every training once, and the original also right after its first checkpoint; long ago, just now and never kept are among them.
SOME_KILL_POINTS = {
    ("original", 2, 1),
    ("original", 13, 5),
    ("original in pieces", 9, 5),
    ("original with checks", 12, 3),
    ("augmented", 1, 5),
    ("retrained", 15, 3),
    ("unlearning", 10, 2),
    ("unlearning in pieces", 9, 5),
}


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints in `folder`."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


@pytest.mark.parametrize(("what", "kill_at", "every_steps"), few(SOME_KILL_POINTS, KILL_POINTS))
def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(
    stages: Stages, tmp_path: Path, what: str, kill_at: int, every_steps: int
) -> None:
    killed = stages.run(what, tmp_path / "kept", every_steps=every_steps, kill_at=kill_at)
    assert (killed.status, killed.told) == (-9, list(range(1, kill_at + 1)))
    # The watcher is told of a step before its checkpoint is written, so the kill loses that step.
    kept = (kill_at - 1) // every_steps * every_steps
    assert steps_in(tmp_path / "kept")[-1:] == ([kept] if kept else [])
    ended = stages.run(what, tmp_path / "kept", every_steps=every_steps)
    assert ended.told[0] == kept + 1
    assert same(ended, stages.undisturbed(what))


def test_the_trainings_are_what_they_are_called(stages: Stages) -> None:
    told = {what: json.loads((stages.undisturbed(what) / "facts.json").read_text()) for what in TRAININGS}
    for whole, pieces in (("original", "original in pieces"), ("unlearning", "unlearning in pieces")):
        assert len(told[pieces]["curve"]) == len(told[whole]["curve"]) == 16
        # Every piece draws dropout of its own, so the losses are near and not the same.
        assert told[pieces]["curve"][0] != told[whole]["curve"][0]
        assert told[pieces]["curve"][0]["loss"] == pytest.approx(told[whole]["curve"][0]["loss"], rel=0.05)
    checked = told["original with checks"]
    # Stopped at check 7, after step 21 of 24 and in the middle of a pass of 8, and returned to the weights of check 5.
    assert (len(checked["curve"]), len(checked["validation"]), checked["best_check"]) == (21, 7, 5)


def test_a_killed_training_goes_on_under_other_intervals_between_checkpoints(stages: Stages, tmp_path: Path) -> None:
    assert stages.run("original", tmp_path / "kept", every_steps=5, kill_at=12).status == -9
    ended = stages.run("original", tmp_path / "kept", every_steps=2)
    assert ended.told[0] == 11
    assert same(ended, stages.undisturbed("original"))


@pytest.mark.parametrize("what", few({"original with checks"}, ["original", "original with checks", "unlearning in pieces"]))
def test_a_training_killed_again_while_it_goes_on_ends_in_the_same_bytes(stages: Stages, tmp_path: Path, what: str) -> None:
    for kill_at in (4, 7, 8, 14):
        assert stages.run(what, tmp_path / "kept", every_steps=2, kill_at=kill_at).status == -9
    assert same(stages.run(what, tmp_path / "kept", every_steps=2), stages.undisturbed(what))


@pytest.mark.parametrize("kill_in_file", few({2, 5}, [1, 2, 5]))
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(stages: Stages, tmp_path: Path, kill_in_file: int) -> None:
    assert stages.run("original", tmp_path / "kept", every_steps=2, kill_in_file=kill_in_file).status == -9
    # Two files a checkpoint: the first and the second kill fall into the first one, the fifth into the third.
    assert len(steps_in(tmp_path / "kept")) == (kill_in_file - 1) // 2
    assert same(stages.run("original", tmp_path / "kept", every_steps=2), stages.undisturbed("original"))


def test_a_training_goes_on_from_the_checkpoint_before_a_damaged_one(stages: Stages, tmp_path: Path) -> None:
    assert stages.run("original", tmp_path / "kept", every_steps=3, kill_at=10).status == -9
    facts = tmp_path / "kept" / "step-000000009" / "facts.json"
    told = facts.read_text()
    # After 9 steps in passes of 8, 1 of the second pass is done.
    facts.write_text(told.replace('"in_pass":1', '"in_pass":2'))
    assert facts.read_text() != told
    ended = stages.run("original", tmp_path / "kept", every_steps=3)
    assert ended.told[0] == 7
    assert same(ended, stages.undisturbed("original"))


def test_a_training_starts_anew_when_every_checkpoint_is_damaged(stages: Stages, tmp_path: Path) -> None:
    assert stages.run("original", tmp_path / "kept", every_steps=3, kill_at=10).status == -9
    for tensors in (tmp_path / "kept").glob("step-*/tensors.safetensors"):
        tensors.write_bytes(tensors.read_bytes()[:-1])
    ended = stages.run("original", tmp_path / "kept", every_steps=3)
    assert ended.told[0] == 1
    assert same(ended, stages.undisturbed("original"))


@pytest.mark.parametrize(
    ("what", "kill_at"),
    few({("shards", 6), ("unlearning of shards", 5)}, [("shards", 1), ("shards", 6), ("shards", 9), ("unlearning of shards", 5)]),
)
def test_a_killed_training_of_shards_goes_on_in_the_slice_that_was_not_finished(
    stages: Stages, tmp_path: Path, what: str, kill_at: int
) -> None:
    assert stages.run(what, tmp_path / "kept", every_steps=1, kill_at=kill_at).status == -9
    finished = written(list((tmp_path / "kept").glob("*-finished/step-*/tensors.safetensors")))
    assert bool(finished) == (kill_at > 1)
    # In the slice under way too no step is done twice, but the one whose checkpoint the kill has caught.
    ended = stages.run(what, tmp_path / "kept", every_steps=1)
    assert ended.told[0] == kill_at
    assert same(ended, stages.undisturbed(what))


def test_shards_killed_again_and_again_and_with_a_finished_one_damaged_end_in_the_same_bytes(stages: Stages, tmp_path: Path) -> None:
    for kill_at in (3, 4, 8, 11):
        assert stages.run("shards", tmp_path / "kept", every_steps=2, kill_at=kill_at).status == -9
    done = sorted((tmp_path / "kept").glob("*-finished/step-*/tensors.safetensors"))
    assert len(done) > 1
    done[0].write_bytes(done[0].read_bytes()[:-1])
    ended = stages.run("shards", tmp_path / "kept", every_steps=2)
    # The damaged slice is trained again, and after it those that were kept are taken.
    assert ended.told[0] == 1
    assert same(ended, stages.undisturbed("shards"))


@pytest.mark.parametrize("kill_in_file", few({3}, [1, 3, 5]))
def test_a_kill_while_a_finished_slice_is_kept_leaves_those_before_it(stages: Stages, tmp_path: Path, kill_in_file: int) -> None:
    # Nothing but finished slices is kept here, two files each.
    assert stages.run("shards", tmp_path / "kept", kill_in_file=kill_in_file).status == -9
    assert len(list((tmp_path / "kept").glob("*-finished/step-*"))) == kill_in_file // 2
    assert same(stages.run("shards", tmp_path / "kept"), stages.undisturbed("shards"))


def kept_groups(folder: Path) -> list[Path]:
    """Row groups that an unfinished stage keeps."""
    return sorted(folder.glob("*.parquet"))


# Rows that each cache stage scores, in groups of 16.
CACHED = {"original's outputs": 96, "original's outputs in pieces": 96, "teachers' outputs": 40}


@pytest.mark.parametrize(
    ("what", "kill_at"),
    few(
        {("original's outputs", 60), ("original's outputs in pieces", 56), ("teachers' outputs", 33)},
        [
            ("original's outputs", 20),
            ("original's outputs", 60),
            ("original's outputs", 96),
            ("original's outputs in pieces", 56),
            ("teachers' outputs", 5),
            ("teachers' outputs", 33),
        ],
    ),
)
def test_a_killed_cache_stage_keeps_its_row_groups_and_ends_in_the_same_bytes(
    stages: Stages, tmp_path: Path, what: str, kill_at: int
) -> None:
    assert stages.run(what, tmp_path / "kept", kill_at=kill_at).status == -9
    # The group whose rows are being counted is lost, those before it are kept.
    kept = (kill_at - 1) // RULE.rows_per_group
    assert len(kept_groups(tmp_path / "kept")) == kept
    for damaged in kept_groups(tmp_path / "kept")[:1]:
        damaged.write_bytes(damaged.read_bytes()[:-1])
    whole = written(kept_groups(tmp_path / "kept")[1:])
    ended = stages.run(what, tmp_path / "kept")
    # The damaged group is scored again, the others are not, and all are told of.
    assert written(kept_groups(tmp_path / "kept")).items() >= whole.items()
    assert ended.told[-1] == CACHED[what]
    assert same(ended, stages.undisturbed(what))


def written(paths: list[Path]) -> dict[str, int]:
    """Which file each name stands for: a file that is written anew is another one."""
    return {path.name: path.stat().st_ino for path in paths}


def test_a_cache_stage_killed_again_while_it_goes_on_ends_in_the_same_bytes(stages: Stages, tmp_path: Path) -> None:
    # Of six groups: the one that reaches the count is lost, what was kept before is told of at once.
    for kill_at, kept in ((48, 2), (64, 3), (96, 5)):
        assert stages.run("original's outputs", tmp_path / "kept", kill_at=kill_at).status == -9
        assert len(kept_groups(tmp_path / "kept")) == kept
    assert same(stages.run("original's outputs", tmp_path / "kept"), stages.undisturbed("original's outputs"))


# Rows of each group that every model scores: test, forgotten, holdout, forgotten_test; three models.
SCORED = 3 * (87, 40, 58, 9)


@pytest.mark.parametrize("kill_at", few({195, sum(SCORED)}, [1, 128, 195, 500, sum(SCORED)]))
def test_a_killed_evaluation_scores_no_finished_group_again_and_ends_in_the_same_bytes(
    stages: Stages, tmp_path: Path, kill_at: int
) -> None:
    assert stages.run("scores", tmp_path / "kept", kill_at=kill_at).status == -9
    ends = [0, *itertools.accumulate(SCORED)]
    # A group is told of when it is scored and kept after that: the one that reaches `kill_at` is lost.
    kept = sum(0 < end < kill_at for end in ends)
    assert len(kept_groups(tmp_path / "kept")) == kept
    whole = written(kept_groups(tmp_path / "kept"))
    ended = stages.run("scores", tmp_path / "kept")
    assert written(kept_groups(tmp_path / "kept")).items() >= whole.items()
    assert ended.told[-1] == sum(SCORED)
    assert same(ended, stages.undisturbed("scores"))


@pytest.mark.parametrize(
    ("what", "kill_in_file"),
    few({("original's outputs", 5), ("scores", 3)}, [("original's outputs", 1), ("original's outputs", 5), ("scores", 3)]),
)
def test_a_kill_while_a_row_group_is_kept_leaves_those_before_it(stages: Stages, tmp_path: Path, what: str, kill_in_file: int) -> None:
    assert stages.run(what, tmp_path / "kept", kill_in_file=kill_in_file).status == -9
    # The group's file was whole and had not got its name.
    assert len(kept_groups(tmp_path / "kept")) == kill_in_file - 1
    assert same(stages.run(what, tmp_path / "kept"), stages.undisturbed(what))


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Checkpoints(tmp_path / "c", every_s=1e9, every_steps=1)
    for step in (1, 2, 3):
        kept.save(step, {"weight": torch.full((4,), float(step))}, {"number": step})
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["step-000000002", "step-000000003"]
    newest = tmp_path / "c" / "step-000000003" / "tensors.safetensors"
    bytes_of = bytearray(newest.read_bytes())
    bytes_of[-1] ^= 1
    newest.write_bytes(bytes_of)
    with caplog.at_level("WARNING", logger="e2urec"):
        saved = kept.newest()
    assert saved is not None
    assert (saved.step, saved.facts, saved.tensors["weight"].tolist()) == (2, {"number": 2}, [2.0] * 4)
    assert "after 3 steps is damaged" in caplog.text


def test_a_checkpoint_is_due_by_steps_or_by_time(tmp_path: Path) -> None:
    assert [Checkpoints(tmp_path, every_s=1e9, every_steps=3).due(step) for step in (1, 2, 3, 4, 6)] == [False, False, True, False, True]
    assert Checkpoints(tmp_path, every_s=0.0).due(1)
    assert not Checkpoints(tmp_path, every_s=1e9).due(1)


def test_clearing_removes_every_checkpoint(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", every_s=1e9)
    kept.save(1, {"weight": torch.zeros(1)}, {})
    kept.clear()
    assert not (tmp_path / "c").exists()
    assert kept.newest() is None
