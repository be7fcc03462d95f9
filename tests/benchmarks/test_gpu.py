"""The command for a GPU machine, on the CPU and in its smallest form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.pace import Pace

SMALL = ["--device", "cpu", "--steps", "3", "--batch-size", "8", "--compiled", "off", "--precision", "fp32", "--ceiling-seconds", "0.2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_machine_without_a_cuda_device_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "torch sees 0 CUDA devices" in captured.err
    assert "--device cpu" in captured.err


def test_random_rows_are_measured_on_both_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([*SMALL, "--shape", "tiny", "tiny-bart", "--tokens-a-row", "20"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [line["shape"] for line in told["measured"]] == ["tiny", "tiny-bart"]
    assert told["rows"] == "random"
    for line in told["measured"]:
        assert line["training"]["rows_per_second"] > 0
        for form in ("method", "variants"):
            assert line[form]["unlearning"]["rows_per_second"] > 0
            assert line[form]["estimated_all_in_ratio"] > line[form]["estimated_unlearn_alone_ratio"] > 0


def test_carried_rows_bring_their_own_counts_and_no_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--prepare", str(tmp_path / "rows")]) == 0
    assert not list(tmp_path.rglob("users*"))
    capsys.readouterr()
    assert gpu.main([*SMALL, "--shape", "tiny", "--tokens", str(tmp_path / "rows")]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["rows"] == "carried"
    assert 0 < told["estimated_for"]["forgotten_rows"] < told["estimated_for"]["training_rows"]


def test_an_estimate_is_the_rows_of_every_stage_over_its_rows_a_second() -> None:
    counted = {"training_rows": 100, "forgotten_rows": 20, "training_passes": 4, "augment_passes": 2, "method_passes": 1}
    pace = Pace(steps=1, seconds=1.0, flops=1.0, rows=10)
    told = gpu.estimate(counted, pace, pace, {"cache_original": 20.0, "cache_teachers": 5.0})
    # 4 * 80 / 10; 2 * 20 / 10; 20 / 20; 20 / 5; 2 * 1 * 20 / 10
    assert told["estimated_seconds"] == {
        "train_retrained": 32.0,
        "train_augmented": 4.0,
        "cache_original": 1.0,
        "cache_teachers": 4.0,
        "unlearn": 4.0,
    }
    assert told["estimated_all_in_ratio"] == 13.0 / 32.0
    assert told["estimated_unlearn_alone_ratio"] == 4.0 / 32.0
