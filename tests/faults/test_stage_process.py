"""A stage in processes of its own: the same bytes, the same refusals; whichever process dies, nothing is lost and nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from small_stages import RULE, SEAT, TRAINING, arguments, changed, digests_in, left_beside, perform_inline, performed, silent, workers_of

from e2urec_core.errors import ProcessDied, StaleCache, StorageFailed
from e2urec_core.settings import EngineRule, Seat
from e2urec_core.stage_file import StageFile
from e2urec_core.store import Store
from tasks._isolation import _followed, perform_apart

pytestmark = pytest.mark.slow

# A checkpoint after every second step, none by the clock.
KEEPING = Seat(seed=SEAT.seed, engine=EngineRule(checkpoint_every_s=1e9, checkpoint_every_steps=2))
# 48 steps: a kill after the twelfth comes long before the end, however late it is noticed.
LONG = changed(TRAINING, num_epochs=6, patience=0)


class Story(NamedTuple):
    """One training apart: interrupted after step 4, killed after step 12, and run to its end.

    Args:
        place: What it gave at last.
        told: Steps, of how many, and their losses, of which each of the three calls was told.
        died: What the killed call raised.
        left: What lay beside the place after each call.
        alive: Number of workers after each call.
    """

    place: Path
    told: list[list[tuple[int, int, float]]]
    died: ProcessDied
    left: list[set[str]]
    alive: list[int]


@pytest.fixture(scope="module")
def story(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    root, me = tmp_path_factory.mktemp("apart"), psutil.Process()
    told: list[list[tuple[int, int, float]]] = []
    left, alive = [], []

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        told[-1].append((done, total, numbers["loss"]))
        if (len(told), done) == (1, 4):
            raise KeyboardInterrupt
        if (len(told), done) == (2, 12):
            (worker,) = workers_of(me)
            worker.kill()

    died = None
    for number in range(3):
        told.append([])
        try:
            performed(inputs, "train_original", root / str(number) / "place", root / "kept", KEEPING, watch, training=LONG)
        except KeyboardInterrupt:
            assert number == 0
        except ProcessDied as error:
            died = error
        left.append(left_beside(root / str(number) / "place"))
        alive.append(len(workers_of(me)))
    assert died is not None
    return Story(root / "2" / "place", told, died, left, alive)


def test_a_killed_process_is_said_with_its_stage_and_signal(story: Story) -> None:
    assert story.died.fact == "the process of `train-original` ended with signal 9"
    assert "last checkpoint" in story.died.hint


def test_the_next_call_goes_on_from_the_last_checkpoint(story: Story) -> None:
    interrupted, killed, ended = ([done for done, _, _ in call] for call in story.told)
    assert interrupted == [1, 2, 3, 4]
    # A checkpoint follows every second step; the worker may have been steps ahead of what was read of it.
    assert 1 < killed[0] < ended[0]
    assert (killed[0] % 2, ended[0] % 2) == (1, 1)
    assert ended == list(range(ended[0], 49))


def test_after_an_interruption_and_a_kill_the_files_are_those_of_an_undisturbed_run_in_this_process(
    story: Story, inputs: Path, tmp_path: Path
) -> None:
    perform_inline("train_original", arguments(inputs, "train_original", training=LONG), tmp_path / "place")
    assert digests_in(story.place) == digests_in(tmp_path / "place")


def test_the_watcher_is_told_every_step_with_the_losses_that_the_stage_notes(story: Story) -> None:
    curve = json.loads((story.place / "facts.json").read_text())["curve"]
    assert story.told[2] == [(point["step"], len(curve), point["loss"]) for point in curve][story.told[2][0][0] - 1 :]


def test_neither_a_process_nor_a_stage_file_is_left_after_an_interruption_a_kill_or_the_end(story: Story) -> None:
    assert (story.left, story.alive) == ([set()] * 3, [0] * 3)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [("evaluate", {}), pytest.param("cache_original", {"earlier": ["cache_original"]}, marks=pytest.mark.long)],
    ids=["evaluate", "cache-original"],
)
def test_what_a_stage_scores_is_the_same_bytes_as_in_this_process(
    inputs: Path, tmp_path: Path, stage: str, changes: dict[str, Any]
) -> None:
    given = {name: [inputs / folder for folder in folders] for name, folders in changes.items()}
    told = []
    rows = performed(inputs, stage, tmp_path / "place", tmp_path / "kept", watch=lambda *call: told.append(call), **given)
    assert digests_in(tmp_path / "place") == digests_in(inputs / stage)
    # 194 rows of four groups with three models; six groups of 16 rows.
    assert rows == {"evaluate": 3 * 194, "cache_original": 96}[stage]
    assert told[-1] == (rows, rows, "rows", {})
    assert left_beside(tmp_path / "place") == {"kept"}


def test_a_refusal_arrives_as_the_same_class_with_its_fact_facts_and_hint(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = changed(RULE, top=9)
    with pytest.raises(StaleCache) as here:
        perform_inline("unlearn", arguments(inputs, "unlearn", rule=other), tmp_path / "here")
    capfd.readouterr()
    with pytest.raises(StaleCache) as there:
        performed(inputs, "unlearn", tmp_path / "there" / "place", tmp_path / "kept", rule=other)
    assert (there.value.fact, there.value.hint) == (here.value.fact, here.value.hint)
    assert there.value.facts == here.value.facts != {}
    assert str(there.value) == str(here.value)
    assert capfd.readouterr() == ("", "")
    assert left_beside(tmp_path / "there" / "place") == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file here is always full")
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_full_disk_is_said_as_it_is_of_a_stage_in_this_process(
    inputs: Path, tmp_path: Path, processes: int, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "there" / "place"
    place.mkdir(parents=True)
    (place / "facts.json").symlink_to("/dev/full")
    seat = SEAT.model_copy(update={"processes": processes})
    with pytest.raises(StorageFailed) as failed:
        perform_apart("train_augmented", arguments(inputs, "train_augmented"), seat, place, tmp_path / "kept", silent)
    # The sentence and the hint are those of `tasks/_stage.py`.
    assert failed.value.fact == "train-augmented could not read or write a file: No space left on device"
    assert failed.value.hint == "check the disk, then run the command again"
    # Of two processes, the one that waits for the other says on stderr that it has gone.
    assert processes == 2 or capfd.readouterr() == ("", "")
    assert left_beside(place) == set()


def followed(program: str) -> tuple[int, list[tuple[Any, ...]]]:
    """Rows and calls of the watcher when a stage's process runs `program`."""
    calls: list[tuple[Any, ...]] = []
    process = subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    with process:
        return _followed(process, "cache_teachers", lambda *call: calls.append(call)), calls


def test_lines_that_are_no_events_are_passed_over() -> None:
    program = 'print("noise"); print("[1]"); print(7); print(""); print(\'{"done": 1, "total": 2, "unit": "rows", "numbers": {}}\')'
    assert followed(program + "; print('{\"rows\": 3}')") == (3, [(1, 2, "rows", {})])


@pytest.mark.parametrize(
    ("program", "fact"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the process of `cache-teachers` ended with signal 9"),
        ('print(\'{"crash": "ValueError"}\'); raise SystemExit(1)', "the process of `cache-teachers` ended with exit code 1 (ValueError)"),
        ("print('{\"rows\": 3}', flush=True); raise SystemExit(4)", "the process of `cache-teachers` ended with exit code 4"),
        ("", "the process of `cache-teachers` ended with exit code 0"),
    ],
    ids=["killed", "crashed", "failed-after-its-rows", "said-no-rows"],
)
def test_a_process_that_does_not_end_well_with_its_rows_has_died(program: str, fact: str) -> None:
    with pytest.raises(ProcessDied) as died:
        followed(program)
    assert died.value.fact == fact


# Runs a stage apart in a store's workplace, as a flow does, and says how far it is.
PARENT = """
import sys
from pathlib import Path
from e2urec_core.stage_file import StageFile
from e2urec_core.store import Store
from tasks._isolation import perform_apart

stage = StageFile.model_validate_json(Path(sys.argv[1]).read_bytes())
with Store(Path(stage.place)).workplace() as place:
    given = stage.arguments(Path("/"))
    perform_apart(stage.stage, given, stage.seat, place, Path(stage.checkpoints), lambda done, *_: print(done, flush=True))
"""


class Orphans(NamedTuple):
    """Processes whose parent was killed while they trained, and the parent's store."""

    processes: list[psutil.Process]
    store: Path
    kept: Path
    seconds: float


def running(process: psutil.Process) -> bool:
    """Whether it runs; where nobody collects an orphan's exit status, a dead one stays listed as a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def orphans(request: pytest.FixtureRequest, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orphans]:
    root = tmp_path_factory.mktemp("orphans")
    seat = KEEPING.model_copy(update={"processes": request.param})
    given = arguments(inputs, "train_original", training=changed(TRAINING, num_epochs=1000, patience=0))
    (root / "stage.json").write_text(StageFile.of("train_original", given, seat, root / "store", root / "kept").model_dump_json())
    parent = subprocess.Popen([sys.executable, "-c", PARENT, root / "stage.json"], stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert parent.stdout is not None
    for line in parent.stdout:
        if int(line) == 4:
            break
    below = psutil.Process(parent.pid).children(recursive=True)
    assert len(workers_of(psutil.Process(parent.pid))) == request.param
    parent.kill()
    started = time.monotonic()
    while any(running(process) for process in below) and time.monotonic() - started < 20:
        time.sleep(0.02)
    seconds = time.monotonic() - started
    parent.wait(10)
    yield Orphans(below, root / "store", root / "kept", seconds)
    for process in below:
        if running(process):
            process.kill()


def test_no_child_outlives_a_killed_parent_by_more_than_a_few_seconds(orphans: Orphans) -> None:
    assert [process.pid for process in orphans.processes if running(process)] == []
    # Measured: 0.02 s for one process, 0.6 s for two and their launcher.
    assert orphans.seconds < 5


def test_what_a_killed_parent_left_is_swept_when_the_store_is_opened_next(orphans: Orphans) -> None:
    left = sorted(path.suffix for path in (orphans.store / "tmp").iterdir())
    assert left == ["", ".json"]
    Store(orphans.store)
    assert list((orphans.store / "tmp").iterdir()) == []
    assert list(orphans.kept.glob("step-*"))
