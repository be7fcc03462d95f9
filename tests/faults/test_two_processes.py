"""Two processes share every step and every row group, and give what one gives; one of them killed is a process that died.

One launch runs all stages that are compared, one after another. Measured on a CPU: losses differ by at most 7e-8 of their size at the
first step and by at most 1.4e-6 at any later one, weights by at most 5e-7; what is only scored is equal in every byte.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from small_stages import (
    AUGMENT,
    BACKBONE,
    METHOD,
    RULE,
    SEAT,
    SHARDED,
    TRAINING,
    arguments,
    changed,
    digests_in,
    left_beside,
    perform_inline,
    performed,
    workers_of,
)

from e2urec_core.errors import ProcessDied, StaleCache
from e2urec_core.settings import EngineRule, Lora, Seat
from e2urec_core.stage_file import StageFile

pytestmark = pytest.mark.slow

# A sum over two processes runs in another order than one over all rows, and the difference grows from step to step.
FIRST_STEP, ANY_STEP, WEIGHT = 1e-6, 1e-4, 1e-5
TWO = Seat(seed=SEAT.seed, processes=2)
PIECES = EngineRule(token_budget=900)
KEEPING = EngineRule(checkpoint_every_s=1e9, checkpoint_every_steps=2)
LONG = changed(TRAINING, num_epochs=6, patience=0)
SEVERAL = """
import sys
from e2urec_core.run import main

for file in sys.argv[1:]:
    assert main([file, "--events"]) == 0
"""


class Case(NamedTuple):
    """A stage as it is run by one and by two processes; `given` replaces arguments, `engine` the engine's rule."""

    stage: str
    given: dict[str, Any]
    engine: EngineRule = EngineRule()


def cases(one: Path) -> dict[str, Case]:
    """What is compared; each reads what the ones before it have given in one process, below `one`.

    All without dropout, which would draw other numbers in other processes.
    """
    original, augmented = {"original": one / "original"}, {"augmented": one / "rows one by one"}
    caches = {"remembering": one / "original's outputs", "teachers": one / "teachers' outputs"}
    steady = {"backbone": changed(BACKBONE, dropout=0.0), "training": changed(TRAINING, num_epochs=3, learning_rate=0.02)}
    checked = changed(AUGMENT, num_epochs=8, batch_size=8, learning_rate=0.01, patience=2, check_every=3)
    models = [("original", one / "original"), ("retrain", one / "stopped early"), ("e2urec", one / "unlearned")]
    return {
        "original": Case("train_original", steady),
        "original in pieces": Case("train_original", steady, PIECES),
        "stopped early": Case("train_augmented", {**original, "augment": checked}),
        "rows one by one": Case("train_augmented", {**original, "augment": changed(AUGMENT, num_epochs=1, batch_size=1)}),
        "original's outputs": Case("cache_original", original),
        "teachers' outputs": Case("cache_teachers", {**original, **augmented}),
        "unlearned": Case(
            "unlearn", {**original, **augmented, **caches, "method": changed(METHOD, lora=Lora(rank=4, dropout=0.0).canonical())}
        ),
        "shards": Case("train_shards", {"backbone": steady["backbone"], "sharding": SHARDED.sharding(steady["training"])}),
        "shards that are left": Case("unlearn", {**steady, "method": SHARDED, "shards": one / "shards"}),
        "scores": Case("evaluate", {"models": models}),
    }


class Told(NamedTuple):
    """Folders of what one and two processes gave, by case; and of a training with dropout by two."""

    one: Path
    two: Path

    def facts(self, case: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the stage noted in one process and in two."""
        one, two = (json.loads((folder / case / "facts.json").read_text()) for folder in (self.one, self.two))
        return one, two

    def losses(self, case: str) -> list[tuple[float, float]]:
        """Loss of every step in one process and in two; the steps are the same."""
        one, two = (facts["curve"] for facts in self.facts(case))
        assert [point["step"] for point in one] == [point["step"] for point in two] == list(range(1, len(one) + 1))
        return [(here["loss"], there["loss"]) for here, there in zip(one, two, strict=True)]


@pytest.fixture(scope="module")
def told(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    root = tmp_path_factory.mktemp("processes")
    one, two, files = root / "one", root / "two", []
    for name, case in cases(one).items():
        given = arguments(inputs, case.stage, **case.given)
        perform_inline(case.stage, given, one / name, SEAT.model_copy(update={"engine": case.engine}))
        files.append(
            (name, StageFile.of(case.stage, given, TWO.model_copy(update={"engine": case.engine}), two / name, root / "kept" / name))
        )
    undisturbed = arguments(inputs, "train_original", training=LONG)
    files.append(("undisturbed", StageFile.of("train_original", undisturbed, TWO, two / "undisturbed", root / "kept" / "undisturbed")))
    for number, (name, file) in enumerate(files):
        (two / name).mkdir(parents=True)
        (root / f"{number}.json").write_text(file.model_dump_json())
    (root / "several.py").write_text(SEVERAL)
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    stages = [root / f"{number}.json" for number in range(len(files))]
    ended = subprocess.run([*launcher, root / "several.py", *stages], capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr
    return Told(one, two)


TRAININGS = ("original", "original in pieces", "stopped early", "rows one by one", "unlearned", "shards", "shards that are left")


@pytest.mark.parametrize("case", TRAININGS)
def test_the_first_step_has_the_loss_of_one_process_so_its_rows_are_the_same(told: Told, case: str) -> None:
    one, two = told.losses(case)[0]
    assert two == pytest.approx(one, rel=FIRST_STEP)


@pytest.mark.parametrize("case", TRAININGS)
def test_every_step_has_the_loss_of_one_process(told: Told, case: str) -> None:
    losses = told.losses(case)
    assert max(abs(two - one) / one for one, two in losses) < ANY_STEP


def test_every_part_of_the_loss_of_unlearning_is_that_of_one_process(told: Told) -> None:
    for one, two in zip(*(facts["curve"] for facts in told.facts("unlearned")), strict=True):
        assert set(one["parts"]) == {"forget", "answer", "remember"}
        # The student starts as the remembering teacher, so that part starts at 0 but for rounding.
        assert two["parts"] == pytest.approx(one["parts"], rel=1e-3, abs=1e-7)


def test_the_losses_differ_from_step_to_step_by_more_than_the_bounds(told: Told) -> None:
    losses = [one for one, _ in told.losses("original")]
    assert min(abs(later - earlier) / earlier for earlier, later in itertools.pairwise(losses)) > 10 * ANY_STEP


def test_early_stopping_takes_the_same_checks_and_returns_to_the_same_one(told: Told) -> None:
    one, two = told.facts("stopped early")
    assert two["validation"] == pytest.approx(one["validation"], rel=ANY_STEP)
    assert (len(two["validation"]), two["best_check"]) == (len(one["validation"]), one["best_check"])
    # It did stop: at check 10, after step 30 of 40.
    assert (one["best_check"], len(one["validation"]), len(one["curve"])) == (8, 10, 30)


def test_a_step_with_fewer_rows_than_processes_is_a_step(told: Told) -> None:
    # 40 forgotten rows, one a step: the second process has nothing to do and takes part in every sum.
    assert len(told.losses("rows one by one")) == 40


@pytest.mark.parametrize("case", ["original's outputs", "teachers' outputs", "scores"])
def test_what_is_scored_is_the_same_bytes(told: Told, case: str) -> None:
    # A row group is scored by one process, in the batches in which a single process scores it.
    assert digests_in(told.two / case) == digests_in(told.one / case)


def test_a_model_trained_by_two_processes_is_written_whole(told: Told) -> None:
    from e2urec_core.recommender import load

    one, two = (dict(load(folder / "original").network.named_parameters()) for folder in (told.one, told.two))
    assert {path.name for path in (told.two / "original").iterdir()} == {path.name for path in (told.one / "original").iterdir()}
    for name, weight in one.items():
        assert (weight - two[name]).abs().max().item() < WEIGHT


def test_shards_that_two_processes_have_trained_are_those_of_one(told: Told) -> None:
    one, two = digests_in(told.one / "shards"), digests_in(told.two / "shards")
    assert one.keys() == two.keys()
    assert one["partition.parquet"] == two["partition.parquet"]
    assert len([name for name in one if name.endswith("weights.safetensors")]) == 4


class Killed(NamedTuple):
    """A training by two processes, of which the second was killed after step 12.

    Args:
        root: Folder of what it keeps and gives.
        told: Steps of which it was told.
        died: What it raised.
        left: What lay beside its place then.
        alive: Number of workers then.
    """

    root: Path
    told: list[int]
    died: ProcessDied
    left: set[str]
    alive: int


@pytest.fixture(scope="module")
def killed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    root, me, told = tmp_path_factory.mktemp("killed"), psutil.Process(), list[int]()

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        told.append(done)
        if done == 12:
            _, second = workers_of(me)
            second.kill()

    with pytest.raises(ProcessDied) as died:
        kept_training(inputs, root, "killed", watch)
    return Killed(root, told, died.value, left_beside(root / "killed" / "place"), len(workers_of(me)))


def kept_training(inputs: Path, root: Path, name: str, watch: Callable[..., None]) -> None:
    """Train by two processes that keep a checkpoint after every second step, and go on from what is kept below `root`."""
    seat = TWO.model_copy(update={"engine": KEEPING})
    performed(inputs, "train_original", root / name / "place", root / "kept", seat, watch, training=LONG)


@pytest.fixture(scope="module")
def ended(inputs: Path, killed: Killed) -> list[int]:
    """Steps of which the next call was told, which ran to the end."""
    told: list[int] = []
    kept_training(inputs, killed.root, "ended", lambda done, *_: told.append(done))
    return told


@pytest.mark.long
def test_one_of_two_processes_killed_is_a_process_that_died(killed: Killed) -> None:
    # The launcher's exit code; the other process may have come to say that it lost the killed one before it was ended, too.
    assert re.fullmatch(r"the process of `train-original` ended with exit code 1( \(RuntimeError\))?", killed.died.fact)
    assert killed.told[-1] < 48


@pytest.mark.long
def test_the_next_call_of_two_processes_goes_on_from_the_last_checkpoint(ended: list[int]) -> None:
    """Of one process: `test_stage_process.py`."""
    # A checkpoint follows every second step.
    assert ended[0] > 1
    assert ended[0] % 2 == 1
    assert ended == list(range(ended[0], 49))


@pytest.mark.long
def test_after_the_kill_two_processes_end_in_the_bytes_of_two_that_were_not_disturbed(killed: Killed, ended: list[int], told: Told) -> None:
    # With dropout: the random state of each process is brought back.
    assert digests_in(killed.root / "ended" / "place") == digests_in(told.two / "undisturbed")
    assert (left_beside(killed.root / "ended" / "place"), len(workers_of(psutil.Process()))) == (set(), 0)


def test_neither_the_other_process_nor_the_launcher_nor_a_stage_file_outlives_the_kill(killed: Killed) -> None:
    assert (killed.left, killed.alive) == (set(), 0)
    assert list((killed.root / "kept").glob("step-*"))
    # Other tests of this process may have children of their own.
    assert [child for child in psutil.Process().children(recursive=True) if "e2urec_core.run" in " ".join(child.cmdline())] == []


@pytest.mark.long
def test_a_refusal_of_two_processes_arrives_whole_though_the_main_one_is_late_and_nothing_else_is_said(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of one process: `test_stage_process.py`."""

    def hold_the_main_process() -> None:
        while len(workers_of(me)) < 2:
            time.sleep(0.02)
        main, second = workers_of(me)
        while main.cpu_times().user < 1:
            time.sleep(0.02)
        main.suspend()
        # The other one has been refused by then: it computes no more.
        asleep = 0
        while asleep < 20:
            asleep = asleep + 1 if second.status() == psutil.STATUS_SLEEPING else 0
            time.sleep(0.02)
        main.resume()
        held.append(True)

    held: list[bool] = []
    me, holder = psutil.Process(), threading.Thread(target=hold_the_main_process, daemon=True)
    holder.start()
    with pytest.raises(StaleCache, match="was made from another rule") as refused:
        performed(inputs, "unlearn", tmp_path / "place", tmp_path / "kept", TWO, rule=changed(RULE, top=9))
    holder.join(10)
    assert held
    assert set(refused.value.facts) == {"cache has", "at hand"}
    assert capfd.readouterr() == ("", "")
