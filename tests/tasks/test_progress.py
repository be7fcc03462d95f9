"""Progress: plain lines now and then where nobody watches, a bar in a terminal, and stdout left alone."""

from __future__ import annotations

import io
import re
import sys

import pytest

from tasks import _progress
from tasks._progress import progress


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def test_plain_lines_tell_how_far_how_fast_and_how_long(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_progress, "LINE_EVERY_S", 0.0)
    with progress("unlearn") as watch:
        watch(1_500, 3_000, "steps", {"loss": 0.41234, "forget": 0.1})
    out, err = capfd.readouterr()
    assert out == ""
    told = re.fullmatch(r"  unlearn  1,500 of 3,000 steps  ([\d,]+) steps/s  ([\d,]+) s left  loss 0\.412  forget 0\.100\n", err)
    assert told, err
    assert "\x1b" not in err


def test_a_stage_without_numbers_has_no_space_at_the_end_of_its_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_progress, "LINE_EVERY_S", 0.0)
    with progress("evaluate") as watch:
        watch(1, 4, "models", {})
    assert capfd.readouterr().err.endswith(" s left\n")


def test_a_quick_stage_prints_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("unlearn") as watch:
        for step in range(1, 101):
            watch(step, 100, "steps", {"loss": 0.5})
    assert capfd.readouterr() == ("", "")


def test_lines_come_no_oftener_than_every_ten_seconds(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(_progress.time, "perf_counter", lambda: float(next(clock)))
    with progress("unlearn") as watch:
        for step in range(1, 11):
            watch(step, 10, "steps", {})
    # Steps end at 4, 8, 12 ... 40 s; lines are due once 10 s have gone by since the last: at 12, 24 and 36 s.
    shown = re.findall(r"(\d+) of 10 steps", capfd.readouterr().err)
    assert shown == ["3", "6", "9"]


def test_a_terminal_gets_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("train-original") as watch:
        for step in range(1, 51):
            watch(step, 100, "steps", {"loss": 0.25})
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "train-original" in shown
    assert "50/100" in shown
    assert re.search(r"[\d,]+ steps/s", shown)
    assert re.search(r"\d:\d\d", shown)
    assert "loss 0.250" in shown
    assert capsys.readouterr().out == ""


def test_an_error_inside_the_block_comes_out_of_it() -> None:
    with pytest.raises(ValueError, match="inside"), progress("unlearn"):
        raise ValueError("inside")
