"""The commands `e2urec stage` and `e2urec runs`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from e2urec_core.errors import BadSetting
from flows.flags import FLAGS, AsJson, Debug, Scalar, StoreAt, Workspace, add_scalars
from flows.surroundings import prepare


def stage(
    name: Annotated[str, typer.Argument(help="Stage, such as `unlearn`.")],
    run: Annotated[str, typer.Option("--run", help="Run whose stage is run again, or `last`.")],
    workspace: Workspace = None,
    store: StoreAt = None,
    seed: Scalar = None,
    device: Scalar = None,
    threads: Scalar = None,
    processes: Scalar = None,
    precision: Scalar = None,
    execution: Scalar = None,
    fan_out: Scalar = None,
    parallel: Scalar = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run one stage of an earlier run again, with changed settings if any are given, and say which later stages are now stale."""
    from flows.earlier_runs import open_run, run_of
    from flows.runs import STAGES, change_run

    if name not in STAGES:
        raise BadSetting(f"there is no stage `{name}` among the {len(STAGES)}", hint=f"stages: {', '.join(STAGES)}")
    record = open_run(workspace, run).record
    add_scalars(seed, device, threads, processes, precision, execution, fan_out, parallel)
    # Before Prefect is started, which takes seconds.
    change_run(run_of(record.run, record.settings), FLAGS)
    place = prepare(workspace)
    from flows.stages import FLOWS

    run = record.run
    stale = FLOWS[name](run=run, settings=dict(FLAGS), workspace=str(place))
    entries = open_run(place, run).record.stages
    if as_json:
        _print({"run": run, "stage": name, "stale": stale, "stages": {label: entry.canonical() for label, entry in entries.items()}})
    elif stale:
        print("now stale: " + ", ".join(stale))
        print(f"hint: e2urec stage {stale[0].split(' ')[0]} --run {run}")
    else:
        print("no other stage is stale")


def runs(workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the runs of a workspace with the states of their stages."""
    from tasks._journal import place_of
    from tasks._stores import journals_of

    records = journals_of(place_of(workspace)).all()
    if as_json:
        _print([record.canonical() for record in records])
        return
    if not records:
        print("no runs yet")
    for record in records:
        print(f"{record.run}  {record.state}  started {record.started_at}")
        for label, entry in record.stages.items():
            digest = (entry.handle or {}).get("digest", "")[:12]
            print(f"  {label:<24} {entry.state:<10} {entry.seconds:8.1f} s  {digest}  {entry.fault}".rstrip())


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))
