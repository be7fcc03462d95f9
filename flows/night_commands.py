"""The commands `e2urec nightly` and `e2urec erase`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.flags import FLAGS, AsJson, Debug, StoreAt, Workspace
from flows.nights import LADDER, POLLUTION_LADDER
from flows.surroundings import prepare

if TYPE_CHECKING:
    from flows.night_running import Nights


def nightly(
    ladder: Annotated[
        str, typer.Option("--ladder", help="Methods to try until one passes the gates, with commas; METHOD:KNOB=VALUE sets knobs.")
    ] = LADDER,
    pollution_ladder: Annotated[
        str, typer.Option("--pollution-ladder", help="The same for polluted data alone: all are made, the best on validation is taken.")
    ] = POLLUTION_LADDER,
    preset: Annotated[str | None, typer.Option("--preset", help="Named settings that the methods start from, as for `unlearn`.")] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Start though another night holds the workspace; that one can then do nothing more.")
    ] = False,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Carry out the pending deletion requests: unlearn, gates, promote, erase, receipts; finishes what an earlier night left."""
    from flows.night_running import run_nights

    place = prepare(workspace)
    _tell(place, run_nights(place, ladder, preset, FLAGS, pollution_ladder=pollution_ladder, take_over=take_over), as_json=as_json)


def erase(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be erased.")] = False,
    take_over: Annotated[bool, typer.Option("--take-over", help="As for `nightly`.")] = False,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Erase everything that was made from people whom the champion has forgotten, and certify their requests."""
    place = prepare(workspace)
    if dry_run:
        from flows.night_plan import plan_of

        _print_plan(plan_of(place), as_json=as_json)
        return
    from flows.night_running import run_nights

    _tell(place, run_nights(place, LADDER, None, FLAGS, take_over=take_over, only_finish=True), as_json=as_json)


def _tell(place: Path, nights: Nights, *, as_json: bool) -> None:
    told = [json.loads((place / "reports" / run / "night.json").read_text()) for run in nights.runs]
    if as_json:
        print(json.dumps({"nights": told, "expired": nights.expired}, indent=2, allow_nan=False))
    else:
        _print_nights(place, told, nights)
    if nights.failed is not None:
        raise nights.failed


def _print_nights(place: Path, told: list[dict[str, Any]], nights: Nights) -> None:
    if nights.expired:
        print(f"{nights.expired:,} requests were rejected: nobody had verified them in time")
    if not told and nights.failed is None:
        print("nothing is pending")
    for night in told:
        print(night["text"])
        print(f"report: {place / 'reports' / night['run'] / 'night.html'}")


def _print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan, indent=2, allow_nan=False))
        return
    for line in plan["text"]:
        print(line)
