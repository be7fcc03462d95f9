"""Which failures are worth another try: files and memory may mend themselves, input and bugs do not."""

from __future__ import annotations

import pytest
from prefect.states import Failed

from e2urec_core.errors import StorageFailed, UserError
from tasks._stage import _may_pass


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
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_files_and_memory_may_pass(fault: Exception) -> None:
    assert _may_pass(None, None, Failed(data=fault)) is True


@pytest.mark.parametrize(
    "fault",
    [
        *(kind("1 fact", hint="mend it") for kind in UserError.__subclasses__() if kind is not StorageFailed),
        ValueError("ours"),
        AssertionError("ours"),
        RuntimeError("shapes do not fit"),
        KeyError("column"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_bad_input_and_bugs_cannot_pass(fault: Exception) -> None:
    assert _may_pass(None, None, Failed(data=fault)) is False
