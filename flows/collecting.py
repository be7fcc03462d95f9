"""Garbage collection of a workspace: alone in it, by a command or at the end of a night."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.deletion.garbage import bytes_below
from e2urec_core.errors import WorkspaceBusy
from flows.backing_up import refuse_live_runs
from flows.night_running import alone
from tasks import collect
from tasks._progress import say

if TYPE_CHECKING:
    from tasks._desk import Desk
    from tasks.collect import Collection


def collected(workspace: Path, *, keep_days: float, budget: int | None, dry_run: bool) -> Collection:
    """Remove what nobody needs, or only say what that is.

    Args:
        workspace: Its folder.
        keep_days: Days for which everything is kept that a run has made or used.
        budget: Bytes that the store's artifacts may take; none removes whatever is not needed.
        dry_run: Whether to remove nothing.

    Raises:
        WorkspaceBusy: A run or a night is at work.
        DamagedLedger: The ledger's tables are not what its history says.
    """
    from tasks._desk import Desk

    with alone(workspace, take_over=False):
        refuse_live_runs(workspace, "tidied")
        desk = Desk.of(workspace, "gc")
        desk.releases.verify()
        found = collect.plan(desk, keep_days=keep_days, budget=budget, now_s=time.time())
        if not dry_run:
            collect.carry_out(desk.store, found, guard=lambda: refuse_live_runs(workspace, "tidied"))
    return found


def tidy(desk: Desk, keep_days: float) -> None:
    """Remove what nobody needs at the end of nights, which are alone already; beside a run of somebody else nothing is removed any more."""
    try:
        refuse_live_runs(desk.workspace, "tidied")
        found = collect.plan(desk, keep_days=keep_days, budget=None, now_s=time.time())
        collect.carry_out(desk.store, found, guard=lambda: refuse_live_runs(desk.workspace, "tidied"))
    except WorkspaceBusy as busy:
        say(f"not everything was tidied: {busy.fact}")
        return
    if gone := sum(fate.goes for fate in found.fates):
        say(f"tidied: {gone:,} artifacts that nobody needs, {found.num_bytes:,} bytes")


def rows_of(collection: Collection) -> list[dict[str, Any]]:
    """The plan as a table: what goes or stays, by kind and reason."""
    counts: dict[tuple[bool, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for fate in collection.fates:
        row = counts[fate.goes, fate.stored.handle.kind, fate.why]
        row[0] += 1
        row[1] += fate.num_bytes
    for kind, paths in collection.others.items():
        if paths:
            counts[True, kind, "older than --keep-days"] = [len(paths), bytes_below(paths)]
    return [
        {"goes": goes, "kind": kind, "why": why, "count": count, "bytes": size}
        for (goes, kind, why), (count, size) in sorted(counts.items(), key=lambda each: (not each[0][0], *each[0][1:]))
    ]
