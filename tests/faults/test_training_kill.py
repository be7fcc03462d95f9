"""A training killed with SIGKILL and started again ends in the bits of one that was never killed (FAULTS: I8, rows 1, 7, 12)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from e2urec_core.checkpoints import Checkpoints

# Runs trainings in forked children of one process that has imported torch but not used it yet: a kill costs no import.
CHILDREN = """
import json, os, signal, sys
import numpy, torch
# What the children need, so that none of them spends its seconds on imports.
import peft, pyarrow.parquet, safetensors.torch, tokenizers
import transformers.models.t5.modeling_t5
from pathlib import Path
from e2urec_core.backbones.tiny_t5 import TinyT5
from e2urec_core.checkpoints import Checkpoints, KeptTables
from e2urec_core.data.logit_cache import Stamp, TeacherCache, write_cache
from e2urec_core.methods.base import Problem
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.settings import CacheRule, Training
from e2urec_core.training import Bench, fit_answers

torch.set_num_threads(1)
LIKED, TEXTS = numpy.arange(48) % 2, [f"The user watched film {n % 7} of {n % 5}. Will the user like film {n}?" for n in range(48)]
SMALL = TinyT5(width=16, num_layers=1, num_heads=2, inner_width=32, vocabulary=320, dropout=0.1)

def rows(recommender, first, last):
    return recommender.prompts(numpy.arange(first, last), LIKED[first:last], TEXTS[first:last])

def original(bench, place):
    recommender = SMALL.build(TEXTS, 0)
    training = Training(num_epochs=4, batch_size=8, patience=2, learning_rate=5e-3)
    fitted = fit_answers(recommender, rows(recommender, 0, 40), rows(recommender, 40, 48), training, bench, purpose="original")
    return recommender, fitted

def unlearning(bench, place):
    recommender = SMALL.build(TEXTS, 0)
    forgotten, retained = rows(recommender, 0, 16), rows(recommender, 16, 48)
    other = SMALL.build(TEXTS, 1)
    stamp, parts = Stamp("a", "b", "c"), {"forgotten": forgotten, "retained": retained}
    place.mkdir(exist_ok=True)
    write_cache(place, recommender, other, parts, CacheRule(rows_per_group=16), stamp, 0)
    method = E2URec(training=Training(num_epochs=4, batch_size=4, learning_rate=5e-3))
    problem = Problem(recommender, retained, forgotten, retained, TeacherCache(place, stamp, parts))
    outcome = method.unlearn(problem, bench)
    return outcome.recommender, outcome.fitted

def caching(bench, place):
    first, second = SMALL.build(TEXTS, 0), SMALL.build(TEXTS, 1)
    parts = {"forgotten": rows(first, 0, 16), "retained": rows(first, 16, 48)}
    place.mkdir(exist_ok=True)
    kept = KeptTables(bench.checkpoints.folder) if bench.checkpoints else None
    # Groups of 16 rows: one of forgotten rows, two of retained ones; the watcher counts half groups.
    done = [0]
    def each(count):
        done[0] += count
        bench.watch(done[0] // 8, 6, "groups", {})
    write_cache(place, first, second, parts, CacheRule(rows_per_group=16), Stamp("a", "b", "c"), 0, each, kept)
    class Files:
        curve = []
        validation = [(place / f"{part}.parquet").read_bytes().hex() for part in parts]
        best_pass = done[0]
    return first, Files

def child(what, folder, every_steps, kill_at, kill_in_save, answer):
    steps = 0
    def watch(done, total, unit, numbers):
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    checkpoints = Checkpoints(folder, every_s=1e9, every_steps=every_steps) if every_steps else None
    if kill_in_save:
        import e2urec_core.checkpoints as module
        saves = [0]
        def digest(path, real=module.file_digest):
            saves[0] += 1
            if saves[0] == kill_in_save:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(path)
        module.file_digest = digest
    recommender, fitted = globals()[what](Bench(0, watch=watch, checkpoints=checkpoints), folder.parent / (folder.name + "-cache"))
    import hashlib
    weights = b"".join(t.detach().numpy().tobytes() for _, t in sorted(recommender.network.state_dict().items()))
    told = [hashlib.sha256(weights).hexdigest(), [[p.step, p.loss] for p in fitted.curve], list(fitted.validation), fitted.best_pass]
    answer.write_text(json.dumps(told))
    os._exit(0)

for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        child(job["what"], Path(job["folder"]), job["every_steps"], job["kill_at"], job["kill_in_save"], Path(job["answer"]))
    _, status = os.waitpid(pid, 0)
    print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""


class Trainings:
    """Starts trainings in children and kills them."""

    def __init__(self, place: Path) -> None:
        self.place, self.number = place, 0
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CHILDREN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def run(self, what: str, folder: Path, *, every_steps: int = 0, kill_at: int = 0, kill_in_save: int = 0) -> tuple[int, object]:
        """Exit status (negative: the signal), and what the training ended in."""
        self.number += 1
        answer = self.place / f"answer-{self.number}.json"
        job = {"what": what, "folder": str(folder), "every_steps": every_steps, "kill_at": kill_at, "kill_in_save": kill_in_save}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({**job, "answer": str(answer)}) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        return status, json.loads(answer.read_text()) if answer.exists() else None


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(tmp_path_factory.mktemp("trainings"))


@pytest.fixture(scope="module")
def undisturbed(trainings: Trainings) -> dict[str, object]:
    return {what: trainings.run(what, trainings.place / f"never-{what}")[1] for what in ("original", "unlearning", "caching")}


KILL_POINTS = [
    (what, random.Random(f"{what}-{number}").randint(1, 15), random.Random(f"{what}-every-{number}").choice([1, 2, 3, 5]))
    for what in ("original", "unlearning")
    for number in range(6)
]


@pytest.mark.parametrize(("what", "kill_at", "every_steps"), KILL_POINTS)
def test_a_killed_training_goes_on_and_ends_in_the_same_bits(
    trainings: Trainings, undisturbed: dict[str, object], tmp_path: Path, what: str, kill_at: int, every_steps: int
) -> None:
    folder = tmp_path / "checkpoints"
    killed, _ = trainings.run(what, folder, every_steps=every_steps, kill_at=kill_at)
    assert killed == -9
    # The watcher is told of a step before its checkpoint is written, so the kill loses that step.
    assert bool(list(folder.glob("step-*"))) == (kill_at > every_steps)
    status, ended = trainings.run(what, folder, every_steps=every_steps)
    assert status == 0
    assert ended == undisturbed[what]


@pytest.mark.parametrize("kill_at", [2, 4, 6])
def test_a_killed_cache_stage_keeps_its_row_groups_and_ends_in_the_same_bytes(
    trainings: Trainings, undisturbed: dict[str, object], tmp_path: Path, kill_at: int
) -> None:
    folder = tmp_path / "checkpoints"
    assert trainings.run("caching", folder, every_steps=1, kill_at=kill_at)[0] == -9
    # Groups hold 16 rows: the one whose rows are being counted is lost, those before it are kept.
    assert len(list(folder.glob("*.parquet"))) == kill_at // 2 - 1
    for damaged in list(folder.glob("*.parquet"))[:1]:
        damaged.write_bytes(damaged.read_bytes()[:-1])
    assert trainings.run("caching", folder, every_steps=1)[1] == undisturbed["caching"]


def test_a_training_killed_again_while_it_goes_on_ends_in_the_same_bits(
    trainings: Trainings, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    for kill_at in (4, 7, 8, 14):
        assert trainings.run("original", folder, every_steps=2, kill_at=kill_at)[0] == -9
    assert trainings.run("original", folder, every_steps=2)[1] == undisturbed["original"]


@pytest.mark.parametrize("kill_in_save", [1, 2, 5])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    trainings: Trainings, undisturbed: dict[str, object], tmp_path: Path, kill_in_save: int
) -> None:
    folder = tmp_path / "checkpoints"
    assert trainings.run("original", folder, every_steps=2, kill_in_save=kill_in_save)[0] == -9
    # Two digests a checkpoint: the first and the second kill fall into the first one, the fifth into the third.
    assert len(list(folder.glob("step-*"))) == (kill_in_save - 1) // 2
    assert trainings.run("original", folder, every_steps=2)[1] == undisturbed["original"]


def test_a_training_starts_anew_when_every_checkpoint_is_damaged(
    trainings: Trainings, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    assert trainings.run("original", folder, every_steps=3, kill_at=10)[0] == -9
    for tensors in folder.glob("step-*/tensors.safetensors"):
        tensors.write_bytes(tensors.read_bytes()[:-1])
    assert trainings.run("original", folder, every_steps=3)[1] == undisturbed["original"]


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
