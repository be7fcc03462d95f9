"""One stage to a GPU: whoever asks waits for whoever works, in whichever process, and a killed process lets go at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from e2urec_core.settings import Seat
from tasks import _gpus
from tasks._gpus import gpus_for, num_gpus, visible_gpus

ON_GPU = Seat(seed=0, device="cuda")
HOLDER = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from e2urec_core.settings import Seat
from tasks._gpus import gpus_for
with gpus_for(Seat(seed=0, device="cuda"), "train-original"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


@pytest.mark.parametrize(("visible", "named"), [("0,1", ["0", "1"]), (" 3 ", ["3"]), ("", [])])
def test_gpus_are_those_that_the_environment_shows(visible: str, named: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (visible_gpus(), num_gpus()) == (named, max(1, len(named)))


def test_without_the_environment_they_are_the_driver_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(_gpus, "DRIVER", tmp_path)
    assert (visible_gpus(), num_gpus()) == ([], 1)
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / bus).mkdir()
    assert visible_gpus() == ["0", "1"]


def test_a_second_stage_waits_says_so_and_goes_on_when_the_first_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    came = threading.Event()

    def work() -> None:
        with gpus_for(ON_GPU, "unlearn"):
            came.set()

    waiting = threading.Thread(target=work)
    waiting.start()
    assert not came.wait(0.5)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert came.wait(30)
    waiting.join()
    assert capsys.readouterr().err == "unlearn waits for GPU 0, on which another stage is at work\n"


def test_stages_on_cpus_and_on_other_gpus_wait_for_nobody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with gpus_for(ON_GPU, "one"):
        with gpus_for(Seat(seed=0), "another"):
            pass
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        with gpus_for(ON_GPU, "a worker's own GPU"):
            pass
    assert capsys.readouterr().err == ""
