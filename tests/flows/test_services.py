"""Servers and workers that outlive a command: written down, recognised, and ended, they and what they have started, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from e2urec_console import Console

from e2urec_core.errors import ServiceFailed
from flows.services.processes import FOLDER, Service, Services, end, start, wait_for
from flows.services.workers import workers

# Starts another process and lives on; both would outlive the test.
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); time.sleep(600)"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir()
    return tmp_path


def test_what_was_started_is_found_again_and_ended_with_what_it_started(place: Path) -> None:
    service = start(place, "worker", [sys.executable, "-c", PARENT], {})
    Services().with_one(service).note(place)
    assert Services.of(place).named("worker") == service
    process = psutil.Process(service.process)
    until = time.monotonic() + 30
    while not process.children() and time.monotonic() < until:
        time.sleep(0.05)
    (child,) = process.children()
    assert end(service) == 2
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    with suppress(psutil.Error):
        process.wait(10)
    assert Services.of(place) == Services()
    assert end(service) == 0


def test_another_process_of_the_same_number_is_left_alone(place: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        reused = Service(name="worker", process=other.pid, started=psutil.Process(other.pid).create_time() - 100)
        Services(services=(reused,)).note(place)
        assert Services.of(place) == Services()
        assert end(reused) == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_server_that_ends_at_once_is_said_with_the_end_of_its_log(place: Path) -> None:
    service = start(place, "mlflow", [sys.executable, "-c", "raise SystemExit('no such database')"], {}, "http://127.0.0.1:9")
    with pytest.raises(ServiceFailed, match="the mlflow server ended") as refused:
        wait_for(service, "/health", place, 30)
    assert refused.value.facts["which ends"] == "no such database"


def test_notes_that_cannot_be_read_name_nothing(place: Path) -> None:
    (place / FOLDER / "services.json").write_text("{")
    assert Services.of(place) == Services()


def test_a_machine_without_a_gpu_has_one_worker_and_others_one_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (alone,) = workers(3)
    assert (alone.name, alone.line[-2:], "--work-queue" in alone.line) == ("worker", ("--limit", "3"), False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    cpu, *gpus = workers(3)
    assert (cpu.environment["CUDA_VISIBLE_DEVICES"], cpu.line[-2:]) == ("", ("--work-queue", "cpu"))
    assert [each.environment["CUDA_VISIBLE_DEVICES"] for each in gpus] == ["0", "2"]
    assert all(each.line[-4:] == ("--limit", "1", "--work-queue", "gpu") for each in gpus)


def test_a_port_that_is_taken_is_one_sentence_and_nothing_is_started(console: Console, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = console("serve", "--prefect-port", str(port), workspace=tmp_path / "workspace")
    assert answer.code == 2
    assert answer.stderr.startswith(f"ServiceFailed: port {port} of 127.0.0.1 cannot be taken: ")
    assert "hint: name another one with `--prefect-port`" in answer.stderr
    assert Services.of(tmp_path / "workspace") == Services()
    assert console("stop", workspace=tmp_path / "workspace").stdout == "nothing is served here\n"
    assert os.listdir(tmp_path / "workspace" / FOLDER) == []
