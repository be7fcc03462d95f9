"""Failpoints: nothing without the variable, and with it exactly what it says."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext

import pytest
from ledgers import child, ended

from e2urec_core.failpoints import VARIABLE, failpoint


def pass_by(*names: str) -> None:
    for name in names:
        failpoint(name)


def test_a_failpoint_does_nothing_unless_its_own_name_is_armed() -> None:
    assert ended(child(lambda: pass_by("here", "here"))) == 0
    assert ended(child(lambda: pass_by("here", "here"), **{VARIABLE: "there:1:kill"})) == 0


@pytest.mark.parametrize(("nth", "times", "status"), [(1, 1, -9), (2, 1, 0), (2, 2, -9), (0, 1, -9)])
def test_the_nth_passing_kills(nth: int, times: int, status: int) -> None:
    assert ended(child(lambda: pass_by(*["here"] * times), **{VARIABLE: f"here:{nth}:kill"})) == status


@pytest.mark.parametrize(("nth", "raised"), [(2, [False, True, False]), (0, [True, True, True])])
def test_a_failpoint_raises_once_or_for_as_long_as_it_is_armed(monkeypatch: pytest.MonkeyPatch, nth: int, raised: list[bool]) -> None:
    name = f"raised-{nth}"
    monkeypatch.setenv(VARIABLE, f"{name}:{nth}:raise")
    for expected in raised:
        with pytest.raises(OSError, match=f"failpoint `{name}`") if expected else nullcontext():
            failpoint(name)


def test_a_stopped_process_goes_on_when_it_is_told_to() -> None:
    process = child(lambda: pass_by("here"), **{VARIABLE: "here:1:stop"})
    assert os.WIFSTOPPED(os.waitpid(process, os.WUNTRACED)[1])
    os.kill(process, signal.SIGCONT)
    assert ended(process) == 0


def test_an_unknown_action_is_a_bug() -> None:
    assert ended(child(lambda: pass_by("here"), **{VARIABLE: "here:1:vanish"})) == 1
