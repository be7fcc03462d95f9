"""Earlier runs of a workspace, by name: their journals and settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2urec_core.errors import BadSetting
from flows.runs import Run
from tasks._journal import Journal, place_of
from tasks._stores import journals_of

LAST = "last"
"""In the place of a run's name: the newest."""


def is_told(settings: Mapping[str, Any]) -> bool:
    """Whether these are settings of a run of `unlearn` or `train`: other commands have settings of their own."""
    return settings.keys() <= Run.model_fields.keys()


def open_run(workspace: str | Path | None, name: str) -> Journal:
    """The journal of a run, or of the newest run of `unlearn` or `train` where the name is `last`.

    Raises:
        UnknownRun: There is none.
    """
    journals = journals_of(place_of(workspace))
    runs = [record.run for record in journals.all() if is_told(record.settings)] if name == LAST else []
    return journals.open(runs[-1] if runs else name)


def run_of(name: str, settings: Mapping[str, Any]) -> Run:
    """The settings of an earlier run of `unlearn` or `train`.

    Raises:
        BadSetting: It was a run of another command.
    """
    if "methods" in settings:
        raise BadSetting(
            f"`{name}` is a comparison, whose stages belong to several runs",
            hint="run the same `e2urec compare` again: whatever has not changed is taken from the store",
        )
    if not is_told(settings):
        strange = sorted(settings.keys() - Run.model_fields.keys())
        raise BadSetting(
            f"`{name}` is no run of `unlearn` or `train`: it has settings of its own ({', '.join(strange)})",
            hint="run its own command again: whatever has not changed is taken from the store",
        )
    return Run.model_validate(settings)
