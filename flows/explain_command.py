"""The command `e2urec explain` and the flag `--dry-run`: would each stage be taken from the store, and if not, why?"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from e2urec_core.errors import BadSetting
from flows.flags import FLAGS, AsJson, Debug, StoreAt, Workspace
from flows.surroundings import quieten

if TYPE_CHECKING:
    from flows.explaining import Plan, Story
    from tasks._foresight import Foreseen, Foresight
    from tasks._journal import RunRecord

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would become of each stage, and why; nothing is run or written.")]
MOST_REASONS = 3
STATES = {"stored": "from the store", "run": "would run", "depends": "depends"}


def explain(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run of `unlearn`, `train` or `compare`, or `last`.")],
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage.")] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say of each stage of an earlier run whether it would be taken from the store if the run were started again, and if not, why."""
    from flows.earlier_runs import LAST, is_told
    from tasks._journal import place_of
    from tasks._stores import journals_of

    place = place_of(workspace)
    journals = journals_of(place)
    explained = (each for each in journals.all() if "methods" in each.settings or is_told(each.settings))
    runs = list(explained) if name == LAST else []
    record = journals.open(runs[-1].run if runs else name).record.as_it_is()
    foresight = _foreseen(*_story_of(record), place, record)
    stages = [each for each in foresight.stages if stage in (None, each.stage, each.stage.split(" ")[0])]
    if not stages:
        titles = [each.stage for each in foresight.stages]
        raise BadSetting(f"the run `{record.run}` has no stage `{stage}` among its {len(titles)}", hint=f"stages: {', '.join(titles)}")
    if as_json:
        _print(record.run, stages, foresight.ends_at)
    else:
        _show(stages)


def _story_of(record: RunRecord) -> tuple[Plan, Story]:
    """The settings of an earlier run, with changes, and which story it told."""
    from flows.comparison import Comparison
    from flows.earlier_runs import run_of
    from flows.runs import change_run

    if "methods" not in record.settings:
        return change_run(run_of(record.run, record.settings), FLAGS), "train" if record.run.startswith("train-") else "unlearn"
    if FLAGS:
        raise BadSetting(
            f"`--{next(iter(FLAGS))}` is refused: the settings of a comparison are not changed here",
            hint="give them to `e2urec compare --dry-run`",
        )
    return Comparison.model_validate(record.settings), "compare"


def show_dry_run(plan: Plan, story: Story, workspace: Path | None, *, as_json: bool) -> None:
    """Print what would become of each stage of a command that was not run."""
    from tasks._journal import place_of

    foresight = _foreseen(plan, story, place_of(workspace))
    if as_json:
        _print(None, foresight.stages, foresight.ends_at)
        return
    _show(foresight.stages)
    if foresight.ends_at:
        print(f"what comes after depends on what `{foresight.ends_at}` gives")


def _foreseen(plan: Plan, story: Story, place: Path, record: RunRecord | None = None) -> Foresight:
    with tempfile.TemporaryDirectory() as elsewhere:
        # Prefect makes its folder where it finds none.
        quieten(home if (home := place / "prefect").is_dir() else Path(elsewhere))
        from flows.explaining import foresee

        return foresee(plan, story, place, record)


def _print(run: str | None, stages: list[Foreseen], ends_at: str) -> None:
    told = {"run": run, "stages": [each.canonical() for each in stages], "ends_at": ends_at or None}
    print(json.dumps(told, indent=2, allow_nan=False))


def _show(stages: list[Foreseen]) -> None:
    from flows.shown import print_table

    print_table([["stage", "now", "why"], *([each.stage, STATES[each.state], _why(each)] for each in stages)])
    counts = {state: sum(each.state == state for each in stages) for state in STATES}
    print(f"{counts['stored']} of {len(stages)} stages from the store, {counts['run']} would run, {counts['depends']} depend on those")


def _why(stage: Foreseen) -> str:
    told = [reason.text for reason in stage.reasons]
    more = [f"and {len(told) - MOST_REASONS} more"] if len(told) > MOST_REASONS else []
    return "; ".join([*told[:MOST_REASONS], *more])
