"""The commands `e2urec backup` and `e2urec restore`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.flags import AsJson, Debug, StoreAt, Workspace
from tasks._progress import say

FOLDER = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the back-up.")]


def backup(
    folder: FOLDER,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Copy the secret keys, too; whoever has them can sign and recognise.")
    ] = False,
    only_deletions: Annotated[
        bool, typer.Option("--only-deletions", help="Copy ledger, receipts and keys alone: small, to be taken after every night.")
    ] = False,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Copy a workspace into a new folder, all or nothing, while nothing in it writes; it holds data of people: bound its retention."""
    from flows.backing_up import back_up
    from tasks._journal import place_of

    manifest = back_up(place_of(workspace), folder, with_keys=with_keys, only_deletions=only_deletions)
    size = sum(file.size for file in manifest.files.values())
    if as_json:
        _print({"digest": manifest.digest, "files": len(manifest.files), "bytes": size, "keys_left_out": manifest.keys_left_out})
        return
    print(f"{len(manifest.files):,} files, {size:,} bytes, each with its SHA-256: {folder}")
    if manifest.keys_left_out:
        say(f"{len(manifest.keys_left_out)} secret keys were left out; keep them elsewhere: {', '.join(manifest.keys_left_out)}")
    if manifest.server_ledger:
        say("the ledger lies in a database server, which must have a back-up of its own; the rest was copied")


def restore(
    folder: FOLDER,
    deletions_since: Annotated[
        Path | None,
        typer.Option(
            "--deletions-since", help="The workspace it was taken of, or a later back-up: whoever was forgotten since is asked for again."
        ),
    ] = None,
    no_deletions_since: Annotated[
        bool, typer.Option("--no-deletions-since", help="Vouch that nobody was forgotten since it was taken.")
    ] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a back-up a new workspace, and open requests for everybody who was forgotten after it was taken."""
    from flows.restoring import restore as put_in_place
    from tasks._journal import place_of

    place = place_of(workspace)
    done = put_in_place(folder.expanduser().absolute(), place, since=deletions_since, nothing_since=no_deletions_since)
    if as_json:
        told = {"champion": done.version, "deletions_waiting": done.again, "releases_lost": done.lost, "keys_missing": done.missing_keys}
        _print({"backup": done.manifest.digest, **told})
        return
    print(f"the back-up of {done.manifest.taken_at:%Y-%m-%d %H:%M} UTC is in place: {place}")
    print("there was no champion in it" if done.version is None else f"version {done.version} is the champion")
    if done.lost:
        print(f"{done.lost:,} later releases are lost; the ledger still tells of them")
    if done.again:
        print(f"{len(done.again):,} deletions that were carried out since wait to be carried out again: run `e2urec nightly` first")
    for key in done.missing_keys:
        print(f"put back by hand, with mode 600: {place / 'keys' / key}")


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))
