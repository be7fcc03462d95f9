"""The commands `e2urec models`: look at released recommenders, compare two, make one the champion, take an earlier one back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2urec_core.errors import BadSetting, ReleaseRefused, TrackingFailed
from flows.flags import AsJson, Debug, StoreAt, Workspace
from flows.surroundings import prepare
from tasks._progress import say

if TYPE_CHECKING:
    from pathlib import Path

    from e2urec_core.ledger.records import Line, ReleaseRecord
    from tasks._desk import Desk

VERSION = Annotated[int, typer.Argument(metavar="VERSION", help="Version of the registered model.")]

app = typer.Typer(help="Released recommenders: list, show, compare, promote, roll back.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """Released recommenders: list, show, compare, promote, roll back."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list")
def list_models(workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the releases, newest first: which is champion, what the gates said, how many people it has forgotten."""
    desk = _desk(workspace)
    held = _look(desk)
    releases = desk.releases.releases()
    roles = _roles(desk.releases.line()) | {each.bundle: "erased" for each in releases if _is_erased(each, held)}
    rows = [_summary(desk, release, roles) for release in releases]
    if as_json:
        _print(rows)
        return
    if not rows:
        print("no releases yet")
        print("hint: e2urec unlearn sample tiny-t5 e2urec")
        return
    from flows.shown import print_table

    heads = ("version", "role", "gates", "method", "forgotten", "made at, UTC")
    print_table([list(heads), *([str(row[head.split(",")[0].replace(" ", "_")]) for head in heads] for row in rows)])


@app.command()
def show(version: VERSION, workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show one release: where it comes from, what every gate said, whom of the forgotten it still knows."""
    from e2urec_core.release.verdict import VerdictDocument

    desk = _desk(workspace)
    release = desk.releases.release(version)
    known, barring = desk.releases.still_known(version), desk.releases.still_known(version, "rollback")
    if as_json:
        told = {"still_known": known, "bar_rollback": barring}
        _print({**_summary(desk, release, _roles(desk.releases.line())), **release.canonical(), **told})
        return
    verdict = VerdictDocument.model_validate(release.verdict)
    from flows.shown import print_table

    for name, value in _summary(desk, release, _roles(desk.releases.line())).items():
        print(f"{name.replace('_', ' '):<12} {value}")
    print(f"{'bundle':<12} {release.bundle}")
    print(f"{'model':<12} {release.model}")
    print(f"{'judged by':<12} {release.judged_against or 'the original that it was made from'}")
    # A verdict's last column, its remark, is too long for a terminal.
    print_table([row[:-1] for row in verdict.table()])
    print(verdict.text)
    print(f"still knows  {len(known)} of those whom a champion has forgotten{': ' + ', '.join(known[:5]) if known else ''}")
    if known != barring:
        print(f"             {len(known) - len(barring)} of them are not purged yet and would be taken back by a rollback")


@app.command()
def promote(version: VERSION, workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Make a version the champion, once the registry's copy of it is proved to be what was judged."""
    _move(_desk(workspace), version, "promote", as_json=as_json)


@app.command()
def rollback(
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="Version that was champion before; default: the last one.")
    ] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take an earlier champion back, unless it still knows somebody who has been forgotten since and whose data is purged."""
    desk = _desk(workspace)
    if version is None:
        previous = desk.releases.line().previous
        if previous is None:
            raise ReleaseRefused("there is no champion before this one", hint="`e2urec models list` shows the releases")
        version = desk.releases.release(previous).registry_version
    assert version is not None, "a champion is registered"
    _move(desk, version, "rollback", as_json=as_json)


@app.command()
def diff(
    first: Annotated[int, typer.Argument(metavar="A", help="Version before.")],
    second: Annotated[int, typer.Argument(metavar="B", help="Version after.")],
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare two versions on the same rows: measures, calibration, gates, and whose scores moved most; writes a page."""
    if first == second:
        raise BadSetting(f"version {first} is compared with itself", hint="name two versions of `e2urec models list`")
    place = prepare(workspace)
    from flows.diff import diff as diff_flow
    from flows.shown import show_difference

    show_difference(place, diff_flow(first, second, str(place)), as_json=as_json)


def _desk(workspace: Path | None) -> Desk:
    place = prepare(workspace)
    from e2urec_core.ledger.owed import Owed
    from tasks._desk import Desk

    desk = Desk.of(place, "e2urec models")
    if waiting := Owed(desk.ledger).waiting():
        say(f"the champion comes from a back-up and knows people again: {len(waiting):,} restored deletions wait for `e2urec nightly`")
    return desk


def _look(desk: Desk) -> set[int] | None:
    """Set the aliases right, if the registry can be reached, and tell which versions it holds; what else is shown is the ledger's."""
    try:
        if desk.releases.releases():
            desk.repair()
            return set(desk.registry.versions())
    except TrackingFailed as failed:
        say(f"{failed.fact}; what is shown is the ledger's, the registry was not looked at")
    return None


def _is_erased(release: ReleaseRecord, held: set[int] | None) -> bool:
    return held is not None and release.registry_version is not None and release.registry_version not in held


def _move(desk: Desk, version: int, kind: Any, *, as_json: bool) -> None:
    from tasks.promote import promote as move

    before = desk.releases.line()
    line = move(desk, version, kind)
    if as_json:
        _print({"champion": version, "previous": _version(desk, line.previous), "epoch": line.epoch, "changed": line != before})
    elif line == before:
        print(f"version {version} is the champion already")
    else:
        was = _version(desk, line.previous)
        print(f"version {version} is the champion now; before it was {'none' if was is None else f'version {was}'}")
        known = desk.releases.still_known(version)
        if known:
            print(f"it knows {len(known)} who were forgotten again, until a run takes their requests back and carries them out anew")


def _summary(desk: Desk, release: ReleaseRecord, roles: dict[str, str]) -> dict[str, Any]:
    gates: Any = release.verdict["gates"]
    return {
        "version": release.registry_version,
        "role": roles.get(release.bundle, "not registered" if release.registry_version is None else ""),
        "gates": f"{sum(gate['passed'] for gate in gates)} of {len(gates)}",
        "method": release.method or "none",
        "forgotten": len(desk.releases.forgotten_by(release.bundle)),
        "made_at": release.made_at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00"),
        "run": release.run,
    }


def _roles(line: Line) -> dict[str, str]:
    named = {line.previous: "previous", line.champion: "champion"}
    return {bundle: role for bundle, role in named.items() if bundle}


def _version(desk: Desk, bundle: str | None) -> int | None:
    return desk.releases.release(bundle).registry_version if bundle else None


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))
