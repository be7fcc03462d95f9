"""Which failures are worth another try: files, memory and killed processes may mend themselves, input and bugs do not."""

from __future__ import annotations

import pytest

from e2urec_core.errors import ProcessDied, StorageFailed, UserError
from tasks._shown import may_pass


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    "fault",
    [
        OSError(5, "Input/output error"),
        ConnectionResetError(),
        TimeoutError(),
        MemoryError(),
        OutOfMemoryError("CUDA out of memory"),
        StorageFailed("the disk is full", hint="free some"),
        ProcessDied("the process of `unlearn` ended with signal 9", hint="run it again"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_files_memory_and_killed_processes_may_pass(fault: Exception) -> None:
    assert may_pass(fault) is True


@pytest.mark.parametrize(
    "fault",
    [
        *(kind("1 fact", hint="mend it") for kind in UserError.__subclasses__() if kind not in (StorageFailed, ProcessDied)),
        ValueError("ours"),
        AssertionError("ours"),
        RuntimeError("shapes do not fit"),
        KeyError("column"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_bad_input_and_bugs_cannot_pass(fault: Exception) -> None:
    assert may_pass(fault) is False
