"""Lines to people on stderr: text, or one JSON object a line where `E2UREC_LOG=json` asks for it.

A JSON line has `time` (UTC, ISO 8601), `level`, `message`, where there are some `run`, `stage` and numbers by their names, and for a
`UserError` its kind, facts and hint. What an error of another kind says may name users, so of those only the kind and the lines of code
are told. Data on stdout is left alone.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import MappingProxyType, TracebackType
from typing import Any

from e2urec_core.errors import BadSetting, UserError

SETTING, FORMS = "E2UREC_LOG", ("text", "json")
OTHERS = ("prefect", "mlflow", "uvicorn", "alembic")
"""Packages whose own lines become JSON, too."""
_ABOUT: ContextVar[Mapping[str, str]] = ContextVar("about", default=MappingProxyType({}))


def as_json() -> bool:
    """Whether lines are JSON.

    Raises:
        BadSetting: `E2UREC_LOG` is neither `text` nor `json`.
    """
    asked = os.environ.get(SETTING) or FORMS[0]
    if asked not in FORMS:
        raise BadSetting(f"{SETTING} is `{asked}`", hint=f"it is one of {', '.join(FORMS)}")
    return asked == "json"


@contextmanager
def about(**names: str) -> Iterator[None]:
    """Within, JSON lines carry these names, such as `run` and `stage`."""
    token = _ABOUT.set({**_ABOUT.get(), **names})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def write(line: str, facts: Mapping[str, Any], level: str = "INFO") -> None:
    """One line; `facts` are told beside the message in JSON, where `line` says them in text."""
    if as_json():
        told = {**_ABOUT.get(), **facts, "msg": " ".join(line.split()), "levelname": level}
        line = _formatter().format(logging.makeLogRecord(told))
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def write_fault(error: UserError) -> None:
    """The sentence, facts and hint with which a command ends."""
    if as_json():
        told = {"error": type(error).__name__, "facts": {name: str(value) for name, value in error.facts.items()}, "hint": error.hint}
        write(error.fact, told, "ERROR")
    else:
        write(str(error), {})


def write_bug(error: BaseException) -> None:
    """The kind of an error that is ours, and where it came up."""
    write("a fault of the program", {"error": type(error).__name__, "lines": code_lines(error.__traceback__)}, "CRITICAL")


def code_lines(trace: TracebackType | None) -> list[str]:
    """Files, functions and lines of code of a traceback; no value of a variable is among them."""
    return [line for frame in traceback.format_tb(trace) for line in frame.rstrip().splitlines()]


def take_over() -> None:
    """Where lines are JSON, let those of Prefect, MLflow and uvicorn be, too."""
    if not as_json():
        return
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in OTHERS]
    for logger in (logging.root, *map(logging.getLogger, names)):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setFormatter(_formatter())


@cache
def _formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class Lines(JsonFormatter):
        """Leaves out what an error says."""

        def formatException(self, ei: Any) -> Any:
            return {"error": ei[0].__name__ if ei[0] else "", "lines": code_lines(ei[2])}

    return Lines(["levelname", "message"], rename_fields={"levelname": "level"}, timestamp="time")
