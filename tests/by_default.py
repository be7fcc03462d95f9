"""Which values of a parametrised test run by default."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def few(kept: Collection[object], every: Iterable[object]) -> list[Any]:
    """`every` in its order, for `parametrize`; all but those in `kept` are long."""
    told = list(every)
    assert set(kept) <= set(told)
    return [each if each in kept else _long(each) for each in told]


def _long(each: object) -> Any:
    return pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.long)
