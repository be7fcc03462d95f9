"""The command `e2urec gc`."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from e2urec_core.errors import BadSetting
from flows.flags import AsJson, Debug, StoreAt, Workspace
from flows.surroundings import prepare

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def gc(
    keep_days: Annotated[float, typer.Option("--keep-days", min=0, max=3650, help="Days for which what runs made or used is kept.")] = 14,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Remove, oldest first, only until the store takes no more than this, such as 20GB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed, and what stays.")] = False,
    workspace: Workspace = None,
    store: StoreAt = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove from the store what nobody needs; never what the champion, a rollback, an open request or a run needs."""
    limit = None if budget is None else bytes_of(budget)
    place = prepare(workspace)
    from flows.collecting import collected, rows_of

    found = collected(place, keep_days=keep_days, budget=limit, dry_run=dry_run)
    rows = rows_of(found)
    if as_json:
        told = {"dry_run": dry_run, "freed_bytes": found.num_bytes, "over_budget_bytes": found.over, "rows": rows}
        print(json.dumps(told, indent=2, allow_nan=False))
        return
    from flows.shown import print_table

    heads = ["", "kind", "why", "count", "bytes"]
    verb = "goes" if dry_run else "went"
    print_table(
        [heads, *([verb if row["goes"] else "stays", row["kind"], row["why"], f"{row['count']:,}", f"{row['bytes']:,}"] for row in rows)]
    )
    print(f"{found.num_bytes:,} bytes {'would be' if dry_run else 'were'} freed")
    if found.over:
        print(f"the store stays {found.over:,} bytes above the budget: what is left is needed, or younger than {keep_days:g} days")


def bytes_of(size: str) -> int:
    """Bytes that a size such as `20GB` or `1.5 GiB` stands for.

    Raises:
        BadSetting: It is none.

    >>> bytes_of("1.5 KiB"), bytes_of("20GB")
    (1536, 20000000000)
    """
    told = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", size.strip())
    if told is None or told[2].upper() not in UNITS:
        raise BadSetting(f"`{size}` is no size", hint="write a number and a unit, such as `20GB`, `500MB` or `1.5GiB`")
    return int(float(told[1]) * UNITS[told[2].upper()])
