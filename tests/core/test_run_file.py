"""One stage in a process of its own: the same weights as in this one, events that can be read, and faults in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from e2urec_core import run as runner
from e2urec_core import stages
from e2urec_core.backbones.tiny_t5 import TinyT5
from e2urec_core.data.prompts import PromptRule
from e2urec_core.engine import open_bench, silent
from e2urec_core.errors import Diverged
from e2urec_core.settings import Seat, Training
from e2urec_core.stage_file import StageFile

REPOSITORY = Path(__file__).parents[2]
BACKBONE = TinyT5(width=16, num_layers=1, num_decoder_layers=1, num_heads=2, inner_width=32, vocabulary=320, dropout=0.1)
TRAINING = Training(num_epochs=1, batch_size=64, learning_rate=1e-2, patience=1)
SEAT = Seat(seed=6)
# What the engine is allowed to need; the house's own engines and tables are not among it.
STRANGERS = ("prefect", "mlflow", "great_expectations", "polars", "tasks", "flows")
AS_A_PROCESS = """
import os, runpy, sys
try:
    runpy.run_module("e2urec_core.run", run_name="__main__", alter_sys=True)
except SystemExit as ended:
    print(*[name for name in os.environ["STRANGERS"].split(",") if name in sys.modules], file=sys.stderr)
    raise
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokens(tiny_interactions: Path, tiny_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tokens")
    stages.tokenise(tiny_folders[0], tiny_interactions, PromptRule(), BACKBONE, place)
    return place


@pytest.fixture
def stage_file(tokens: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the file of a tiny original's training, with the given fields changed, and makes the folder to write into."""

    def write(**changed: Any) -> Path:
        (tmp_path / "place").mkdir(exist_ok=True)
        given = {"tokens": tokens, "backbone": BACKBONE, "training": TRAINING}
        whole = json.loads(StageFile.of("train_original", given, SEAT, Path("place"), None).model_dump_json())
        path = tmp_path / "stage.json"
        path.write_text(json.dumps({**whole, **changed}))
        return path

    return write


def test_a_process_of_its_own_ends_in_the_same_bits_tells_events_and_loads_no_other_engine(
    stage_file: Callable[..., Path], tokens: Path, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AS_A_PROCESS, str(stage_file()), "--events"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "STRANGERS": ",".join(STRANGERS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.strip() == ""
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    # 244 rows in steps of 64: 4 steps.
    assert [(event["done"], event["total"], event["unit"]) for event in events[:-1]] == [(step, 4, "steps") for step in (1, 2, 3, 4)]
    assert events[-1] == {"rows": 244}
    direct = tmp_path / "direct"
    direct.mkdir()
    assert stages.train_original(tokens, BACKBONE, TRAINING, open_bench(SEAT), direct) == 244
    apart, here = load_file(tmp_path / "place" / "model.safetensors"), load_file(direct / "model.safetensors")
    assert apart.keys() == here.keys()
    assert [name for name in apart if not torch.equal(apart[name], here[name])] == []
    assert stages.facts(tmp_path / "place") == stages.facts(direct)
    # The numbers of an event are those of the curve.
    assert [event["numbers"]["loss"] for event in events[:-1]] == [point["loss"] for point in stages.facts(direct)["curve"]]


def test_without_events_progress_goes_to_stderr_and_stdout_stays_empty(
    stage_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert runner.main([str(stage_file())]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    # The first and the last step: five seconds have not passed between.
    lines = told.err.splitlines()
    assert [line.split("  loss ")[0] for line in lines] == ["  1 of 4 steps", "  4 of 4 steps"]


def test_a_stage_keeps_its_checkpoints_beside_its_file_and_goes_on_from_them(
    stage_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seat = {**SEAT.canonical(), "engine": {"checkpoint_every_steps": 3}}
    file = stage_file(checkpoints="kept", seat=seat)
    # Tied to a process that looks after the folder, so that it stays.
    runner.run(file, silent, alone=False)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-000000003"]
    done: list[int] = []
    runner.run(file, lambda at, total, unit, numbers: done.append(at), alone=False)
    assert done == [4]


def test_a_stage_alone_takes_up_its_own_checkpoints_and_no_other_stages_and_clears_them(
    stage_file: Callable[..., Path], tmp_path: Path
) -> None:
    def started_at(rate: float, stop_at: int = 0) -> int:
        """First step that is run with this learning rate; stopped after `stop_at` steps."""
        seat = {**SEAT.canonical(), "engine": {"checkpoint_every_steps": 1}}
        rules = {"backbone": BACKBONE.canonical(), "training": {**TRAINING.canonical(), "learning_rate": rate}}
        done: list[int] = []

        def watch(at: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
            done.append(at)
            if at == stop_at:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            runner.run(stage_file(checkpoints="kept", seat=seat, rules=rules), watch)
        return done[0]

    assert started_at(1e-2, stop_at=3) == 1
    assert started_at(2e-2, stop_at=2) == 1
    # The step before the one it was stopped at is the last that was kept.
    assert started_at(1e-2) == 3
    assert started_at(2e-2) == 2
    assert list((tmp_path / "kept").iterdir()) == []
    assert started_at(1e-2) == 1


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"colour": "red"}, "BadSetting: the stage file has 1 faults; the first, at `colour`: Extra inputs"),
    "an unknown stage": ({"stage": "train_everything"}, "BadSetting: the stage file has 1 faults; the first, at `stage`:"),
    "a folder that is not there": (
        {"folders": {"tokens": "nowhere"}},
        "BadSetting: the stage file names the folder `nowhere`, which is not there",
    ),
    "an unknown rule": ({"rules": {"schooling": {}}}, "BadSetting: the stage file has 1 unknown rules: schooling"),
    "an unknown backbone": ({"rules": {"backbone": {"kind": "tiny_t6"}}}, "BadSetting: there is no `tiny_t6`"),
    "a value beyond its bound": (
        {"rules": {"training": {"num_epochs": 0}}},
        "BadSetting: a rule of the stage file has 1 faults; the first, at `num_epochs`:",
    ),
    "arguments that are missing": ({"rules": {}}, "BadSetting: the stage `train_original` also needs: backbone, training"),
    "arguments of another stage": (
        {"folders": {"tokens": ".", "request": "."}, "rules": {"backbone": BACKBONE.canonical(), "training": {}, "augment": {}}},
        "BadSetting: the stage `train_original` does not take: augment, request",
    ),
    "two processes of which one was started": (
        {"seat": {**SEAT.canonical(), "processes": 2}},
        "BadSetting: the stage file asks for 2 processes, but 1 were started",
    ),
}


@pytest.mark.parametrize(("changed", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_ends_with_one_sentence_a_hint_and_code_two(
    stage_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], changed: dict[str, Any], sentence: str
) -> None:
    assert runner.main([str(stage_file(**changed))]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(sentence)
    assert told.err.count("hint: ") == 1
    assert (told.out, "Traceback" in told.err) == ("", False)


@pytest.mark.parametrize(
    ("content", "sentence"), [("", "Invalid JSON"), ("[1]", "the stage file has 1 faults"), (None, "cannot be read: No such file")]
)
def test_what_is_no_stage_file_at_all_is_refused_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, sentence: str
) -> None:
    file = tmp_path / "stage.json"
    if content is not None:
        file.write_text(content)
    assert runner.main([str(file)]) == 2
    assert sentence in capsys.readouterr().err


def test_the_command_itself_ends_with_code_two_and_no_traceback(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "e2urec_core.run", str(tmp_path / "none.json")], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[0] == "BadSetting: the stage file cannot be read: No such file or directory"
    assert len(ended.stderr.splitlines()) == 2


def test_with_events_a_fault_is_told_with_its_numbers_and_the_last_line_is_no_rows(
    stage_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**given: Any) -> int:
        raise Diverged("the loss is nan at step 7", facts={"learning rate": 0.5}, hint="lower it")

    monkeypatch.setattr(stages, "train_original", lambda tokens, backbone, training, bench, place: refuse())
    assert runner.main([str(stage_file()), "--events"]) == 2
    told = capsys.readouterr()
    fault = {"fault": "Diverged", "fact": "the loss is nan at step 7", "hint": "lower it", "facts": {"learning rate": "0.5"}}
    assert ([json.loads(line) for line in told.out.splitlines()], told.err) == ([fault], "")


def test_what_is_our_own_bug_is_told_by_its_name_and_raised(
    stage_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "train_original", lambda tokens, backbone, training, bench, place: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        runner.main([str(stage_file()), "--events"])
    assert json.loads(capsys.readouterr().out) == {"crash": "ZeroDivisionError"}


@pytest.mark.parametrize("words", [[], ["--events"]], ids=["lines", "events"])
def test_of_several_processes_only_the_main_one_speaks(
    stage_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(runner, "HEARD_S", 0)
    assert runner.main([str(stage_file(colour="red")), *words]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")


TIED = """
import sys, time
from e2urec_core import run
run.run = lambda file, watch, alone: time.sleep(60)
sys.exit(run.main(["none", "--tied"]))
"""


def test_a_tied_stage_ends_when_the_process_that_started_it_has_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", TIED], cwd=REPOSITORY, stdin=subprocess.PIPE)
    assert process.stdin is not None
    try:
        # It works on as long as somebody holds the other end.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        process.stdin.close()
        assert process.wait(20) == 1
    finally:
        process.kill()
        process.wait()
