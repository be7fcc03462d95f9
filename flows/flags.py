"""What all commands share: the settings that were given as `--section.field VALUE`, common flags, and how knobs are shown."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from e2urec_core.errors import BadSetting
from tasks._stores import VARIABLE as STORE

SCALARS = ("seed", "device", "threads", "processes", "precision", "execution", "fan-out", "parallel")
SETTING = re.compile(r"^--([a-z0-9_-]+\.[a-z0-9_.-]+)(?:=(.*))?$", re.DOTALL)
FLAGS: dict[str, str] = {}
"""Settings of the command that runs, by their dotted names."""


def use_store(address: str | None) -> str | None:
    """Let this process keep artifacts at `address`, if one is given; everything that opens a store reads it from the environment."""
    if address is not None:
        os.environ[STORE] = address
    return address


Workspace = Annotated[Path | None, typer.Option("--workspace", help="Folder of all results; default: $E2UREC_WORKSPACE or ./workspace.")]
StoreAt = Annotated[
    str | None,
    typer.Option(
        "--store",
        callback=use_store,
        help="Folder, or s3://, gs:// or abfss:// address, of the artifacts; default: $E2UREC_STORE or `store` in the workspace.",
    ),
]
Scalar = Annotated[str | None, typer.Option(help="As in the list of settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


def take_settings(arguments: list[str]) -> list[str]:
    """Take `--section.field VALUE` out of the arguments, into `FLAGS`."""
    left: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        match = SETTING.match(argument)
        if match is None:
            left.append(argument)
            continue
        value = match[2] if match[2] is not None else next(waiting, None)
        if value is None:
            raise BadSetting(f"`{argument}` has no value", hint=f"write `{argument} VALUE`")
        FLAGS[match[1]] = value
    return left


@contextmanager
def environment_kept() -> Iterator[None]:
    """Within, a command may choose its store; the next one of this process finds the environment as it was."""
    before = os.environ.get(STORE)
    try:
        yield
    finally:
        os.environ.pop(STORE, None)
        if before is not None:
            os.environ[STORE] = before


def add_scalars(*values: str | None) -> None:
    """Take the settings of no group that the command was given, in the order of `SCALARS`."""
    FLAGS.update({name: value for name, value in zip(SCALARS, values, strict=True) if value is not None})


def told_or_read(word: str) -> str:
    """What was given on the command line; for `-` a line of stdin, which no shell's history keeps."""
    return sys.stdin.readline().rstrip("\r\n") if word == "-" else word


def show_knobs(knobs: Iterable[tuple[str, str, str, str]]) -> None:
    """Print each setting with its value and sentence, a blank line before each section."""
    section = None
    for knob, takes, value, sentence in knobs:
        if (head := knob.split(".")[0]) != section:
            section = head
            print()
        print(f"{knob} {value}\n    {sentence} [{takes}]")
