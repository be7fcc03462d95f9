"""The command `e2urec scan`: the independent proof, after an erasure, that nothing names the user any more."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from e2urec_core.errors import BadInput
from e2urec_core.ledger import VARIABLE as LEDGER
from flows.flags import AsJson, Debug, StoreAt, Workspace, told_or_read
from tasks._progress import say

if TYPE_CHECKING:
    from e2urec_core.scanning.scan import Scan

EXIT_FOUND = 1
SQLITE = "sqlite:///"


def scan(
    user: Annotated[str, typer.Option("--user", help="The data's own name of the user; `-` reads it from stdin.")],
    item: Annotated[
        list[str] | None, typer.Option("--item", help="Look for this interaction of the user alone; may be repeated. Default: the user.")
    ] = None,
    example_ids: Annotated[
        Path | None, typer.Option("--example-ids", help="File with ids of the user's rows, one a line, written before they were deleted.")
    ] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look through a whole workspace for everything that names a user. Exit code 0: nothing; 1: something; 2: bad input."""
    from e2urec_core.scanning.scan import Scan
    from e2urec_core.scanning.shelves import shelves_of
    from e2urec_core.scanning.targets import Targets, read_example_ids
    from tasks._journal import place_of
    from tasks._stores import store_to_read

    named = told_or_read(user)
    known = frozenset[int]()
    if example_ids is not None:
        try:
            known = read_example_ids(example_ids.read_text(errors="replace"))
        except OSError as error:
            raise BadInput(
                f"the example ids cannot be read: {error.strerror}", facts={"file": example_ids}, hint="name a file that you may read"
            ) from None
    place = place_of(workspace)
    search = Scan(place, Targets.of(named, item or (), known), shelves_of(store_to_read(place), place))
    search.run()
    _ledger(search)
    _tracking(search)
    found = search.result()
    if as_json:
        print(json.dumps(found.places, indent=2))
    else:
        for each in (*found.places, *kept_on_purpose(place, named)):
            print(each)
        print(found.summary)
    if found.places:
        sys.stdout.flush()
        sys.exit(EXIT_FOUND)


def kept_on_purpose(workspace: Path, user: str) -> list[str]:
    """Sentences on what a workspace keeps of a user on purpose, and that no search finds."""
    from datetime import UTC, datetime

    from e2urec_core.ledger.suppressions import suppressed_in

    suppressed = suppressed_in(workspace)
    until = suppressed.user_cut_offs([user]).get(0)
    told = []
    if until is not None:
        day = f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC"
        told.append(f"kept on purpose: the suppression list has a keyed mark of the user, which keeps out rows up to {day}")
    if suppressed.have_pairs([user]):
        told.append("kept on purpose: the suppression list has keyed marks of single interactions of the user")
    return told


def _ledger(search: Scan) -> None:
    address = os.environ.get(LEDGER)
    if not address:
        return
    if address.startswith(SQLITE):
        _file(search, address, "ledger")
        return
    search.server(address, "ledger")


def _tracking(search: Scan) -> None:
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address.startswith(SQLITE):
        _file(search, address, "tracking")
    elif address.startswith(("http://", "https://")):
        from tasks.scan import scan_tracking

        say("asking the tracking server")
        scan_tracking(search, address)


def _file(search: Scan, address: str, called: str) -> None:
    path = Path(address.removeprefix(SQLITE)).absolute()
    # One that lies in the workspace was looked through with it.
    if not path.is_relative_to(search.workspace):
        search.file(path, f"{called} {path.name}")
